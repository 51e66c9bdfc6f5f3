//! The windows of a unit.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion_rerank::WindowCutter;

use crate::files::RowLayout;

/// Consecutive rows of one unit that are scored together.
///
/// A window never holds rows of two units. Scores depend, by rounding, on the rows that they are scored with, and the
/// scores of a unit must not depend on which units were done before.
#[derive(Debug)]
pub(crate) struct UnitWindow {
    /// The index of the unit in the plan.
    pub(crate) task: usize,
    /// The columns of the rows.
    pub(crate) layout: Arc<RowLayout>,
    /// The number of the first row within the unit.
    pub(crate) first_row: u64,
    /// The rows in order.
    pub(crate) batches: Vec<RecordBatch>,
    /// Whether this is the last window of the unit.
    pub(crate) last: bool,
}

impl UnitWindow {
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The query and passage columns of each batch.
    pub(crate) fn texts(&self) -> Vec<(ArrayRef, ArrayRef)> {
        let column = |batch: &RecordBatch, index| Arc::clone(batch.column(index));
        self.batches
            .iter()
            .map(|batch| (column(batch, self.layout.query), column(batch, self.layout.passage)))
            .collect()
    }
}

/// Cuts the rows of a unit into windows. The last window is empty only if the unit is.
#[derive(Debug)]
pub(crate) struct UnitWindows {
    task: usize,
    layout: Arc<RowLayout>,
    cutter: WindowCutter<RecordBatch>,
    /// The number of the next window's first row within the unit.
    first_row: u64,
}

impl UnitWindows {
    pub(crate) fn new(task: usize, layout: Arc<RowLayout>, window_rows: usize) -> Self {
        Self { task, layout, cutter: WindowCutter::new(window_rows).keeping_last(), first_row: 0 }
    }

    /// Adds rows. Returns the windows that they complete.
    pub(crate) fn push(&mut self, batch: RecordBatch) -> Vec<UnitWindow> {
        self.cutter.push(batch);
        let mut full = Vec::new();
        while let Some(batches) = self.cutter.next_full() {
            full.push(self.window(batches, false));
        }
        full
    }

    /// Returns the last window.
    pub(crate) fn finish(mut self) -> UnitWindow {
        let batches = self.cutter.finish();
        self.window(batches, true)
    }

    fn window(&mut self, batches: Vec<RecordBatch>, last: bool) -> UnitWindow {
        let window =
            UnitWindow { task: self.task, layout: Arc::clone(&self.layout), first_row: self.first_row, batches, last };
        self.first_row += window.rows() as u64;
        window
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatchOptions;
    use arrow::datatypes::Schema;

    use super::*;

    fn windows() -> UnitWindows {
        let written = Arc::new(Schema::empty());
        let layout = Arc::new(RowLayout { query: 0, passage: 0, written, carries: true });
        UnitWindows::new(7, layout, 10)
    }

    fn rows(count: usize) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap()
    }

    /// The first row, and the number of rows in each batch.
    fn shape(window: &UnitWindow) -> (u64, Vec<usize>) {
        assert_eq!(window.task, 7);
        (window.first_row, window.batches.iter().map(RecordBatch::num_rows).collect())
    }

    #[test]
    fn big_batches_are_cut_and_small_ones_gathered() {
        let mut windows = windows();
        assert!(windows.push(rows(7)).is_empty());
        let full = windows.push(rows(25));
        assert_eq!(full.iter().map(shape).collect::<Vec<_>>(), [(0, vec![7, 3]), (10, vec![10]), (20, vec![10])]);
        assert!(full.iter().all(|window| !window.last));
        let last = windows.finish();
        assert_eq!((shape(&last), last.last), ((30, vec![2]), true));
    }

    #[test]
    fn the_last_window_is_empty_only_if_the_unit_is() {
        let mut exact = windows();
        assert!(exact.push(rows(10)).is_empty());
        assert!(exact.push(rows(0)).is_empty());
        let last = exact.finish();
        assert_eq!((shape(&last), last.last, last.rows()), ((0, vec![10]), true, 10));
        let empty = windows().finish();
        assert!(empty.last && empty.texts().is_empty());
    }
}
