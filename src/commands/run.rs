//! `rerank run`: scores the rows of Parquet files.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datafusion_rerank::Reranker;

use crate::args::{OnError, RunArgs};
use crate::input::Inputs;
use crate::job;
use crate::layout::Columns;
use crate::location::Location;
use crate::output::{self, Format};
use crate::pipeline::{self, Plan};
use crate::printer::Printer;
use crate::progress::Progress;
use crate::reader;
use crate::report::Report;
use crate::stop::{self, Stopped};

/// Runs the subcommand.
pub(crate) fn run(args: RunArgs, printer: Printer) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(execute(args, printer));
    // After a failure a thread may still be loading a model or waiting for a store; nobody needs the result.
    runtime.shutdown_background();
    outcome
}

async fn execute(args: RunArgs, printer: Printer) -> Result<()> {
    let mut stop = pin!(stop::requested());
    let inputs = Inputs::find(&args.input).await?;
    let outputs = output::plan(&args.output, &inputs, args.overwrite).await?;
    let report_file = args.report.as_deref().map(Location::parse).transpose()?;
    let reranker = job::open_model(&args.model, &args.options, &args.engine)?.with_window_rows(args.window_rows);
    let plan = Plan {
        inputs: inputs.files,
        outputs,
        columns: Columns {
            query: args.query,
            passage: args.passage,
            score: args.score,
            score_type: reranker.score_type(),
            errors: args.on_error == OnError::Null,
        },
        format: Format { compression: args.compression, row_group_rows: args.row_group_rows },
        on_error: args.on_error,
    };
    let rows = reader::survey(&plan.inputs, &plan.columns).await?;
    tracing::info!(files = plan.inputs.len(), rows, model = %reranker.location().display(), "begin");
    let load = load(reranker.clone(), stop.as_mut()).await?;

    let mut progress = Progress::start(printer, rows);
    pipeline::run(&plan, reranker.clone(), &mut progress, stop).await?;
    let (stats, wall) = progress.finish();

    let report = Report { files: plan.outputs.len(), stats, load, wall };
    for line in report.lines() {
        printer.note(&line);
    }
    if let Some(file) = report_file {
        output::write_small(&file, format!("{:#}\n", report.to_json(&reranker)).into_bytes()).await?;
    }
    Ok(())
}

/// Loads the weights, and tells how long it took.
async fn load(reranker: Reranker, stop: Pin<&mut impl Future<Output = Stopped>>) -> Result<Duration> {
    let start = Instant::now();
    let loading = tokio::task::spawn_blocking(move || reranker.load());
    tokio::select! {
        stopped = stop => return Err(stopped.into()),
        loaded = loading => loaded.context("the model could not be loaded")??,
    }
    Ok(start.elapsed())
}
