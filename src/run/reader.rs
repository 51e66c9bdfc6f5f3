//! Reads units into windows, on a thread that may block.

use std::sync::Arc;

use anyhow::Result;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::plan::{Failed, Plan, Task};
use super::window::{UnitWindow, UnitWindows};
use crate::files::{Columns, Rows};
use crate::job::{RowCursor, Unit};

/// Windows read ahead of scoring.
const WINDOWS_AHEAD: usize = 1;

/// Reads the units of the plan in order, into windows. Stops when the receiver is dropped.
pub(crate) fn read(
    plan: Arc<Plan>,
    columns: Columns,
    window_rows: usize,
) -> mpsc::Receiver<Result<UnitWindow, Failed>> {
    let (sender, receiver) = mpsc::channel(WINDOWS_AHEAD);
    let runtime = Handle::current();
    let reading = tokio::task::spawn_blocking({
        let sender = sender.clone();
        move || {
            if let Err(error) = read_all(&plan, &columns, window_rows, &runtime, &sender) {
                // The receiver is gone if the run has ended.
                drop(sender.blocking_send(Err(error)));
            }
        }
    });
    tokio::spawn(async move {
        if let Err(error) = reading.await {
            let error = anyhow::Error::new(error).context("reading stopped");
            drop(sender.send(Err(Failed { task: None, error })).await);
        }
    });
    receiver
}

/// The open input file.
struct Current {
    input: usize,
    rows: Rows,
    cursor: Option<RowCursor>,
}

fn read_all(
    plan: &Plan,
    columns: &Columns,
    window_rows: usize,
    runtime: &Handle,
    sender: &mpsc::Sender<Result<UnitWindow, Failed>>,
) -> Result<(), Failed> {
    let mut current: Option<Current> = None;
    for task in 0..plan.tasks.len() {
        match read_windows(plan, columns, task, &mut current, window_rows, runtime, sender) {
            Ok(true) => {}
            // The receiver is gone.
            Ok(false) => return Ok(()),
            Err(error) => return Err(Failed { task: Some(task), error }),
        }
    }
    Ok(())
}

/// Reads a unit. Returns `false` if the receiver is gone.
fn read_windows(
    plan: &Plan,
    columns: &Columns,
    task: usize,
    current: &mut Option<Current>,
    window_rows: usize,
    runtime: &Handle,
    sender: &mpsc::Sender<Result<UnitWindow, Failed>>,
) -> Result<bool> {
    let unit = &plan.tasks[task].unit;
    let input = &plan.inputs[unit.input];
    let Current { rows, cursor, .. } = match current {
        Some(current) if current.input == unit.input => current,
        _ => {
            let rows = Rows::open(input, columns, plan.format.kind, runtime)?;
            current.insert(Current { input: unit.input, rows, cursor: None })
        }
    };
    let mut windows = UnitWindows::new(task, Arc::clone(rows.layout()), window_rows);
    let cursor = match cursor {
        Some(cursor) if cursor.is_at(unit) => cursor,
        _ => cursor.insert(RowCursor::begin(rows, unit, last_in_a_row(plan, task), window_rows)?),
    };
    let wanted = |window| sender.blocking_send(Ok(window)).is_ok();
    let all =
        cursor.read(input, unit, |batch| Ok(windows.push(batch).into_iter().all(wanted) && !sender.is_closed()))?;
    Ok(all && wanted(windows.finish()))
}

/// The last of the tasks that read one file from this task on without a gap.
fn last_in_a_row(plan: &Plan, task: usize) -> &Unit {
    let follows = |pair: &[Task]| {
        let [before, after] = [&pair[0].unit, &pair[1].unit];
        before.input == after.input && before.first_row + before.rows == after.first_row
    };
    let more = plan.tasks[task..].windows(2).take_while(|pair| follows(pair)).count();
    &plan.tasks[task + more].unit
}
