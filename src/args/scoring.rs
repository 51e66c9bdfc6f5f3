//! What commands that score have in common: the model, its options, the device.

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

/// How pairs are made into text and scored.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Model options")]
pub(crate) struct OptionArgs {
    /// Give the sigmoid of the logit (0 to 1) instead of the logit.
    #[arg(long)]
    pub(crate) normalize: bool,

    /// Longest passage, and longest pair, in tokens [default: 512].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_length: Option<usize>,

    /// Longest query, in tokens [default: three quarters of the longest pair].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) query_max_length: Option<usize>,

    /// Text put before every query.
    #[arg(long, value_name = "TEXT")]
    pub(crate) query_instruction: Option<String>,

    /// Text put before every passage.
    #[arg(long, value_name = "TEXT")]
    pub(crate) passage_instruction: Option<String>,

    /// The question put to a decoder after the pair.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,

    #[command(flatten)]
    pub(crate) graph: GraphOptionArgs,
}

/// Options that change what is computed, not the text.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Model options")]
pub(crate) struct GraphOptionArgs {
    /// In what the layers compute: `fp32`; `fp16` or `bf16` on a GPU, which are several times as fast; `int8` on the CPU,
    /// which is about twice as fast and less exact. Weights are converted once and kept in the cache [default: fp32 on the
    /// CPU; on a GPU fp16 for m3, bf16 for the decoders].
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: Option<String>,

    /// The layer whose score is wanted, or several separated by commas [default: the last].
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub(crate) cutoff_layers: Vec<usize>,

    /// How many neighbouring passage tokens are averaged into one at each compression layer [default: 1].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) compress_ratio: Option<usize>,

    /// The layers before which passages are compressed, separated by commas [default: 8].
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub(crate) compress_layers: Vec<usize>,

    /// Any option of the model by its name; may be repeated.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) named: Vec<(String, String)>,
}

/// Where and how the model runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct EngineArgs {
    /// Where the model runs: `cpu`, `cuda`, `cuda:N`, or on several GPUs `cuda:N,M`, each with weights of its own and all
    /// fed from one queue. A GPU that cannot be used is an error.
    #[arg(long, default_value_t = Devices::default())]
    pub(crate) device: Devices,

    /// Threads of the CPU device [default: all cores].
    #[arg(long, value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,

    /// Most tokens in a device batch, padding included [default: what a large job measured, or else 512 a thread on the CPU,
    /// 65536 on a GPU].
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub(crate) batch_tokens: Option<usize>,

    /// Folder in which weights of another precision, what was measured of batches and the bundled model are kept [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,
}

/// Of how many rows batches are made.
#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// Rows sorted by length and cut into batches together: more rows mean less padding and more memory.
    #[arg(long, value_name = "ROWS", default_value_t = DEFAULT_WINDOW_ROWS, value_parser = at_least_one)]
    pub(crate) window_rows: usize,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
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

    #[test]
    fn an_option_may_hold_equals_signs() {
        assert_eq!(name_and_value("prompt=a=b"), Ok(("prompt".to_owned(), "a=b".to_owned())));
        assert!(name_and_value("prompt").is_err());
    }
}
