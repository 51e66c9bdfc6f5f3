//! A run in this process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datafusion_rerank::Reranker;

use super::pipeline::run_plan;
use super::plan::{Journal, Plan};
use super::progress::Progress;
use crate::job::{Job, Ledger};
use crate::model::conversion;
use crate::report::Totals;
use crate::terminal::{Printer, Stopped};

/// Scores the remaining units of a job. Returns the time that loading the model took.
pub(crate) async fn run_locally(
    job: &Job,
    plan: Arc<Plan>,
    ledger: Option<&mut Ledger>,
    printer: Printer,
    mut stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<(Totals, Duration)> {
    let reranker = &job.reranker;
    let extent = plan.extent();
    tracing::info!(units = plan.tasks.len(), rows = extent.rows, model = %reranker.location().display(), "begin");
    let load = if plan.tasks.is_empty() {
        Duration::ZERO
    } else {
        load(reranker.clone(), extent.rows, printer, stop.as_mut()).await?
    };
    let mut progress = Progress::start(printer, extent);
    let Some(ledger) = ledger else {
        run_plan(plan, reranker.clone(), None, &mut progress, stop).await?;
        return Ok((progress.totals(), load));
    };
    let journal = Journal { ledger: &mut *ledger, worker: None };
    let outcome = run_plan(plan, reranker.clone(), Some(journal), &mut progress, stop).await;
    outcome.map_err(|error| with_advice(error, ledger, job))?;
    Ok((progress.totals(), load))
}

/// Adds to the error of a stopped job how to resume it.
pub(crate) fn with_advice(error: anyhow::Error, ledger: &Ledger, job: &Job) -> anyhow::Error {
    match error.downcast::<Stopped>() {
        Ok(stopped) => {
            let (done, all) = (ledger.commits(), job.manifest.units.len());
            let advice = format!("{done} of {all} units are committed; run the same command again to resume");
            stopped.with_advice(advice).into()
        }
        Err(error) => error,
    }
}

/// Loads the weights, after converting them if necessary. Tunes batches if `rows` is large. Returns the elapsed time.
async fn load(
    reranker: Reranker,
    rows: u64,
    printer: Printer,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<Duration> {
    let start = Instant::now();
    let loading = tokio::task::spawn_blocking(move || prepare(&reranker, rows, printer));
    tokio::select! {
        stopped = stop => return Err(stopped.into()),
        loaded = loading => loaded.context("the model could not be loaded")??,
    }
    Ok(start.elapsed())
}

fn prepare(reranker: &Reranker, rows: u64, printer: Printer) -> datafusion_rerank::Result<()> {
    conversion::prepare(reranker, printer)?;
    reranker.load()?;
    if let Some(tokens) = reranker.model().tune_batches(rows)? {
        printer.note(&format!("batches of {tokens} tokens are the fastest here; that is remembered"));
    }
    Ok(())
}
