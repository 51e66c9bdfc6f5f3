//! The client's side of a job on a cluster: hands units to the scheduler, watches the records, and hands over again
//! what is left when a cluster loses too much at once to finish by itself.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ballista_core::config::BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK;
use ballista_core::extension::SessionConfigExt;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::job_status::Status;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, execute_query_result,
};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_core::version::insert_version_header;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use datafusion_rerank::cluster::{ClusterAddress, RerankCodec, cluster_config, failure_cause};
use datafusion_rerank::{RerankFunctions, ScoreStats};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};
use tonic::Code;
use tonic::transport::Channel;

use super::job_codec::JobCodec;
use super::messages::{JobMessage, UnitMessage};
use super::score_units_exec::ScoreUnitsExec;
use crate::job::{Ledger, Manifest, Marker, UnitEntry};
use crate::report::Tally;
use crate::run::{Plan, Task};
use crate::storage::write_small;
use crate::terminal::{LINE_INTERVAL, Progress, Stopped};

/// Units handed to the scheduler at once: a plan of them stays well below the size of a message.
const UNITS_AT_ONCE: usize = 4096;

/// How long a scheduler that does not answer is waited for before a job.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How often the scheduler is asked.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// How often the records are looked at.
const RECORDS_INTERVAL: Duration = Duration::from_secs(1);

/// Markers read at once.
const MARKERS_AT_ONCE: usize = 32;

/// How often units are handed over again while none of them gets done.
const FRUITLESS_ATTEMPTS: u32 = 3;

/// The pause before that, times the number of attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A connection to a scheduler.
#[derive(Debug)]
pub(crate) struct Cluster {
    address: ClusterAddress,
    scheduler: SchedulerGrpcClient<Channel>,
}

/// A job of the scheduler's that works on a job of ours.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    scheduler: String,
    job: String,
}

/// How a job of the scheduler's ended.
enum End {
    Done,
    Failed(String),
}

impl Cluster {
    /// Connects to the scheduler.
    pub(crate) async fn connect(address: &ClusterAddress) -> Result<Self> {
        let config = cluster_config().ballista_config();
        let limit = config.grpc_client_max_message_size();
        let endpoint = create_grpc_client_endpoint(address.endpoint(), Some(&GrpcClientConfig::from(&config)));
        let endpoint = endpoint.with_context(|| format!("the scheduler {address} cannot be reached"))?;
        let deadline = Instant::now() + CONNECT_PATIENCE;
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                // It may have been started just now.
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the scheduler cannot be reached yet");
                    sleep(STATUS_INTERVAL).await;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("the scheduler {address} cannot be reached"));
                }
            }
        };
        let scheduler =
            SchedulerGrpcClient::new(channel).max_encoding_message_size(limit).max_decoding_message_size(limit);
        Ok(Self { address: address.clone(), scheduler })
    }

    /// Has the units of a plan scored by executors, until all are done or `stop` is ready; gives the longest time that
    /// an executor took to load the model.
    pub(crate) async fn run(
        &mut self,
        job: &JobMessage,
        plan: &Plan,
        ledger: &mut Ledger,
        manifest: &Manifest,
        progress: &mut Progress,
        mut stop: Pin<&mut impl Future<Output = Stopped>>,
    ) -> Result<Duration> {
        ledger.forget_failures(plan.tasks.iter().map(|task| &task.entry)).await?;
        let mut watch = Watch { left: plan.tasks.iter().collect(), load: Duration::ZERO, manifest, progress };
        let mut fruitless = 0;
        while !watch.left.is_empty() {
            let before = watch.left.len();
            let units: Vec<UnitMessage> =
                watch.left.iter().take(UNITS_AT_ONCE).map(|task| message(plan, task)).collect();
            let end = self.run_units(job, &units, ledger, &mut watch, stop.as_mut()).await?;
            watch.look(ledger).await?;
            if let Some(failure) = ledger.failure(watch.entries()).await? {
                bail!("unit {} of {}: {}", failure.number, failure.input, failure.reason);
            }
            fruitless = if watch.left.len() < before { 0 } else { fruitless + 1 };
            match end {
                End::Failed(cause) if fruitless == FRUITLESS_ATTEMPTS => {
                    bail!("the cluster {} cannot do the job: {cause}", self.address)
                }
                End::Failed(cause) => {
                    tracing::warn!(%cause, units = watch.left.len(), "units are handed to the scheduler again");
                    sleep(PAUSE * fruitless).await;
                }
                End::Done if fruitless == FRUITLESS_ATTEMPTS => {
                    bail!(
                        "the executors of {} say that units are done, of which there are no records; all machines must see OUTPUT at the same path",
                        self.address
                    )
                }
                End::Done => {}
            }
        }
        let load = watch.load;
        remove_record(ledger).await?;
        ledger.tidy()?;
        Ok(load)
    }

    async fn run_units(
        &mut self,
        job: &JobMessage,
        units: &[UnitMessage],
        ledger: &mut Ledger,
        watch: &mut Watch<'_>,
        mut stop: Pin<&mut impl Future<Output = Stopped>>,
    ) -> Result<End> {
        let id = self.submit(ScoreUnitsExec::of_units(job.clone(), units)?).await?;
        let record = Record { scheduler: self.address.to_string(), job: id.clone() };
        let record = serde_json::to_vec(&record).context("a record is not JSON")?;
        write_small(&ledger.cluster_record(), record).await?;
        let mut status = interval(STATUS_INTERVAL);
        let mut records = interval_at(Instant::now() + RECORDS_INTERVAL, RECORDS_INTERVAL);
        let mut lines = interval_at(Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
        for ticks in [&mut status, &mut records, &mut lines] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut known = false;
        loop {
            tokio::select! {
                biased;
                stopped = &mut stop => {
                    self.cancel(&id).await;
                    remove_record(ledger).await?;
                    return Err(stopped.into());
                }
                _ = lines.tick() => watch.progress.line(),
                _ = records.tick() => watch.look(ledger).await?,
                _ = status.tick() => match self.status(&id).await? {
                    Some(Status::Successful(_)) => return Ok(End::Done),
                    Some(Status::Failed(failed)) => return Ok(End::Failed(failure_cause(&failed.error))),
                    Some(_) => known = true,
                    // It is not known yet, or not any more.
                    None if known => return Ok(End::Failed("the scheduler was started anew".to_owned())),
                    None => {}
                },
            }
        }
    }

    /// Hands a plan over; gives the id of the scheduler's job.
    async fn submit(&mut self, plan: ScoreUnitsExec) -> Result<String> {
        let codec = JobCodec::new(RerankCodec::new(&RerankFunctions::default()));
        let plan = PhysicalPlanNode::try_from_physical_plan(Arc::new(plan), &codec)?;
        let mut bytes = Vec::new();
        plan.try_encode(&mut bytes)?;
        let config = cluster_config().set_usize(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, 1);
        let settings = config.options().entries().into_iter();
        let settings = settings.map(|entry| KeyValuePair { key: entry.key, value: entry.value }).collect();
        let mut request = tonic::Request::new(ExecuteQueryParams {
            session_id: format!("rerank-run-{}", std::process::id()),
            settings,
            operation_id: String::new(),
            query: Some(Query::PhysicalPlan(bytes)),
        });
        insert_version_header(request.metadata_mut());
        let answer = self.scheduler.execute_query(request).await.map_err(|status| self.failed(&status))?;
        match answer.into_inner().result {
            Some(execute_query_result::Result::Success(accepted)) => Ok(accepted.job_id),
            Some(execute_query_result::Result::Failure(failure)) => {
                bail!("the scheduler {} refuses the job: {}", self.address, failure_cause(&format!("{failure:?}")))
            }
            None => bail!("the scheduler {} does not say what became of the job", self.address),
        }
    }

    async fn status(&mut self, job: &str) -> Result<Option<Status>> {
        let asked = self.scheduler.get_job_status(GetJobStatusParams { job_id: job.to_owned() }).await;
        let answer = asked.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().status.and_then(|status| status.status))
    }

    /// Cancels a job of the scheduler's. That it cannot be is only logged: the job does no harm.
    async fn cancel(&mut self, job: &str) {
        if let Err(error) = self.scheduler.cancel_job(CancelJobParams { job_id: job.to_owned() }).await {
            tracing::warn!(%error, job, "the scheduler could not be told to stop");
        }
    }

    fn failed(&self, status: &tonic::Status) -> anyhow::Error {
        let (address, cause) = (&self.address, status.message());
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => anyhow!(
                "the scheduler {address} does not answer: {cause}; when it does, run the same command again to go on"
            ),
            _ => anyhow!("the scheduler {address} refuses: {}", failure_cause(cause)),
        }
    }
}

fn message(plan: &Plan, task: &Task) -> UnitMessage {
    UnitMessage::new(&task.entry, &task.unit, &plan.inputs[task.unit.input])
}

/// Cancels what a client that was killed had asked a cluster for, before the job goes on or starts over.
pub(crate) async fn cancel_orphan(cluster: &mut Cluster, ledger: &Ledger) -> Result<()> {
    let Some(bytes) = ledger.cluster_record().read().await? else { return Ok(()) };
    if let Ok(record) = serde_json::from_slice::<Record>(&bytes)
        && record.scheduler == cluster.address.to_string()
    {
        cluster.cancel(&record.job).await;
    }
    remove_record(ledger).await
}

async fn remove_record(ledger: &Ledger) -> Result<()> {
    crate::job::ledger::remove(&ledger.cluster_record()).await
}

/// The units that are not done yet, and those that have been done meanwhile.
struct Watch<'a> {
    left: Vec<&'a Task>,
    load: Duration,
    manifest: &'a Manifest,
    progress: &'a mut Progress,
}

impl Watch<'_> {
    fn entries(&self) -> impl Iterator<Item = &UnitEntry> {
        self.left.iter().map(|task| &task.entry)
    }

    /// Counts what has been committed since the last look.
    async fn look(&mut self, ledger: &mut Ledger) -> Result<()> {
        let marked = ledger.marked().await?;
        let found = self.left.iter().copied().filter(|task| marked.contains(&task.entry.id));
        let reading = found.map(|task| {
            let (ledger, manifest) = (&*ledger, self.manifest);
            async move { Ok::<_, anyhow::Error>((task, ledger.marker(manifest, &task.entry).await?)) }
        });
        let markers: Vec<_> = stream::iter(reading).buffer_unordered(MARKERS_AT_ONCE).try_collect().await?;
        let mut done = HashSet::new();
        for (task, marker) in &markers {
            let Some(marker) = marker else { continue };
            self.progress.add(&tally(marker), &task.unit);
            let load_seconds = marker.executor.as_ref().map_or(0.0, |worker| worker.load_seconds);
            self.load = self.load.max(Duration::try_from_secs_f64(load_seconds).unwrap_or_default());
            done.insert(task.entry.id.as_str());
        }
        ledger.add_commits(done.len());
        self.left.retain(|task| !done.contains(task.entry.id.as_str()));
        Ok(())
    }
}

/// What a marker says of its unit.
fn tally(marker: &Marker) -> Tally {
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let mut stats = ScoreStats::default();
    stats.rows = marker.rows;
    stats.pairs = marker.pairs;
    stats.duplicates = marker.duplicates;
    stats.truncated = marker.truncated;
    stats.errors = marker.errors.values().sum();
    stats.tokens = marker.tokens;
    stats.padding_tokens = marker.padding_tokens;
    stats.batches = marker.batches;
    stats.tokenize_time = seconds(marker.tokenize_seconds);
    stats.device_time = seconds(marker.device_seconds);
    Tally {
        stats,
        errors: marker.errors.clone(),
        scores: marker.score_histogram.clone(),
        tokens: marker.token_histogram.clone(),
    }
}
