//! Options shared by the commands that score: the model, its options, the device.

use std::path::PathBuf;

use clap::Args;
use datafusion_rerank::{DEFAULT_WINDOW_ROWS, Devices, MaxDelay};

/// The model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The model: NAME=DIR (a name for a checkpoint directory), DIR, the name of a published model (`m3`) or a Hugging
    /// Face id in the local Hugging Face cache, or `tiny`, the bundled demonstration.
    #[arg(long, value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Option<String>,
}

/// Where and how the model runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct EngineArgs {
    /// Device that runs the model: `cpu`, `cuda`, `cuda:N`, or `cuda:N,M` for several GPUs, each with its own copy of
    /// the weights, which share one queue. A GPU that cannot be used is an error.
    #[arg(long, default_value_t = Devices::default())]
    pub(crate) device: Devices,

    /// Threads of the CPU device [default: all cores].
    #[arg(long, value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,

    /// Token budget of a device batch, padding included [default: as measured by a large job; otherwise 512 per thread
    /// on the CPU, 16384 on a GPU].
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) batch_tokens: Option<usize>,

    /// Folder of converted weights, measured batch sizes and the bundled model [default: `rerank` in the user's cache
    /// folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,
}

/// The rows that batches are made from.
#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// Rows that are sorted by length and divided into batches together: more rows mean less padding and more memory.
    #[arg(long, value_name = "ROWS", default_value_t = DEFAULT_WINDOW_ROWS, value_parser = at_least_one)]
    pub(crate) window_rows: usize,
}

/// How long rows wait for others.
#[derive(Debug, Args)]
pub(crate) struct DelayArgs {
    /// Longest time that rows wait for others while their source has no more: `50ms`, `1s`, a number of milliseconds.
    /// Rows are scored earlier if the device has nothing else to do, and later if they would only wait in its queue.
    /// `off` scores full windows only, so that the same rows have the same scores to the last bit.
    #[arg(long, value_name = "TIME", default_value_t = MaxDelay::default())]
    pub(crate) max_delay: MaxDelay,
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
        assert_eq!(at_least_one("1").unwrap(), 1);
        for wrong in ["0", "-1", "x", ""] {
            assert!(at_least_one(wrong).is_err(), "{wrong}");
        }
    }
}
