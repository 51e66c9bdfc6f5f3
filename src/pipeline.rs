//! Reading, scoring and writing, all at once: memory holds a few windows and a row group, whatever the size of a file.
//!
//! ```text
//!   reader thread           scoring task              this task
//!   files -> batches  -->   windows, two under  -->   scores appended, files written
//!            -> windows     way on the device         and completed in order
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, StringArray};
use datafusion_rerank::{Reranker, ScoreStats};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use crate::args::OnError;
use crate::input::InputFile;
use crate::layout::Columns;
use crate::location::Location;
use crate::output::{Format, OutputFile};
use crate::progress::{LINE_INTERVAL, Progress};
use crate::reader;
use crate::stop::Stopped;
use crate::window::{Event, Rows, Window};

/// Windows that are encoded or on the device at once: while one runs, the next is tokenized.
const WINDOWS_SCORING: usize = 2;

/// Scored windows that wait to be written.
const WINDOWS_SCORED: usize = 1;

/// What to read, what to add and where to write it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The files to read.
    pub(crate) inputs: Vec<InputFile>,
    /// The file to write for each.
    pub(crate) outputs: Vec<Location>,
    /// The columns to read and to add.
    pub(crate) columns: Columns,
    /// How to write.
    pub(crate) format: Format,
    /// What a failed row does.
    pub(crate) on_error: OnError,
}

/// Runs the plan to its end, or until `stop` is ready. If it does not succeed, the file being written is removed;
/// files that were complete by then stay.
pub(crate) async fn run(
    plan: &Plan,
    reranker: Reranker,
    progress: &mut Progress,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<()> {
    let windows = reader::read(plan.inputs.clone(), plan.columns.clone(), reranker.window_rows());
    let scored = score(windows, reranker);
    let mut writer = Writer { plan, current: None, finished: 0 };
    let outcome = write(scored, &mut writer, progress, stop).await;
    if outcome.is_err()
        && let Some(unfinished) = writer.current
    {
        unfinished.abort().await;
    }
    outcome
}

/// A window with its scores.
struct Scored {
    window: Window,
    scores: ArrayRef,
    /// Rows that failed, counted within the window, and why.
    errors: Vec<(usize, String)>,
    stats: ScoreStats,
}

/// Scores windows in order. Scoring stops, within a device batch, when the receiver is dropped.
fn score(mut windows: mpsc::Receiver<Result<Window>>, reranker: Reranker) -> mpsc::Receiver<Result<Scored>> {
    let (sender, receiver) = mpsc::channel(WINDOWS_SCORED);
    tokio::spawn(async move {
        let scored = stream::poll_fn(move |context| windows.poll_recv(context))
            .map(|window| score_window(&reranker, window))
            .buffered(WINDOWS_SCORING);
        let mut scored = std::pin::pin!(scored);
        while let Some(result) = scored.next().await {
            let failed = result.is_err();
            if sender.send(result).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}

async fn score_window(reranker: &Reranker, window: Result<Window>) -> Result<Scored> {
    let window = window?;
    let scores = reranker.score_pieces_async(window.texts()).await?;
    let errors: Vec<_> = scores.errors().collect();
    let mut stats = scores.stats();
    // The engine counts rows that it could not run; a score that is not a number is known only here.
    stats.errors = errors.len() as u64;
    Ok(Scored { window, scores: scores.to_array(), errors, stats })
}

async fn write(
    mut scored: mpsc::Receiver<Result<Scored>>,
    writer: &mut Writer<'_>,
    progress: &mut Progress,
    mut stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<()> {
    let mut lines = interval_at(Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
    loop {
        // Only waiting is interrupted: a file is written and completed, or it is not.
        let next = tokio::select! {
            biased;
            stopped = &mut stop => return Err(stopped.into()),
            _ = lines.tick() => {
                progress.line();
                continue;
            }
            next = scored.recv() => next,
        };
        let Some(next) = next else { break };
        let next = next?;
        let stats = next.stats;
        writer.write(next).await?;
        progress.add(stats);
    }
    // A stage that panics ends its channel like one that is done.
    if writer.finished != writer.plan.outputs.len() {
        bail!("the run stopped after {} of {} files were complete", writer.finished, writer.plan.outputs.len());
    }
    Ok(())
}

/// Writes scored rows to their files.
struct Writer<'a> {
    plan: &'a Plan,
    current: Option<OutputFile>,
    finished: usize,
}

impl Writer<'_> {
    async fn write(&mut self, scored: Scored) -> Result<()> {
        let Scored { window, scores, errors, .. } = scored;
        if self.plan.on_error == OnError::Fail
            && let Some((row, reason)) = errors.first()
        {
            bail!("{}: {reason}", self.place(&window, *row));
        }
        let mut offset = 0;
        for event in window.events {
            match (event, &mut self.current) {
                (Event::Begin { file, layout }, _) => {
                    let location = self.plan.outputs[file].clone();
                    self.current = Some(OutputFile::create(location, Arc::clone(&layout.scored), self.plan.format)?);
                }
                (Event::Rows(rows), Some(output)) => {
                    let count = rows.batch.num_rows();
                    let added = std::iter::once(scores.slice(offset, count))
                        .chain(self.plan.columns.errors.then(|| reasons(&errors, offset, count)));
                    output.write(&rows.layout.append(&rows.batch, added)?).await?;
                    offset += count;
                }
                (Event::End, current) => {
                    if let Some(output) = current.take() {
                        output.finish().await?;
                        self.finished += 1;
                    }
                }
                (Event::Rows(_), None) => bail!("rows were read before their file began"),
            }
        }
        Ok(())
    }

    /// Where a row of the window comes from, for messages.
    fn place(&self, window: &Window, row: usize) -> String {
        match place(window.pieces(), row) {
            Some((file, row)) => format!("{} row {row} (the first is 0)", self.plan.inputs[file].location),
            None => format!("row {row} of a window"),
        }
    }
}

/// The file and the row in it of a row of a window.
fn place<'a>(pieces: impl Iterator<Item = &'a Rows>, mut row: usize) -> Option<(usize, u64)> {
    for rows in pieces {
        let count = rows.batch.num_rows();
        if row < count {
            return Some((rows.file, rows.first_row + row as u64));
        }
        row -= count;
    }
    None
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
    use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
    use arrow::datatypes::Schema;

    use super::*;
    use crate::layout::Layout;

    #[test]
    fn reasons_stand_in_their_rows() {
        let errors = [(1, "a".to_owned()), (4, "b".to_owned()), (9, "c".to_owned())];
        let column = reasons(&errors, 3, 3);
        assert_eq!(column.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("b"), None]);
    }

    #[test]
    fn rows_of_a_window_are_found_in_their_files() {
        let schema = Arc::new(Schema::empty());
        let layout = Arc::new(Layout { query: 0, passage: 0, scored: Arc::clone(&schema) });
        let piece = |file, first_row, count| {
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
            Rows { file, layout: Arc::clone(&layout), first_row, batch }
        };
        let pieces = [piece(0, 100, 3), piece(1, 0, 2)];
        let found: Vec<_> = (0..6).map(|row| place(pieces.iter(), row)).collect();
        assert_eq!(found, [Some((0, 100)), Some((0, 101)), Some((0, 102)), Some((1, 0)), Some((1, 1)), None]);
    }
}
