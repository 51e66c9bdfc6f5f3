//! Reading, scoring and writing, all at once: memory holds a few windows and a row group, whatever the size of a file.
//!
//! ```text
//!   reader thread           scoring task              this task
//!   units -> batches  -->   windows, two under  -->   rows with their scores written,
//!            -> windows     way on the device         units committed, in order
//! ```
//!
//! The device stays busy across units: while one is committed, windows of the next are scored. What is written comes
//! through a channel of [`Scored`], whoever scored it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion_rerank::Reranker;
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::interval_at;

use crate::args::OnError;
use crate::input::InputFile;
use crate::layout::Columns;
use crate::ledger::Ledger;
use crate::location::Location;
use crate::manifest::{Manifest, UnitEntry, now};
use crate::marker::{Marker, Worker};
use crate::output::{Format, OutputFile};
use crate::printer::one_line;
use crate::progress::{LINE_INTERVAL, Progress};
use crate::query::Query;
use crate::reader;
use crate::stop::Stopped;
use crate::tally::Tally;
use crate::units::Unit;
use crate::upload::Written;
use crate::window::Window;

/// Full windows that are encoded or on the device at once: while one runs, the next is tokenized.
const WINDOWS_SCORING: usize = 2;

/// Most windows at once where units are so small that their windows are not full.
const SMALL_WINDOWS_SCORING: usize = 32;

/// Scored windows that wait to be written.
const WINDOWS_SCORED: usize = 1;

/// What to read, what to add and where to write it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The files to read.
    pub(crate) inputs: Vec<InputFile>,
    /// The units to score, in the order in which it is done.
    pub(crate) tasks: Vec<Task>,
    /// How their rows are scored.
    pub(crate) scoring: Scoring,
    /// How to write.
    pub(crate) format: Format,
    /// What a failed row does.
    pub(crate) on_error: OnError,
}

/// How the rows of a unit are scored.
#[derive(Debug, Clone)]
pub(crate) enum Scoring {
    /// A score column is added.
    Columns(Columns),
    /// They go through a query.
    Query(Arc<Query>),
}

/// A unit to be scored.
#[derive(Debug)]
pub(crate) struct Task {
    /// What to read.
    pub(crate) unit: Unit,
    /// What it is in the job's manifest.
    pub(crate) entry: UnitEntry,
    /// The file to write.
    pub(crate) output: Location,
    /// Where that is written until it is complete, if not there.
    pub(crate) staging: Option<Location>,
}

/// Where the units of a resumable job are committed.
#[derive(Debug)]
pub(crate) struct Journal<'a> {
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) manifest: &'a Manifest,
    /// Who is at work, on a cluster.
    pub(crate) worker: Option<Worker>,
}

/// Rows of one unit with what was added to them.
#[derive(Debug)]
pub(crate) struct Scored {
    /// The unit's place in the plan. Units come one after the other, in the plan's order.
    pub(crate) task: usize,
    /// The columns of the batches.
    pub(crate) schema: SchemaRef,
    /// The rows in their order.
    pub(crate) batches: Vec<RecordBatch>,
    /// What scoring them came to.
    pub(crate) tally: Tally,
    /// Whether the unit ends here.
    pub(crate) last: bool,
}

/// Why the run cannot go on, and at which unit.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) task: Option<usize>,
    pub(crate) error: anyhow::Error,
}

/// Runs the plan to its end, or until `stop` is ready. If it does not succeed, the file being written is removed;
/// files that were complete by then stay.
pub(crate) async fn run(
    plan: Arc<Plan>,
    reranker: Reranker,
    journal: Option<Journal<'_>>,
    progress: &mut Progress,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<()> {
    let scored = match &plan.scoring {
        Scoring::Columns(columns) => {
            let windows = reader::read(Arc::clone(&plan), columns.clone(), reranker.window_rows());
            score(windows, Arc::clone(&plan), columns.errors, reranker)
        }
        Scoring::Query(query) => Arc::clone(query).run(Arc::clone(&plan)),
    };
    write(scored, &plan, journal, progress, stop).await
}

/// Scores windows in order. Scoring stops, within a device batch, when the receiver is dropped.
fn score(
    mut windows: mpsc::Receiver<Result<Window, Failed>>,
    plan: Arc<Plan>,
    with_reasons: bool,
    reranker: Reranker,
) -> mpsc::Receiver<Result<Scored, Failed>> {
    let (sender, receiver) = mpsc::channel(WINDOWS_SCORED);
    tokio::spawn(async move {
        let window_rows = reranker.window_rows();
        let room = Arc::new(Semaphore::new(room_rows(window_rows, WINDOWS_SCORING)));
        let scored = stream::poll_fn(move |context| windows.poll_recv(context))
            .then(|window| {
                let room = Arc::clone(&room);
                async move {
                    let rows = window.as_ref().map_or(0, Window::rows);
                    // The semaphore is never closed.
                    (window, room.acquire_many_owned(room_rows(rows, 1) as u32).await.ok())
                }
            })
            .map(|(window, permit)| score_window(&plan, with_reasons, &reranker, window, permit))
            .buffered(SMALL_WINDOWS_SCORING);
        let mut scored = std::pin::pin!(scored);
        while let Some((result, permit)) = scored.next().await {
            let failed = result.is_err();
            if sender.send(result).await.is_err() || failed {
                return;
            }
            drop(permit);
        }
    });
    receiver
}

/// Permits for this many windows, as many as a semaphore can count.
fn room_rows(rows: usize, windows: usize) -> usize {
    rows.clamp(1, u32::MAX as usize / WINDOWS_SCORING).min(Semaphore::MAX_PERMITS / WINDOWS_SCORING) * windows
}

async fn score_window(
    plan: &Plan,
    with_reasons: bool,
    reranker: &Reranker,
    window: Result<Window, Failed>,
    permit: Option<OwnedSemaphorePermit>,
) -> (Result<Scored, Failed>, Option<OwnedSemaphorePermit>) {
    let scored = async {
        let window = window?;
        let task = window.task;
        append_scores(plan, with_reasons, reranker, window).await.map_err(|error| Failed { task: Some(task), error })
    };
    (scored.await, permit)
}

async fn append_scores(plan: &Plan, with_reasons: bool, reranker: &Reranker, window: Window) -> Result<Scored> {
    let scores = reranker.score_pieces_async(window.texts()).await?;
    let errors: Vec<_> = scores.errors().collect();
    if plan.on_error == OnError::Fail
        && let Some((row, reason)) = errors.first()
    {
        let unit = &plan.tasks[window.task].unit;
        let row = unit.first_row + window.first_row + *row as u64;
        let file = &plan.inputs[unit.input].location;
        return Err(anyhow!("{file} row {row} (the first is 0): {reason}"));
    }
    let column = scores.to_array();
    let tally = Tally::new(&scores, column.as_ref(), &errors);
    let Window { task, layout, batches, last, .. } = window;
    let mut offset = 0;
    let batches = batches
        .iter()
        .map(|batch| {
            let count = batch.num_rows();
            let added = std::iter::once(column.slice(offset, count))
                .chain(with_reasons.then(|| reasons(&errors, offset, count)));
            offset += count;
            layout.append(batch, added)
        })
        .collect::<Result<_>>()?;
    Ok(Scored { task, schema: Arc::clone(&layout.scored), batches, tally, last })
}

/// Writes what comes, one file a unit.
async fn write(
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
        journal.ledger.fail(journal.manifest, &plan.tasks[task].entry, reason).await;
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
        // Only waiting is interrupted: a file is written and completed, or it is not.
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
        let next = next?;
        let task = next.task;
        progress.add(&next.tally, &writer.plan.tasks[task].unit);
        writer.write(next).await.map_err(|error| Failed { task: Some(task), error })?;
    }
    // A stage that panics ends its channel like one that is done.
    let (done, all) = (writer.finished, writer.plan.tasks.len());
    if done == all {
        return Ok(());
    }
    Err(Failed { task: None, error: anyhow!("the run stopped after {done} of {all} units were complete") })
}

/// Writes scored rows to their files.
struct Writer<'a> {
    plan: &'a Plan,
    journal: Option<Journal<'a>>,
    current: Option<Current>,
    /// When the last unit was committed.
    since: Instant,
    finished: usize,
}

/// The unit being written.
struct Current {
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
                Current { task, file, tally: Tally::default() }
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
        self.commit(task, &current.tally, written).await?;
        self.finished += 1;
        Ok(())
    }

    async fn commit(&mut self, task: usize, tally: &Tally, written: Written) -> Result<()> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let Some(Journal { ledger, manifest, worker }) = &mut self.journal else { return Ok(()) };
        let entry = &self.plan.tasks[task].entry;
        let stats = &tally.stats;
        let marker = Marker {
            unit: entry.id.clone(),
            input: manifest.inputs[entry.input].name.clone(),
            number: entry.number,
            output: manifest.output_name(entry),
            size_bytes: written.size_bytes,
            etag: written.etag,
            rows: stats.rows,
            pairs: stats.pairs,
            duplicates: stats.duplicates,
            truncated: stats.truncated,
            tokens: stats.tokens,
            padding_tokens: stats.padding_tokens,
            batches: stats.batches,
            errors: tally.errors.clone(),
            seconds,
            tokenize_seconds: stats.tokenize_time.as_secs_f64(),
            device_seconds: stats.device_time.as_secs_f64(),
            executor: worker.clone(),
            finished: now(),
            score_histogram: tally.scores.clone(),
            token_histogram: tally.tokens.clone(),
        };
        ledger.commit(&marker).await.with_context(|| format!("cannot commit unit {}", marker.output))
    }
}

/// The reasons of the failed among `count` rows from `offset` on, NULL for the others.
fn reasons(errors: &[(usize, String)], offset: usize, count: usize) -> ArrayRef {
    let mut reasons = vec![None; count];
    for (row, reason) in errors {
        if let Some(slot) = row.checked_sub(offset).and_then(|row| reasons.get_mut(row)) {
            *slot = Some(reason.as_str());
        }
    }
    Arc::new(StringArray::from(reasons))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn reasons_stand_in_their_rows() {
        let errors = [(1, "a".to_owned()), (4, "b".to_owned()), (9, "c".to_owned())];
        let column = reasons(&errors, 3, 3);
        assert_eq!(column.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("b"), None]);
    }

    #[test]
    fn a_window_always_finds_room() {
        for rows in [0, 1, 8192, usize::MAX] {
            assert!(room_rows(rows, 1) >= 1);
            assert!(room_rows(rows, WINDOWS_SCORING) >= 2 * room_rows(rows, 1));
            assert!(room_rows(rows, WINDOWS_SCORING) <= Semaphore::MAX_PERMITS);
            assert!(u32::try_from(room_rows(rows, 1)).is_ok());
        }
    }
}
