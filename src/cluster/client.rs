//! The client of a job on a cluster. Submits units to the scheduler and watches the records. Submits the remaining
//! units again when the cluster loses more at once than it can recover from.

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
use datafusion_rerank::RerankFunctions;
use datafusion_rerank::cluster::{ClusterAddress, RerankCodec, cluster_config, failure_cause};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};
use tonic::Code;
use tonic::transport::Channel;

use super::job_codec::JobCodec;
use super::messages::{JobMessage, UnitMessage, Work};
use super::score_units_exec::ScoreUnitsExec;
use crate::job::{Ledger, Unit};
use crate::run::{Content, Plan, Progress, ScoredCopy, Task};
use crate::storage::write_small;
use crate::terminal::{LINE_INTERVAL, Stopped};

/// Units per submission. Their plan stays well below the limit of a message.
const UNITS_AT_ONCE: usize = 4096;

/// How long to retry connecting to the scheduler before a job.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How often to poll the scheduler.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// How often to read the records.
const RECORDS_INTERVAL: Duration = Duration::from_secs(1);

/// Markers read concurrently.
const MARKERS_AT_ONCE: usize = 32;

/// Give up after this many submissions in a row without a completed unit.
const FRUITLESS_ATTEMPTS: u32 = 3;

/// The pause before another attempt, multiplied by the number of fruitless attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// A connection to a scheduler.
#[derive(Debug)]
pub(crate) struct Cluster {
    address: ClusterAddress,
    scheduler: SchedulerGrpcClient<Channel>,
}

/// `_rerank/cluster.json`: the scheduler's job that works on this one.
#[derive(Debug, Serialize, Deserialize)]
struct ClusterRecord {
    scheduler: String,
    job: String,
}

/// How a scheduler's job ended.
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
                // The scheduler may be starting.
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

    /// Has executors score the units of a plan until all are done or `stop` is ready. Returns the longest time that an
    /// executor took to load the model.
    pub(crate) async fn run(
        &mut self,
        job: &JobMessage,
        plan: &Plan,
        ledger: &mut Ledger,
        progress: &mut Progress,
        mut stop: Pin<&mut impl Future<Output = Stopped>>,
    ) -> Result<Duration> {
        let firsts = || plan.copies.iter().filter_map(|copy| copy.units.first());
        // A copy may have failed although its unit is done.
        ledger.expect_failures(firsts().map(|first| first.id.clone()));
        ledger.forget_failures(plan.tasks.iter().map(|task| &task.unit).chain(firsts())).await?;
        let mut watch = Watch {
            plan,
            left: plan.tasks.iter().collect(),
            copies: plan.copies.iter().collect(),
            load: Duration::ZERO,
            progress,
        };
        let mut fruitless = 0;
        while !watch.is_done() {
            let before = watch.work_left();
            let messages = watch.next_messages();
            let end = self.run_units(job, &messages, ledger, &mut watch, stop.as_mut()).await?;
            watch.look(ledger).await?;
            watch.look_at_copies(ledger).await?;
            if let Some(failure) = ledger.failure(watch.units()).await? {
                bail!("unit {} of {}: {}", failure.number, failure.input, failure.reason);
            }
            fruitless = if watch.work_left() < before { 0 } else { fruitless + 1 };
            match end {
                End::Failed(cause) if fruitless == FRUITLESS_ATTEMPTS => {
                    bail!("the cluster {} cannot do the job: {cause}", self.address)
                }
                End::Failed(cause) => {
                    tracing::warn!(%cause, units = watch.work_left(), "units are handed to the scheduler again");
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
        // Files of killed executors.
        ledger.sweep()?;
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
        let record = ClusterRecord { scheduler: self.address.to_string(), job: id.clone() };
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
                    // The scheduler does not know the job yet, or no longer.
                    None if known => return Ok(End::Failed("the scheduler was started anew".to_owned())),
                    None => {}
                },
            }
        }
    }

    /// Submits a plan. Returns the id of the scheduler's job.
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

    /// Cancels a scheduler's job. A failure is only logged: the job does no harm.
    async fn cancel(&mut self, job: &str) {
        if let Err(error) = self.scheduler.cancel_job(CancelJobParams { job_id: job.to_owned() }).await {
            tracing::warn!(%error, job, "the scheduler could not be told to stop");
        }
    }

    /// Cancels the cluster job of a killed client before this job resumes or starts over.
    pub(super) async fn cancel_orphan(&mut self, ledger: &Ledger) -> Result<()> {
        let Some(bytes) = ledger.cluster_record().read().await? else { return Ok(()) };
        if let Ok(record) = serde_json::from_slice::<ClusterRecord>(&bytes)
            && record.scheduler == self.address.to_string()
        {
            self.cancel(&record.job).await;
        }
        remove_record(ledger).await
    }

    fn failed(&self, status: &tonic::Status) -> anyhow::Error {
        let (address, cause) = (&self.address, status.message());
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => anyhow!(
                "the scheduler {address} does not answer: {cause}; when it does, run the same command again to resume"
            ),
            _ => anyhow!("the scheduler {address} refuses: {}", failure_cause(cause)),
        }
    }
}

async fn remove_record(ledger: &Ledger) -> Result<()> {
    ledger.cluster_record().remove().await
}

/// The remaining units and copies, and the results of those that were committed meanwhile.
struct Watch<'a> {
    plan: &'a Plan,
    left: Vec<&'a Task>,
    copies: Vec<&'a ScoredCopy>,
    load: Duration,
    progress: &'a mut Progress,
}

impl Watch<'_> {
    /// The units of the remaining work.
    fn units(&self) -> impl Iterator<Item = &Unit> {
        let firsts = self.copies.iter().filter_map(|copy| copy.units.first());
        self.units_left().chain(firsts)
    }

    fn units_left(&self) -> impl Iterator<Item = &Unit> {
        self.left.iter().map(|task| &task.unit)
    }

    fn work_left(&self) -> usize {
        self.left.len() + self.copies.len()
    }

    fn is_done(&self) -> bool {
        self.work_left() == 0
    }

    /// The messages of the next submission: copies whose units are all done, and units.
    fn next_messages(&self) -> Vec<UnitMessage> {
        let left: HashSet<&str> = self.units_left().map(|unit| unit.id.as_str()).collect();
        let is_ready = |copy: &&&ScoredCopy| copy.units.iter().all(|unit| !left.contains(unit.id.as_str()));
        let copies = self
            .copies
            .iter()
            .filter(is_ready)
            .filter_map(|copy| Some(UnitMessage::new(copy.units.first()?, Work::Copy, copy.input())));
        let units = self.left.iter();
        let units = units.map(|task| UnitMessage::new(&task.unit, Work::Score, &self.plan.inputs[task.unit.input]));
        copies.chain(units).take(UNITS_AT_ONCE).collect()
    }

    /// Counts the copies that were completed.
    async fn look_at_copies(&mut self, ledger: &Ledger) -> Result<()> {
        let mut left = Vec::new();
        for copy in std::mem::take(&mut self.copies) {
            let done = match copy.units.first() {
                Some(first) => ledger.is_copied(first, &copy.input().identity.name).await?,
                None => true,
            };
            if done { self.progress.add_file() } else { left.push(copy) }
        }
        self.copies = left;
        Ok(())
    }

    /// Counts the units committed since the last call.
    async fn look(&mut self, ledger: &mut Ledger) -> Result<()> {
        let marked = ledger.marked().await?;
        let found = self.left.iter().copied().filter(|task| marked.contains(&task.unit.id));
        let reading = found.map(|task| {
            let (ledger, input) = (&*ledger, self.plan.input_name(task));
            async move { Ok::<_, anyhow::Error>((task, ledger.marker(&task.unit, input).await?)) }
        });
        let markers: Vec<_> = stream::iter(reading).buffer_unordered(MARKERS_AT_ONCE).try_collect().await?;
        let mut done = HashSet::new();
        for (task, marker) in &markers {
            let Some(marker) = marker else { continue };
            self.progress.add(&marker.tally, &task.unit);
            if task.content != Content::Scores {
                self.progress.add_file();
            }
            let load_seconds = marker.executor.as_ref().map_or(0.0, |worker| worker.load_seconds);
            self.load = self.load.max(Duration::try_from_secs_f64(load_seconds).unwrap_or_default());
            done.insert(task.unit.id.as_str());
        }
        ledger.add_commits(done.len());
        self.left.retain(|task| !done.contains(task.unit.id.as_str()));
        Ok(())
    }
}
