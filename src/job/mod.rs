//! Jobs: the resolved command line, the units, and the records of progress.

mod ledger;
mod manifest;
mod marker;
mod query;
mod query_check;
mod query_error;
mod query_table;
mod report_files;
mod resolve;
mod scoring;
mod status;
mod survey;
mod unit;
mod unit_rows;

pub(crate) use ledger::Ledger;
#[cfg(feature = "cluster")]
pub(crate) use ledger::{DONE, FAILED};
#[cfg(feature = "cluster")]
pub(crate) use manifest::JobSettings;
pub(crate) use manifest::now;
#[cfg(feature = "cluster")]
pub(crate) use marker::UnitFailure;
pub(crate) use marker::{FileMarker, Marker, UnitWorker};
pub(crate) use query::Query;
#[cfg(feature = "shell")]
pub(crate) use query_error::root_error;
pub(crate) use resolve::Job;
pub(crate) use scoring::{OnError, Scoring};
pub(crate) use status::Status;
pub(crate) use unit::Unit;
pub(crate) use unit_rows::RowCursor;
