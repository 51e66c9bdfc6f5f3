//! How the rows of a job are scored.

use std::sync::Arc;

use clap::ValueEnum;

use super::query::Query;
use crate::files::Columns;

/// How the rows of a unit are scored.
#[derive(Debug, Clone)]
pub(crate) enum Scoring {
    /// A score column is added.
    Columns(Columns),
    /// They go through a query.
    Query(Arc<Query>),
}

/// What a row that cannot be scored does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Fails the run.
    Fail,
    /// Gets a NULL score and its reason in a column of its own.
    Null,
}
