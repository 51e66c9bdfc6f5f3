//! `rerank cluster executor`: Ballista's executor, with our functions, operators and models.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::executor_server::TERMINATING;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;
use datafusion_rerank::cluster::{ExecutorModels, RerankCodec, cluster_config, function_registry};
use datafusion_rerank::{ModelRegistry, RerankConfig, RerankFunctions};

use crate::args::ExecutorArgs;
use crate::cluster::{JobCodec, Stores, UnitWork, WorkDir};
use crate::model::session;
use crate::terminal::{Printer, stop};

/// Rows that a client has not fetched after this many seconds are deleted, along with what tasks left behind.
const JOB_DATA_SECONDS: u64 = 24 * 60 * 60;

/// How often to look for such rows, in seconds.
const CLEAN_UP_SECONDS: u64 = 30 * 60;

/// The file in which Linux keeps the machine's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Any number means to wait for the scheduler indefinitely.
const WAIT_FOR_SCHEDULER: u16 = 1;

/// Runs the subcommand.
pub(crate) fn run(args: ExecutorArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(args, printer));
    runtime.shutdown_background();
    outcome
}

async fn serve(args: ExecutorArgs, printer: Printer) -> Result<()> {
    let name = name(&args);
    let (registry, settings) = session::executor_settings(&args).with_context(|| format!("executor {name}"))?;
    // Kept while the process waits for another scheduler.
    let work_dir = WorkDir::new(&args.work_dir.clone().unwrap_or_else(std::env::temp_dir))?;

    let stopped = Arc::new(AtomicBool::new(false));
    tokio::spawn({
        let stopped = Arc::clone(&stopped);
        async move {
            stop::requested().await;
            stopped.store(true, Ordering::Relaxed);
        }
    });
    loop {
        printer.note(&format!(
            "executor {name}: {} slots, {}, scheduler {}",
            args.slots, args.engine.device, args.scheduler
        ));
        let process = process(&args, &name, work_dir.path(), registry.clone(), settings.clone())?;
        let served = start_executor_process(Arc::new(process)).await;
        if stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        served.map_err(|error| anyhow!("executor {name} cannot serve: {error}"))?;
        // Ballista returns when its scheduler is silent for long or considers it lost. Models stay open.
        tracing::warn!(executor = name, scheduler = %args.scheduler, "the scheduler was lost; waiting for it");
        TERMINATING.store(false, Ordering::Release);
    }
}

/// The executor's name in errors.
fn name(args: &ExecutorArgs) -> String {
    let machine = || std::fs::read_to_string(HOST_NAME).ok().filter(|_| args.bind.is_unspecified());
    let host = args.host.clone().or_else(machine).unwrap_or_else(|| args.bind.to_string());
    format!("{}:{}", host.trim(), args.port)
}

fn process(
    args: &ExecutorArgs,
    name: &str,
    work_dir: &Path,
    registry: ModelRegistry,
    settings: RerankConfig,
) -> Result<ExecutorProcessConfig> {
    let functions = RerankFunctions::new(registry.clone());
    let models = ExecutorModels::new(name, registry.clone(), settings.engine.clone(), settings.max_models);
    let rerank = RerankCodec::for_executor(&functions, models.clone());
    let work = UnitWork { models, registry, settings: settings.clone(), printer: Printer::silent() };
    let work_dir = work_dir.to_str().with_context(|| format!("{} is not text", work_dir.display()))?.to_owned();
    let folder = work_dir.clone();
    let runtime = move |_: &SessionConfig| {
        let stores = Arc::new(Stores::default());
        RuntimeEnvBuilder::new().with_temp_file_path(&folder).with_object_store_registry(stores).build_arc()
    };
    let configuration = move || {
        let mut config = cluster_config();
        config.options_mut().extensions.insert(settings.clone());
        config
    };
    Ok(ExecutorProcessConfig {
        bind_host: args.bind.to_string(),
        external_host: args.host.clone(),
        port: args.port,
        grpc_port: args.port + 1,
        scheduler_host: args.scheduler.host().to_owned(),
        scheduler_port: args.scheduler.port(),
        scheduler_connect_timeout_seconds: WAIT_FOR_SCHEDULER,
        vcores: args.slots,
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: Some(work_dir),
        job_data_ttl_seconds: JOB_DATA_SECONDS,
        job_data_clean_up_interval_seconds: CLEAN_UP_SECONDS,
        executor_heartbeat_interval_seconds: args.heartbeat,
        override_function_registry: Some(Arc::new(function_registry(&functions))),
        override_runtime_producer: Some(Arc::new(runtime)),
        override_config_producer: Some(Arc::new(configuration)),
        override_physical_codec: Some(Arc::new(JobCodec::for_executor(rerank, work))),
        ..ExecutorProcessConfig::default()
    })
}
