//! The work of a run: read, score, write.

mod dry_run;
pub(crate) mod json_lines;
pub(crate) mod pipeline;
mod plan;
mod query;
mod query_units;
mod reader;
mod scorer;
mod survey;
mod unit_rows;
mod window;
mod writer;

pub(crate) use dry_run::{Estimate, query_lines};
pub(crate) use json_lines::number;
pub(crate) use plan::{Journal, OnError, Plan, Scoring, Task};
pub(crate) use query::{Query, one_line};
pub(crate) use survey::survey;
