//! `rerank cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datafusion_rerank::cluster::ClusterAddress;

use super::manual::{EXECUTOR_MANUAL, SCHEDULER_MANUAL};
use super::scoring::{EngineArgs, at_least_one};

/// A process of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Run the scheduler, which divides plans into tasks, assigns them to executors and detects lost executors. It
    /// needs no access to models or data.
    #[command(after_long_help = SCHEDULER_MANUAL)]
    Scheduler(SchedulerArgs),
    /// Run an executor, which reads, scores and writes.
    #[command(after_long_help = EXECUTOR_MANUAL)]
    Executor(Box<ExecutorArgs>),
}

/// `rerank cluster scheduler`.
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// Address to listen on. There is no authentication: anyone who can connect can run plans.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,

    /// Port to listen on.
    #[arg(long, default_value_t = 50050)]
    pub(crate) port: u16,

    /// Name or address at which executors reach this machine; required unless they can reach the `--bind` address.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Seconds without a heartbeat after which an executor counts as lost and its tasks are reassigned. At least twice
    /// the executors' `--heartbeat`.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) executor_timeout: u64,
}

/// `rerank cluster executor`.
#[derive(Debug, Args)]
pub(crate) struct ExecutorArgs {
    /// Address of the scheduler. The executor waits for it, and reconnects after a restart.
    #[arg(long, value_name = "df://HOST:PORT", env = "RERANK_CLUSTER", default_value = "df://127.0.0.1:50050")]
    pub(crate) scheduler: ClusterAddress,

    /// Address to listen on. There is no authentication.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,

    /// Port from which others fetch rows; the next port is for the scheduler.
    #[arg(long, default_value_t = 50051, value_parser = clap::value_parser!(u16).range(1..65535))]
    pub(crate) port: u16,

    /// Name or address at which the scheduler, other executors and clients reach this machine. With the port it is also
    /// the executor's name in errors [default: the address that the scheduler sees].
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Concurrent tasks: units of a job, partitions of a query. Two keep a device busy: one is read or written while
    /// the other is scored.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub(crate) slots: usize,

    /// Seconds between heartbeats.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) heartbeat: u64,

    /// Where the executor creates its working folder, for rows on their way to others and for what does not fit into
    /// memory. It removes that folder at the end, and also those of killed executors [default: the system's temporary
    /// folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,

    /// A model that plans refer to, as NAME=DIR; may be repeated. The directory may differ between machines, the
    /// checkpoint may not. Other models are looked up in the Hugging Face cache, then at the client's path.
    #[arg(long, help_heading = "Model", value_name = "MODEL", env = "RERANK_MODEL")]
    pub(crate) model: Vec<String>,

    /// Models kept open; the least recently used is closed first.
    #[arg(long, help_heading = "Model", value_name = "MODELS", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) max_models: usize,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
