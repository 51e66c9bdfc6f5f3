//! `rerank run` and `rerank status`.

use clap::Args;
#[cfg(feature = "cluster")]
use datafusion_rerank::ClusterAddress;

use super::options::OptionArgs;
use super::scoring::{EngineArgs, ModelArgs, WindowArgs, at_least_one};
use crate::files::Compression;
use crate::run::OnError;

/// `rerank run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A Parquet or Arrow IPC file (`.parquet`, `.arrow`, `.feather`), a directory of them (searched in depth; names
    /// that begin with `.` or `_` are skipped) or a glob (`*`, `?`, `[..]`, `**`); a local path or a URL (`s3://`,
    /// `gs://`, `az://`). All files must have the same columns.
    pub(crate) input: String,

    /// A file to write (`.parquet`, `.arrow`, `.feather`, `.arrows`), or the directory of a job that can be resumed.
    /// A file appears only when it is complete.
    pub(crate) output: String,

    /// Column of the queries.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "query")]
    pub(crate) query: String,

    /// Column of the passages.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "passage")]
    pub(crate) passage: String,

    /// Column that is added: Float32, or a list of Float32 if several cutoff layers are asked for.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "score")]
    pub(crate) score: String,

    /// A query that gives the columns and rows of the output, in place of `SELECT *, rerank(query, passage) AS score
    /// FROM input`. The table `input` is INPUT; other files are named by their paths (`JOIN 'languages.parquet' AS l`).
    /// `--model`, its options and `--window-rows` are what calls of `rerank` use that say nothing else. A query that
    /// needs more than one row of the input at a time (ORDER BY, GROUP BY, LIMIT, window functions) is refused.
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["query", "passage", "score", "on_error"])]
    pub(crate) sql: Option<String>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    #[command(flatten)]
    pub(crate) window: WindowArgs,

    /// Rows of a unit of work: a unit is a file of the output, and what is done again at most when a job is killed.
    /// Inputs are cut between row groups (record batches of Arrow files), so that a unit may be larger.
    #[arg(long, help_heading = "Job", value_name = "ROWS", default_value_t = 1_000_000, value_parser = at_least_one)]
    pub(crate) unit_rows: usize,

    /// Compression of the output.
    #[arg(long, help_heading = "Job", value_enum, default_value_t = Compression::Zstd)]
    pub(crate) compression: Compression,

    /// Most rows in a row group of the output; a group also ends when it reaches 64 MiB.
    #[arg(long, help_heading = "Job", value_name = "ROWS", default_value_t = 131_072, value_parser = at_least_one)]
    pub(crate) row_group_rows: usize,

    /// What a row that cannot be scored does: fail the run, or get a NULL score and its reason in a column
    /// `<score>_error`. A NULL query or passage is no failure: its score is NULL.
    #[arg(long, help_heading = "Job", value_enum, default_value_t = OnError::Fail)]
    pub(crate) on_error: OnError,

    /// Replace the file OUTPUT if it exists already; begin a job in a directory that holds other files, which are left
    /// alone.
    #[arg(long, help_heading = "Job")]
    pub(crate) overwrite: bool,

    /// Delete the data files and records of the job that OUTPUT holds, and nothing else, and start over.
    #[arg(long, help_heading = "Job")]
    pub(crate) restart: bool,

    /// Write what the run did and cost to this file, as JSON. If its name ends in `.html` it gets a page with
    /// throughput over time and the distributions of scores and lengths, and the JSON is written beside it.
    #[arg(long, help_heading = "Job", value_name = "FILE")]
    pub(crate) report: Option<String>,

    /// Have a cluster do the job: the address of its scheduler (`rerank cluster --help`). INPUT, OUTPUT and the files
    /// that `--sql` names must be reached by all executors under the same names: in a bucket, or on a file system that
    /// all machines share. Devices and threads are the executors' own; `--device cuda` says that they have GPUs, which
    /// decides what precision is usual.
    #[cfg(feature = "cluster")]
    #[arg(
        long, help_heading = "Job", value_name = "df://HOST:PORT", env = "RERANK_CLUSTER",
        conflicts_with_all = ["threads", "dry_run"]
    )]
    pub(crate) cluster: Option<ClusterAddress>,

    /// Write nothing: count the units that are to do, sample the lengths of their rows, measure the model for a few
    /// seconds and tell how long the run would take.
    #[arg(long, help_heading = "Job", conflicts_with = "report")]
    pub(crate) dry_run: bool,
}

/// `rerank status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The output directory of the job.
    pub(crate) output: String,

    /// Print a JSON object instead of lines for reading.
    #[arg(long)]
    pub(crate) json: bool,
}
