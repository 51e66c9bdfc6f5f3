//! `rerank score`.

use std::path::PathBuf;

use clap::Args;

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
    /// `query` and `passage`. Each comes out as it was, in its place, with its `score`; `score` is null if a text is,
    /// and where a pair cannot be scored, whose reason is then in `score_error`.
    #[arg(
        long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-",
        conflicts_with_all = ["query", "passages", "json"]
    )]
    pub(crate) jsonl: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    /// Print a JSON object a line instead of `score<TAB>passage` (in which tabs and line ends of a passage are
    /// written `\t` and `\n`).
    #[arg(long)]
    pub(crate) json: bool,
}
