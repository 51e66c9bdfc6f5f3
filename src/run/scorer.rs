//! Scores windows in order.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use arrow::array::{ArrayRef, StringArray};
use datafusion_rerank::{Reranker, WINDOWS_IN_FLIGHT};
use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::plan::{Failed, Plan, Scored};
use super::window::UnitWindow;
use crate::job::OnError;
use crate::report::Tally;

/// The most windows in flight. The limit applies when units are too small to fill their windows.
const SMALL_WINDOWS_IN_FLIGHT: usize = 32;

/// Scored windows that may wait for the writer.
const WINDOWS_SCORED: usize = 1;

/// Scores windows in order. Stops within one device batch when the receiver is dropped.
pub(crate) fn score(
    mut windows: mpsc::Receiver<Result<UnitWindow, Failed>>,
    plan: Arc<Plan>,
    with_reasons: bool,
    reranker: Reranker,
) -> mpsc::Receiver<Result<Scored, Failed>> {
    let (sender, receiver) = mpsc::channel(WINDOWS_SCORED);
    tokio::spawn(async move {
        let window_rows = reranker.window_rows();
        let room = Arc::new(Semaphore::new(room_rows(window_rows, WINDOWS_IN_FLIGHT)));
        let scored = stream::poll_fn(move |context| windows.poll_recv(context))
            .then(|window| {
                let room = Arc::clone(&room);
                async move {
                    let rows = window.as_ref().map_or(0, UnitWindow::rows);
                    // The semaphore is never closed, so acquiring cannot fail.
                    (window, room.acquire_many_owned(room_rows(rows, 1) as u32).await.ok())
                }
            })
            .map(|(window, permit)| score_window(&plan, with_reasons, &reranker, window, permit))
            .buffered(SMALL_WINDOWS_IN_FLIGHT);
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

/// Permits for this many windows of `rows` rows, within the limit of a semaphore.
fn room_rows(rows: usize, windows: usize) -> usize {
    rows.clamp(1, u32::MAX as usize / WINDOWS_IN_FLIGHT).min(Semaphore::MAX_PERMITS / WINDOWS_IN_FLIGHT) * windows
}

async fn score_window(
    plan: &Plan,
    with_reasons: bool,
    reranker: &Reranker,
    window: Result<UnitWindow, Failed>,
    permit: Option<OwnedSemaphorePermit>,
) -> (Result<Scored, Failed>, Option<OwnedSemaphorePermit>) {
    let scored = async {
        let window = window?;
        let task = window.task;
        append_scores(plan, with_reasons, reranker, window).await.map_err(|error| Failed { task: Some(task), error })
    };
    (scored.await, permit)
}

async fn append_scores(plan: &Plan, with_reasons: bool, reranker: &Reranker, window: UnitWindow) -> Result<Scored> {
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
    let UnitWindow { task, layout, batches, last, .. } = window;
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
    Ok(Scored { task, schema: Arc::clone(&layout.written), batches, tally, last })
}

/// The reasons of the failed rows among `count` rows from `offset` on; NULL for the others.
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
            assert!(room_rows(rows, WINDOWS_IN_FLIGHT) >= 2 * room_rows(rows, 1));
            assert!(room_rows(rows, WINDOWS_IN_FLIGHT) <= Semaphore::MAX_PERMITS);
            assert!(u32::try_from(room_rows(rows, 1)).is_ok());
        }
    }
}
