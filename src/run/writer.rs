//! Writes scored rows to files and commits units.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc;
use tokio::time::interval_at;

use super::plan::{Failed, Journal, Plan, Scored, Task};
use super::progress::Progress;
use crate::files::OutputFile;
use crate::job::{Marker, now};
use crate::report::Tally;
use crate::storage::Written;
use crate::terminal::{LINE_INTERVAL, Stopped, one_line};

/// Writes rows as they arrive, one file per unit.
pub(crate) async fn write(
    scored: mpsc::Receiver<Result<Scored, Failed>>,
    plan: &Plan,
    journal: Option<Journal<'_>>,
    progress: &mut Progress,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<()> {
    let mut writer = Writer { plan, journal, current: None, since: Instant::now(), finished: 0 };
    let Err(Failed { task, error }) = write_all(scored, &mut writer, progress, stop).await else { return Ok(()) };
    if let Some(unfinished) = writer.current {
        unfinished.file.abort().await;
    }
    if let (Some(journal), Some(task)) = (writer.journal, task) {
        let reason = match &journal.worker {
            Some(worker) => format!("executor {}: {}", worker.name, one_line(&error)),
            None => one_line(&error),
        };
        let task = &plan.tasks[task];
        journal.ledger.fail(&task.unit, plan.input_name(task), reason).await;
    }
    Err(error)
}

async fn write_all(
    mut scored: mpsc::Receiver<Result<Scored, Failed>>,
    writer: &mut Writer<'_>,
    progress: &mut Progress,
    mut stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<(), Failed> {
    let mut lines = interval_at(tokio::time::Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
    loop {
        // Only waiting can be interrupted, not writing.
        let next = tokio::select! {
            biased;
            stopped = &mut stop => return Err(Failed { task: None, error: stopped.into() }),
            _ = lines.tick() => {
                progress.line();
                continue;
            }
            next = scored.recv() => next,
        };
        let Some(next) = next else { break };
        let mut next = next?;
        next.tally.add_written(next.batches.iter().map(|batch| batch.num_rows() as u64).sum());
        let task = next.task;
        progress.add(&next.tally, &writer.plan.tasks[task].unit);
        writer.write(next).await.map_err(|error| Failed { task: Some(task), error })?;
    }
    // A stage that panics closes its channel, just like one that has finished.
    let (done, all) = (writer.finished, writer.plan.tasks.len());
    if done == all {
        return Ok(());
    }
    Err(Failed { task: None, error: anyhow!("the run stopped after {done} of {all} units were complete") })
}

/// Writes scored rows to files.
struct Writer<'a> {
    plan: &'a Plan,
    journal: Option<Journal<'a>>,
    current: Option<CurrentUnit>,
    /// When the last unit was committed.
    since: Instant,
    finished: usize,
}

/// The unit being written.
struct CurrentUnit {
    task: usize,
    file: OutputFile,
    tally: Tally,
}

impl Writer<'_> {
    async fn write(&mut self, scored: Scored) -> Result<()> {
        let Scored { task, schema, batches, tally, last } = scored;
        let mut current = match self.current.take() {
            Some(current) if current.task == task => current,
            Some(current) => {
                current.file.abort().await;
                return Err(anyhow!("unit {} ended before it was complete", current.task));
            }
            None => {
                let Task { output, staging, .. } = &self.plan.tasks[task];
                let file = OutputFile::create(output.clone(), staging.clone(), schema, self.plan.format)?;
                CurrentUnit { task, file, tally: Tally::default() }
            }
        };
        current.tally.merge(&tally);
        for batch in batches {
            if let Err(error) = current.file.write(&batch).await {
                self.current = Some(current);
                return Err(error);
            }
        }
        if !last {
            self.current = Some(current);
            return Ok(());
        }
        let written = current.file.finish().await?;
        self.commit(task, current.tally, written).await?;
        self.finished += 1;
        Ok(())
    }

    async fn commit(&mut self, task: usize, tally: Tally, written: Written) -> Result<()> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let Some(Journal { ledger, worker }) = &mut self.journal else { return Ok(()) };
        let task = &self.plan.tasks[task];
        let input = self.plan.input_name(task);
        let marker = Marker {
            unit: task.unit.id.clone(),
            input: input.to_owned(),
            number: task.unit.number,
            output: task.unit.output_name(input),
            size_bytes: written.size_bytes,
            etag: written.etag,
            tally,
            seconds,
            executor: worker.clone(),
            finished: now(),
        };
        ledger.commit(&marker).await.with_context(|| format!("cannot commit unit {}", marker.output))
    }
}
