//! Reads, scores and writes concurrently. Memory holds a few windows and a row group, however large a file is.
//!
//! ```text
//!   reader thread           scoring task              this task
//!   units -> batches  -->   windows, two in     -->   rows with their scores written,
//!            -> windows     flight on a device        units committed, in order
//! ```
//!
//! The device stays busy across units: while one unit is committed, windows of the next are scored. Both ways of
//! scoring, columns and queries, send [`Scored`](super::plan::Scored) rows through a channel to the writer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use datafusion_rerank::Reranker;

use super::plan::{Journal, Plan};
use super::progress::Progress;
use super::query_units::query_units;
use super::reader;
use super::scorer::score;
use super::writer::write;
use crate::job::Scoring;
use crate::terminal::Stopped;

/// Runs the plan until it completes or `stop` is ready. On failure, removes the unfinished file; complete files stay.
pub(crate) async fn run_plan(
    plan: Arc<Plan>,
    reranker: Reranker,
    journal: Option<Journal<'_>>,
    progress: &mut Progress,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<()> {
    let scored = match &plan.scoring {
        Scoring::Columns(columns) => {
            let windows = reader::read(Arc::clone(&plan), columns.clone(), reranker.window_rows());
            score(windows, Arc::clone(&plan), columns.errors, reranker)
        }
        Scoring::Query(query) => query_units(Arc::clone(query), Arc::clone(&plan)),
    };
    write(scored, &plan, journal, progress, stop).await
}
