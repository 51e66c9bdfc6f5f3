//! `rerank sql`.

use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "cluster")]
use datafusion_rerank::cluster::ClusterAddress;

use super::options::OptionArgs;
use super::scoring::{DelayArgs, EngineArgs, WindowArgs};

/// `rerank sql`.
#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// Run these statements and exit; may be repeated. Without `-c` and `-f` the shell prompts for statements, or reads
    /// them from standard input if it is not a terminal. The first failure ends the program with status 1.
    #[arg(short, long, value_name = "SQL")]
    pub(crate) command: Vec<String>,

    /// Run the statements of a file (`-`: standard input) before those of `-c`, and exit; may be repeated.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,

    /// Format of printed rows. If standard output is not a terminal, only rows are printed.
    #[arg(long, value_enum, default_value = "automatic")]
    pub(crate) format: datafusion_cli::print_format::PrintFormat,

    /// Maximum rows of a result printed as a table; `inf` prints all. Other formats always print all rows.
    #[arg(long, value_name = "ROWS", default_value = "40")]
    pub(crate) max_rows: datafusion_cli::print_options::MaxRows,

    /// A model for SQL, as NAME=DIR, DIR, `m3`, a Hugging Face id, or `tiny`, the bundled one; may be repeated. The
    /// first is the default of calls [default: tiny].
    #[arg(long, help_heading = "Model", value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Vec<String>,

    #[command(flatten)]
    pub(crate) options: OptionArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    #[command(flatten)]
    pub(crate) window: WindowArgs,

    #[command(flatten)]
    pub(crate) delay: DelayArgs,

    /// Run queries on a cluster: the address of its scheduler (`rerank cluster --help`). All executors must reach the
    /// files under the same names. Devices and threads are settings of the executors; `--device cuda` declares that
    /// they have GPUs, which changes the default precision.
    #[cfg(feature = "cluster")]
    #[arg(
        long,
        help_heading = "Device",
        value_name = "df://HOST:PORT",
        env = "RERANK_CLUSTER",
        conflicts_with = "threads"
    )]
    pub(crate) cluster: Option<ClusterAddress>,
}
