//! `rerank score`.

use std::path::PathBuf;

use clap::Args;
use datafusion_rerank::MaxDelay;

use super::options::OptionArgs;
use super::scoring::{EngineArgs, ModelArgs};

/// `rerank score`.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// The query.
    #[arg(required_unless_present = "jsonl")]
    pub(crate) query: Option<String>,

    /// The passages.
    #[arg(required_unless_present = "jsonl")]
    pub(crate) passages: Vec<String>,

    /// Read JSON lines from this file, or from standard input, in place of QUERY and PASSAGES: objects with the texts
    /// `query` and `passage`. Prints each object unchanged, in order, with its `score`. The score is null if a text is
    /// null or the pair cannot be scored, in which case `score_error` has the reason. A line is answered while its
    /// writer waits for the answer.
    #[arg(
        long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-",
        conflicts_with_all = ["query", "passages", "json"]
    )]
    pub(crate) jsonl: Option<PathBuf>,

    /// With --jsonl, the longest time that a line waits for others while its writer is silent: `50ms`, `1s`, a number
    /// of milliseconds. Lines are scored earlier if the device has nothing else to do, and later if they would only
    /// wait in its queue. `off` scores full windows only, so that the same lines have the same scores to the last bit.
    #[arg(long, value_name = "TIME", default_value_t = MaxDelay::default(), conflicts_with_all = ["query", "passages"])]
    pub(crate) max_delay: MaxDelay,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    /// Print one JSON object per line instead of `score<TAB>passage` (with tabs and line ends in passages written as
    /// `\t` and `\n`).
    #[arg(long)]
    pub(crate) json: bool,
}
