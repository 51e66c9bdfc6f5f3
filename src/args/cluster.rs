//! `rerank cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datafusion_rerank::ClusterAddress;

use super::manual::{EXECUTOR_MANUAL, SCHEDULER_MANUAL};
use super::scoring::{EngineArgs, at_least_one};

/// A process of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Run the scheduler, which cuts plans into tasks, hands them to executors and notices when one is lost. It needs
    /// neither models nor data.
    #[command(after_long_help = SCHEDULER_MANUAL)]
    Scheduler(SchedulerArgs),
    /// Run an executor, which opens models, reads, scores and writes.
    #[command(after_long_help = EXECUTOR_MANUAL)]
    Executor(Box<ExecutorArgs>),
}

/// `rerank cluster scheduler`.
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// Address to listen on. There is no authentication: whoever reaches it can have plans run.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,

    /// Port to listen on.
    #[arg(long, default_value_t = 50050)]
    pub(crate) port: u16,

    /// Name or address by which executors reach this machine; must be given unless `--bind` is an address that they
    /// can reach.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Seconds without a sign of life after which an executor is taken for lost and its tasks are given to others. At
    /// least twice the executors' `--heartbeat`.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) executor_timeout: u64,
}

/// `rerank cluster executor`.
#[derive(Debug, Args)]
pub(crate) struct ExecutorArgs {
    /// The scheduler; it is waited for, and found again after it was started anew.
    #[arg(long, value_name = "df://HOST:PORT", env = "RERANK_CLUSTER", default_value = "df://127.0.0.1:50050")]
    pub(crate) scheduler: ClusterAddress,

    /// Address to listen on. There is no authentication.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,

    /// Port of the rows that others fetch; the next port takes the scheduler's orders.
    #[arg(long, default_value_t = 50051, value_parser = clap::value_parser!(u16).range(1..65535))]
    pub(crate) port: u16,

    /// Name or address by which the scheduler, other executors and clients reach this machine; also the executor's name
    /// in errors, with the port [default: the address that the scheduler sees].
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Tasks at once: units of a job, partitions of a query. Two keep a device busy, as one is read and written while
    /// the other is scored.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub(crate) slots: usize,

    /// Seconds between signs of life.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) heartbeat: u64,

    /// Where the executor makes a folder of its own, for rows on their way to others and for what does not fit into
    /// memory. It removes that folder in the end, and those of executors that were killed [default: the system's
    /// temporary folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,

    /// A model that plans name, as NAME=DIR; may be repeated. It is found here whatever its place is on other machines,
    /// and must be the same checkpoint there. What is not given is looked for in the Hugging Face cache, and then
    /// where the client has it.
    #[arg(long, help_heading = "Model", value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Vec<String>,

    /// Models kept open, the least recently used going first.
    #[arg(long, help_heading = "Model", value_name = "MODELS", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) max_models: usize,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
