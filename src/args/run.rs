//! `rerank run` and `rerank status`.

use clap::Args;
#[cfg(feature = "cluster")]
use datafusion_rerank::cluster::ClusterAddress;

use super::options::OptionArgs;
use super::scoring::{EngineArgs, ModelArgs, WindowArgs, at_least_one};
use crate::files::Compression;
use crate::job::OnError;

/// `rerank run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A Parquet or Arrow IPC file (`.parquet`, `.arrow`, `.feather`), a directory of them (searched recursively; names
    /// that begin with `.` or `_` are skipped) or a glob (`*`, `?`, `[..]`, `**`); a local path or a URL (`s3://`,
    /// `gs://`, `az://`). All files must have the same columns.
    pub(crate) input: String,

    /// A file to write (`.parquet`, `.arrow`, `.feather`, `.arrows`), which appears once it is complete; or the
    /// directory of a job, which can be resumed.
    pub(crate) output: String,

    /// Column of the queries.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "query")]
    pub(crate) query: String,

    /// Column of the passages.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "passage")]
    pub(crate) passage: String,

    /// Column to add: Float32, or a list of Float32 with several cutoff layers.
    #[arg(long, help_heading = "Columns", value_name = "COLUMN", default_value = "score")]
    pub(crate) score: String,

    /// A query that returns the rows of the output, in place of `SELECT *, rerank(query, passage) AS score FROM input`.
    /// The table `input` is INPUT; other files are named by their paths (`JOIN 'languages.parquet' AS l`). `--model`,
    /// its options and `--window-rows` are the defaults of calls of `rerank`. A query that needs more than one row of
    /// the input at a time (ORDER BY, GROUP BY, LIMIT, window functions) is refused.
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

    /// Rows in a unit of work. A killed job repeats at most the units in flight. With `--sql`, and of Arrow files, each
    /// unit is a file of the output and inputs are divided between row groups or record batches, so that a unit may be
    /// larger.
    #[arg(long, help_heading = "Job", value_name = "ROWS", default_value_t = 1_000_000, value_parser = at_least_one)]
    pub(crate) unit_rows: usize,

    /// Compression of what is encoded: the score column, or the whole output with `--sql` and of Arrow files.
    #[arg(long, help_heading = "Job", value_enum, default_value_t = Compression::Zstd)]
    pub(crate) compression: Compression,

    /// Maximum rows in a row group of an output that is encoded (`--sql`, Arrow inputs) [default: 131072]; a group also
    /// ends at 64 MiB. The output of a Parquet file has the row groups of the file.
    #[arg(long, help_heading = "Job", value_name = "ROWS", value_parser = at_least_one)]
    pub(crate) row_group_rows: Option<usize>,

    /// What to do about a row that cannot be scored: fail the run, or set the score to NULL and write the reason to the
    /// column `<score>_error`. A NULL query or passage is not a failure: its score is NULL.
    #[arg(long, help_heading = "Job", value_enum, default_value_t = OnError::Fail)]
    pub(crate) on_error: OnError,

    /// Replace the file OUTPUT if it exists; or start a job in a directory that holds other files, which stay.
    #[arg(long, help_heading = "Job")]
    pub(crate) overwrite: bool,

    /// Delete the data files and records of the job that OUTPUT holds, and nothing else, and start over.
    #[arg(long, help_heading = "Job")]
    pub(crate) restart: bool,

    /// Write a report of the run to this file, as JSON. If its name ends in `.html` it is a page with throughput over
    /// time and the distributions of scores and lengths, and the JSON is written beside it.
    #[arg(long, help_heading = "Job", value_name = "FILE")]
    pub(crate) report: Option<String>,

    /// Run the job on a cluster: the address of its scheduler (`rerank cluster --help`). All executors must reach
    /// INPUT, OUTPUT and the files of `--sql` under the same names: in a bucket or on a shared file system. Devices and
    /// threads are settings of the executors; `--device cuda` declares that they have GPUs, which changes the default
    /// precision.
    #[cfg(feature = "cluster")]
    #[arg(
        long, help_heading = "Job", value_name = "df://HOST:PORT", env = "RERANK_CLUSTER",
        conflicts_with_all = ["threads", "dry_run"]
    )]
    pub(crate) cluster: Option<ClusterAddress>,

    /// Write nothing: count the remaining units, sample the lengths of their rows, measure the model for a few seconds
    /// and estimate the time of the run.
    #[arg(long, help_heading = "Job", conflicts_with = "report")]
    pub(crate) dry_run: bool,
}

/// `rerank status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The output directory of the job.
    pub(crate) output: String,

    /// Print a JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}
