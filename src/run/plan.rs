//! The plan of a run, and the data passed between its stages.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::progress::Extent;
use super::scored_copy::ScoredCopy;
use crate::files::{Destination, Format, InputFile};
use crate::job::{Ledger, OnError, Scoring, Unit, UnitWorker};
use crate::report::Tally;

/// The inputs, outputs and settings of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) inputs: Vec<InputFile>,
    /// The units to score, in order.
    pub(crate) tasks: Vec<Task>,
    /// How to score their rows.
    pub(crate) scoring: Scoring,
    /// The output files to make of several units when all of them are done.
    pub(crate) copies: Vec<ScoredCopy>,
    /// The output format.
    pub(crate) format: Format,
    /// What happens on a failed row.
    pub(crate) on_error: OnError,
}

impl Plan {
    /// The amount of input.
    pub(crate) fn extent(&self) -> Extent {
        Extent::of(self.tasks.iter().map(|task| &task.unit))
    }

    /// The name of a task's input.
    pub(crate) fn input_name(&self, task: &Task) -> &str {
        &self.inputs[task.unit.input].identity.name
    }
}

/// A unit to score.
#[derive(Debug)]
pub(crate) struct Task {
    /// The unit to read.
    pub(crate) unit: Unit,
    /// The path of the file to write, relative to OUTPUT.
    pub(crate) name: String,
    /// The file to write.
    pub(crate) destination: Destination,
    pub(crate) content: Content,
}

/// What the file of a unit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The unit's rows, encoded.
    Rows,
    /// A copy of the unit's row groups with the added columns.
    Copy,
    /// The added columns only, for a copy that is made of several units.
    Scores,
}

/// Commits the units of a resumable job.
#[derive(Debug)]
pub(crate) struct Journal<'a> {
    /// The records of the job.
    pub(crate) ledger: &'a mut Ledger,
    /// On a cluster, the executor that scores the units.
    pub(crate) worker: Option<UnitWorker>,
}

/// Rows of one unit with their added columns.
#[derive(Debug)]
pub(crate) struct Scored {
    /// The index of the unit in the plan. Units arrive one after another, in the order of the plan.
    pub(crate) task: usize,
    /// The schema of the batches.
    pub(crate) schema: SchemaRef,
    /// The rows in order.
    pub(crate) batches: Vec<RecordBatch>,
    /// The counts of these rows.
    pub(crate) tally: Tally,
    /// Whether the unit ends here.
    pub(crate) last: bool,
}

/// Why a run ends, and at which unit.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) task: Option<usize>,
    pub(crate) error: anyhow::Error,
}
