//! What a run does: units to score, how their rows are scored, and what comes of them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;

use super::query::Query;
use crate::files::{Columns, Format, InputFile};
use crate::job::{Ledger, Manifest, Unit, UnitEntry, Worker};
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

/// What a row that cannot be scored does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Fails the run.
    Fail,
    /// Gets a NULL score and its reason in a column of its own.
    Null,
}
