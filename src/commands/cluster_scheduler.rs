//! `rerank cluster scheduler`: Ballista's scheduler, which reads our plans.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use ballista_core::config::TaskSchedulingPolicy;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion_rerank::RerankFunctions;
use datafusion_rerank::cluster::{RerankCodec, cluster_config, scheduler_session};

use crate::args::SchedulerArgs;
use crate::cluster::{JobCodec, Stores};
use crate::terminal::{Printer, stop};

/// The number of checks for lost executors within the timeout of an executor.
const CHECKS: u64 = 4;

/// The least time, in seconds, that a job waits after the last executor was lost.
const GRACE_SECONDS: u64 = 120;

/// Runs the subcommand.
pub(crate) fn run(args: &SchedulerArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(args, printer));
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &SchedulerArgs, printer: Printer) -> Result<()> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None if args.bind.is_unspecified() => bail!(
            "--bind {}: executors must know this machine; give the name or address by which they reach it with --host",
            args.bind
        ),
        None => args.bind.to_string(),
    };
    let functions = RerankFunctions::default();
    // Decoding a plan looks up its stores without sending them requests.
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Stores::default())).build_arc()?;
    let codec = JobCodec::new(RerankCodec::new(&functions));
    let config = SchedulerConfig {
        bind_host: args.bind.to_string(),
        bind_port: args.port,
        external_host: host.clone(),
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        executor_timeout_seconds: args.executor_timeout,
        expire_dead_executor_interval_seconds: (args.executor_timeout / CHECKS).max(1),
        no_executors_grace_period_seconds: args.executor_timeout.max(GRACE_SECONDS),
        override_config_producer: Some(Arc::new(cluster_config)),
        override_session_builder: Some(Arc::new(move |config| {
            Ok(scheduler_session(config, Arc::clone(&runtime), &functions))
        })),
        override_physical_codec: Some(Arc::new(codec)),
        ..SchedulerConfig::default()
    };
    let address = SocketAddr::new(args.bind, args.port);
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(|error| anyhow!("{error}"))?;
    printer.note(&format!(
        "the scheduler listens on {address}; executors and clients reach it at df://{host}:{}",
        args.port
    ));
    tokio::select! {
        served = start_server(cluster, address, Arc::new(config)) => {
            served.map_err(|error| anyhow!("the scheduler cannot listen on {address}: {error}"))
        }
        // Jobs record their own progress, so nothing is lost.
        stopped = stop::requested() => {
            tracing::info!(%stopped, "the scheduler ends");
            Ok(())
        }
    }
}
