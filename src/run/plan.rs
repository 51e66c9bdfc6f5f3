//! What a run does, and what passes between its stages.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::progress::Extent;
use crate::files::{Format, InputFile};
use crate::job::{Ledger, OnError, Scoring, Unit, UnitWorker};
use crate::report::Tally;
use crate::storage::Location;

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

impl Plan {
    /// How much there is to do.
    pub(crate) fn extent(&self) -> Extent {
        Extent::of(self.tasks.iter().map(|task| &task.unit))
    }

    /// The name of a task's input.
    pub(crate) fn input_name(&self, task: &Task) -> &str {
        &self.inputs[task.unit.input].identity.name
    }
}

/// A unit to be scored.
#[derive(Debug)]
pub(crate) struct Task {
    /// What to read.
    pub(crate) unit: Unit,
    /// The file to write.
    pub(crate) output: Location,
    /// Where the file is written until it is complete, if not there.
    pub(crate) staging: Option<Location>,
}

/// Where the units of a resumable job are committed.
#[derive(Debug)]
pub(crate) struct Journal<'a> {
    /// The records of the job.
    pub(crate) ledger: &'a mut Ledger,
    /// On a cluster, the executor at work.
    pub(crate) worker: Option<UnitWorker>,
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
    /// What was counted while they were scored.
    pub(crate) tally: Tally,
    /// Whether the unit ends here.
    pub(crate) last: bool,
}

/// Why the run ends, and at which unit.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) task: Option<usize>,
    pub(crate) error: anyhow::Error,
}
