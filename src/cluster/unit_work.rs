//! Does the work of a job on an executor: scores a unit and commits it, or makes an output file of several units.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use datafusion::common::config::ExtensionOptions;
use datafusion_rerank::cluster::{ExecutorModels, PlannedModel};
use datafusion_rerank::{ModelRegistry, RerankConfig, Reranker};

use super::messages::{JobMessage, UnitMessage, Work};
use crate::files::{Columns, Compression, Format, OutputKind};
use crate::job::{JobSettings, Ledger, OnError, Query, Scoring, UnitWorker};
use crate::run::{Journal, Plan, Progress, ScoredCopy, Task, run_plan};
use crate::terminal::{Printer, Stopped, one_line};

/// What an executor needs to run units.
#[derive(Debug, Clone)]
pub(crate) struct UnitWork {
    pub(crate) models: ExecutorModels,
    pub(crate) registry: ModelRegistry,
    /// Device, threads and cache for models that queries name.
    pub(crate) settings: RerankConfig,
    pub(crate) printer: Printer,
}

impl UnitWork {
    /// Does the work of a message unless it is already done. Records the reason of a failure with the executor's name.
    pub(crate) async fn run(
        &self,
        job: &JobMessage,
        message: &UnitMessage,
        stop: impl Future<Output = Stopped>,
    ) -> Result<()> {
        let mut ledger = Ledger::new(job.output.location()?);
        ledger.join(&message.unit)?;
        match message.work {
            Work::Score => self.score(job, message, ledger, stop).await,
            Work::Copy => self.copy(job, message, ledger, stop).await,
        }
    }

    async fn score(
        &self,
        job: &JobMessage,
        message: &UnitMessage,
        mut ledger: Ledger,
        stop: impl Future<Output = Stopped>,
    ) -> Result<()> {
        let (unit, input) = (&message.unit, message.input_name());
        if ledger.marker(unit, input).await?.is_some() {
            return Ok(());
        }
        let task = ledger.task(unit, input, job.settings.splices(input));
        let (reranker, plan, worker) = match self.open(job, message, task).await {
            Ok((reranker, plan, load_seconds)) => {
                (reranker, plan, UnitWorker { name: self.models.executor().to_owned(), load_seconds })
            }
            Err(error) => {
                self.record_failure(&ledger, message, &error).await;
                return Err(error);
            }
        };
        let journal = Journal { ledger: &mut ledger, worker: Some(worker) };
        let mut progress = Progress::start(self.printer, plan.extent());
        run_plan(Arc::new(plan), reranker, Some(journal), &mut progress, pin!(stop)).await
    }

    async fn copy(
        &self,
        job: &JobMessage,
        message: &UnitMessage,
        mut ledger: Ledger,
        stop: impl Future<Output = Stopped>,
    ) -> Result<()> {
        let stopped = Arc::<AtomicBool>::default();
        let made = {
            let mut making = pin!(self.make_copy(job, message, &ledger, Arc::clone(&stopped)));
            tokio::select! {
                made = &mut making => made,
                reason = stop => {
                    stopped.store(true, Ordering::Relaxed);
                    drop(making.await);
                    return Err(reason.into());
                }
            }
        };
        match made {
            Ok(()) => ledger.forget_failure(&message.unit.id).await,
            Err(error) => {
                self.record_failure(&ledger, message, &error).await;
                Err(error)
            }
        }
    }

    async fn make_copy(
        &self,
        job: &JobMessage,
        message: &UnitMessage,
        ledger: &Ledger,
        stopped: Arc<AtomicBool>,
    ) -> Result<()> {
        let name = message.input_name();
        if ledger.is_copied(&message.unit, name).await? {
            return Ok(());
        }
        let manifest = ledger.manifest().await?.context("the job in OUTPUT is gone")?;
        let units = manifest.pieces_of(&message.unit.id).context("the job in OUTPUT is another by now")?;
        let planned = PlannedModel::from_json(&job.model)?;
        let models = self.models.clone();
        let opening = tokio::task::spawn_blocking(move || models.open(&planned));
        let reranker = opening.await.context("the model could not be opened")??;
        let columns = columns(&job.settings, &reranker)?;
        let compression = value::<Compression>("--compression", &job.settings.compression)?;
        let copy = ScoredCopy::new(ledger, message.input()?, units, columns, compression);
        copy.make(stopped).await.map(drop)
    }

    async fn record_failure(&self, ledger: &Ledger, message: &UnitMessage, error: &anyhow::Error) {
        let reason = format!("executor {}: {}", self.models.executor(), one_line(error));
        ledger.fail(&message.unit, message.input_name(), reason).await;
    }

    /// Returns the loaded model, the plan of the unit, and the seconds that loading took.
    async fn open(&self, job: &JobMessage, unit: &UnitMessage, task: Task) -> Result<(Reranker, Plan, f64)> {
        let planned = PlannedModel::from_json(&job.model)?;
        let models = self.models.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let reranker = models.open(&planned)?;
            let start = Instant::now();
            reranker.load()?;
            Ok::<_, anyhow::Error>((reranker, start.elapsed().as_secs_f64()))
        });
        let (reranker, load_seconds) = opening.await.context("the model could not be opened")??;
        let settings = &job.settings;
        let compression = value::<Compression>("--compression", &settings.compression)?;
        let on_error = value::<OnError>("--on-error", &settings.on_error)?;
        let row_group_rows = usize::try_from(settings.row_group_rows)?;
        let format = Format { kind: OutputKind::Parquet, compression, row_group_rows };
        let input = unit.input()?;
        let scoring = match &settings.sql {
            Some(sql) => Scoring::Query(self.query(job, sql).await?),
            None => Scoring::Columns(columns(settings, &reranker)?),
        };
        let plan = Plan { inputs: vec![input], tasks: vec![task], scoring, copies: Vec::new(), format, on_error };
        Ok((reranker, plan, load_seconds))
    }

    async fn query(&self, job: &JobMessage, sql: &str) -> Result<Arc<Query>> {
        let mut settings = self.settings.clone();
        for (key, value) in &job.session {
            let key = key.strip_prefix("rerank.").unwrap_or(key);
            settings.set(key, value).map_err(|error| anyhow!("{}", error.strip_backtrace()))?;
        }
        let query = Query::plan(sql, &job.input()?, &self.registry, settings).await?;
        for model in query.models() {
            let fingerprint = model.model().fingerprint()?;
            if !job.fingerprints.iter().any(|known| known == fingerprint) {
                bail!(
                    "the checkpoint {} is another than where the job began (fingerprint {fingerprint}); put the same one on all machines",
                    model.location().display()
                );
            }
        }
        Ok(Arc::new(query))
    }
}

fn columns(settings: &JobSettings, reranker: &Reranker) -> Result<Columns> {
    Ok(Columns {
        query: settings.query.clone(),
        passage: settings.passage.clone(),
        score: settings.score.clone(),
        score_type: reranker.score_type(),
        errors: value::<OnError>("--on-error", &settings.on_error)? == OnError::Null,
    })
}

/// Parses the value of a flag.
fn value<T: ValueEnum>(flag: &str, text: &str) -> Result<T> {
    T::from_str(text, false).map_err(|_| anyhow!("{flag}: there is no '{text}'"))
}
