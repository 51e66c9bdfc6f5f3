//! Reading, scoring and writing, all at once: memory holds a few windows and a row group, whatever the size of a file.
//!
//! ```text
//!   reader thread           scoring task              this task
//!   units -> batches  -->   windows, two under  -->   rows with their scores written,
//!            -> windows     way on the device         units committed, in order
//! ```
//!
//! The device stays busy across units: while one is committed, windows of the next are scored. What is written comes
//! through a channel of [`Scored`], whoever scored it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use datafusion_rerank::Reranker;

use super::plan::{Journal, Plan, Scoring};
use super::query_units::query_units;
use super::reader;
use super::scorer::score;
use super::writer::write;
use crate::terminal::{Progress, Stopped};

/// Runs the plan to its end, or until `stop` is ready. If it does not succeed, the file being written is removed;
/// files that were complete by then stay.
pub(crate) async fn run(
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
