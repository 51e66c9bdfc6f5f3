//! Arguments that commands which score have in common: the model, the device, the window.

use std::path::PathBuf;

use clap::Args;
use datafusion_rerank::{DEFAULT_WINDOW_ROWS, Devices};

/// Which model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The model: NAME=DIR (a name for a checkpoint directory), DIR, the name of a published model (`m3`) or a Hugging
    /// Face id, which must be in the local Hugging Face cache, or `tiny`, the bundled demonstration.
    #[arg(long, value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Option<String>,
}

/// Where and how the model runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct EngineArgs {
    /// Where the model runs: `cpu`, `cuda`, `cuda:N`, or on several GPUs `cuda:N,M`, each with its own weights and all fed
    /// from one queue. A GPU that cannot be used is an error.
    #[arg(long, default_value_t = Devices::default())]
    pub(crate) device: Devices,

    /// Threads of the CPU device [default: all cores].
    #[arg(long, value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,

    /// Most tokens in a device batch, padding included [default: what a large job measured, or else 512 per thread on the
    /// CPU, 65536 on a GPU].
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) batch_tokens: Option<usize>,

    /// Folder for converted weights, batch measurements and the bundled model [default: `rerank` in the user's cache
    /// folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,
}

/// How many rows are cut into batches together.
#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// Rows sorted by length and cut into batches together: more rows mean less padding and more memory.
    #[arg(long, value_name = "ROWS", default_value_t = DEFAULT_WINDOW_ROWS, value_parser = at_least_one)]
    pub(crate) window_rows: usize,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, &'static str> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one() {
        assert_eq!(at_least_one("1"), Ok(1));
        for wrong in ["0", "-1", "x", ""] {
            assert!(at_least_one(wrong).is_err(), "{wrong}");
        }
    }
}
