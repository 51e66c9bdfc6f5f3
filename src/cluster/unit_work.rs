//! Runs a unit of a job on an executor: scores, writes and commits it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use datafusion::common::config::ExtensionOptions;
use datafusion_rerank::cluster::{ExecutorModels, PlannedModel};
use datafusion_rerank::{ModelRegistry, RerankConfig, Reranker};

use super::messages::{JobMessage, UnitMessage};
use crate::files::{Columns, Compression, Format, InputFile, OutputKind, Source};
use crate::job::{Ledger, OnError, Query, Scoring, UnitWorker};
use crate::run::{Journal, Plan, Progress, Task, run_plan};
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
    /// Runs a unit unless it is already done. Records the reason of a failure with the executor's name.
    pub(crate) async fn run(
        &self,
        job: &JobMessage,
        unit: &UnitMessage,
        stop: impl Future<Output = Stopped>,
    ) -> Result<()> {
        let input = unit.input_name();
        let mut ledger = Ledger::new(job.output.location()?);
        ledger.join(&unit.unit)?;
        if ledger.marker(&unit.unit, input).await?.is_some() {
            return Ok(());
        }
        let (output, staging) = (ledger.data_file(&unit.unit, input), ledger.staging_file(&unit.unit.id));
        let task = Task { unit: unit.unit.clone(), output, staging };
        let (reranker, plan, worker) = match self.open(job, unit, task).await {
            Ok((reranker, plan, load_seconds)) => {
                (reranker, plan, UnitWorker { name: self.models.executor().to_owned(), load_seconds })
            }
            Err(error) => {
                let reason = format!("executor {}: {}", self.models.executor(), one_line(&error));
                ledger.fail(&unit.unit, input, reason).await;
                return Err(error);
            }
        };
        let journal = Journal { ledger: &mut ledger, worker: Some(worker) };
        let mut progress = Progress::start(self.printer, plan.extent());
        run_plan(Arc::new(plan), reranker, Some(journal), &mut progress, pin!(stop)).await
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
            Some(sql) => Scoring::Query(self.query(job, sql, &input).await?),
            None => Scoring::Columns(Columns {
                query: settings.query.clone(),
                passage: settings.passage.clone(),
                score: settings.score.clone(),
                score_type: reranker.score_type(),
                errors: on_error == OnError::Null,
            }),
        };
        let plan = Plan { inputs: vec![input], tasks: vec![task], scoring, format, on_error };
        Ok((reranker, plan, load_seconds))
    }

    async fn query(&self, job: &JobMessage, sql: &str, input: &InputFile) -> Result<Arc<Query>> {
        let runtime = tokio::runtime::Handle::current();
        let file = input.clone();
        let reading = tokio::task::spawn_blocking(move || {
            Source::open(&file, &runtime).map(|source| Arc::clone(source.schema()))
        });
        let schema = reading.await.context("a file could not be examined")??;
        let mut settings = self.settings.clone();
        for (key, value) in &job.session {
            let key = key.strip_prefix("rerank.").unwrap_or(key);
            settings.set(key, value).map_err(|error| anyhow!("{}", error.strip_backtrace()))?;
        }
        let query = Query::plan(sql, &schema, &self.registry, settings).await?;
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

/// Parses the value of a flag.
fn value<T: ValueEnum>(flag: &str, text: &str) -> Result<T> {
    T::from_str(text, false).map_err(|_| anyhow!("{flag}: there is no '{text}'"))
}
