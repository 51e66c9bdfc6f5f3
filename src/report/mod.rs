//! Counts of a run, and reports of them.

mod histogram;
pub(crate) mod html;
mod run_report;
mod tally;

pub(crate) use histogram::Histogram;
pub(crate) use run_report::{Before, Report};
pub(crate) use tally::{Tally, Totals, add_reason};
