//! How to score the rows of a job.

use std::sync::Arc;

use clap::ValueEnum;

use super::query::Query;
use crate::files::Columns;

/// How to score the rows of a unit.
#[derive(Debug, Clone)]
pub(crate) enum Scoring {
    /// Add a score column.
    Columns(Columns),
    /// Run a query over them.
    Query(Arc<Query>),
}

/// What to do with a row that cannot be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Fail the run.
    Fail,
    /// Set the score to NULL and write the reason to a column of its own.
    Null,
}
