//! Runs a job: reads, scores, writes.

mod dry_run;
pub(crate) mod json_lines;
mod local;
mod pipeline;
mod plan;
mod progress;
mod query_units;
mod reader;
mod scored_copy;
mod scorer;
mod window;
mod work;
mod writer;

pub(crate) use dry_run::estimate;
pub(crate) use json_lines::number;
pub(crate) use local::run_locally;
#[cfg(feature = "cluster")]
pub(crate) use local::with_advice;
#[cfg(feature = "cluster")]
pub(crate) use pipeline::run_plan;
#[cfg(feature = "cluster")]
pub(crate) use plan::{Content, Journal, Plan, Task};
#[cfg(feature = "cluster")]
pub(crate) use progress::Progress;
#[cfg(feature = "cluster")]
pub(crate) use scored_copy::ScoredCopy;
pub(crate) use work::Work;
