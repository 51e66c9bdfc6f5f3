//! `rerank run`: scores the rows of Parquet and Arrow files.

use std::mem::ManuallyDrop;
use std::pin::pin;

use anyhow::{Context, Result};

use crate::args::RunArgs;
#[cfg(feature = "cluster")]
use crate::cluster::ClusterJob;
use crate::job::Job;
use crate::report::{Before, Report, html};
use crate::run::{Work, estimate, run_locally};
use crate::storage::write_small;
use crate::terminal::{Printer, human_count, stop};

/// Runs the subcommand.
pub(crate) fn run(args: RunArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    // After a failure a thread may still be loading a model or reading from a store. Nobody needs the result, and it
    // would panic without the runtime.
    let runtime = ManuallyDrop::new(runtime);
    runtime.block_on(execute(args, printer))
}

async fn execute(args: RunArgs, printer: Printer) -> Result<()> {
    let mut stop = pin!(stop::requested());
    let job = Job::resolve(&args).await?;
    #[cfg(feature = "cluster")]
    let cluster = match &args.cluster {
        Some(address) => Some(ClusterJob::connect(address, &job).await?),
        None => None,
    };
    let Work { mut ledger, claim, plan, committed } = Work::begin(&job, args.dry_run, stop.as_mut()).await?;
    let units = job.manifest.units.len();
    if !committed.is_empty() {
        printer.note(&format!("{} of {} committed already", committed.len(), human_count(units as u64, "unit")));
    }
    if args.dry_run {
        let lines = tokio::select! {
            stopped = &mut stop => return Err(stopped.into()),
            lines = estimate(plan, units, &job.reranker) => lines?,
        };
        for line in lines {
            printer.data(&line)?;
        }
        return Ok(());
    }
    #[cfg(feature = "cluster")]
    let done = match (cluster, &mut ledger) {
        (Some(cluster), Some(ledger)) => cluster.run(&job, &plan, ledger, printer, stop).await,
        (_, ledger) => run_locally(&job, plan, ledger.as_mut(), printer, stop).await,
    };
    #[cfg(not(feature = "cluster"))]
    let done = run_locally(&job, plan, ledger.as_mut(), printer, stop).await;
    let (totals, load) = done?;
    drop(claim);

    let mut before = Before::default();
    for marker in committed.values() {
        before.add(&marker.tally, marker.seconds);
    }
    let report = Report { units: units - committed.len(), totals, load, before };
    for line in report.lines() {
        printer.note(&line);
    }
    if let Some(files) = &job.report {
        let json = format!("{:#}\n", report.to_json(&job.reranker));
        write_small(&files.json, json.into_bytes()).await?;
        if let Some(file) = &files.html {
            write_small(file, html::page(&report, &job.reranker).into_bytes()).await?;
        }
    }
    Ok(())
}
