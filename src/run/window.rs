//! A unit's rows gathered into windows of equal size, across the batches they come in.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use crate::files::Layout;

/// Consecutive rows of one unit that are scored together.
///
/// A window never holds rows of two units: scores depend, by rounding, on what they are scored with, and those of a
/// unit must not depend on which units were done before.
#[derive(Debug)]
pub(crate) struct Window {
    /// The unit's place in the plan.
    pub(crate) task: usize,
    /// The columns of the unit's file.
    pub(crate) layout: Arc<Layout>,
    /// The number in the unit of the first row.
    pub(crate) first_row: u64,
    /// The rows in their order, all columns.
    pub(crate) batches: Vec<RecordBatch>,
    /// Whether the unit ends here.
    pub(crate) last: bool,
}

impl Window {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The queries and the passages of each batch.
    pub(crate) fn texts(&self) -> Vec<(ArrayRef, ArrayRef)> {
        let column = |batch: &RecordBatch, index| Arc::clone(batch.column(index));
        self.batches
            .iter()
            .map(|batch| (column(batch, self.layout.query), column(batch, self.layout.passage)))
            .collect()
    }
}

/// Cuts what is read of a unit into windows.
#[derive(Debug)]
pub(crate) struct Gatherer {
    window_rows: usize,
    rows: usize,
    pending: Window,
}

impl Gatherer {
    /// Gathers windows of this many rows; the last may have fewer, or none.
    pub(crate) fn new(task: usize, layout: Arc<Layout>, window_rows: usize) -> Self {
        let pending = Window { task, layout, first_row: 0, batches: Vec::new(), last: false };
        Self { window_rows, rows: 0, pending }
    }

    /// Adds rows, and gives the windows that they complete. A window is given when the row after it is known, so that
    /// the last one is not empty unless the unit is.
    pub(crate) fn push(&mut self, mut batch: RecordBatch) -> Vec<Window> {
        let mut full = Vec::new();
        while batch.num_rows() > 0 {
            if self.rows == self.window_rows {
                full.push(self.next());
            }
            let count = batch.num_rows().min(self.window_rows - self.rows);
            self.rows += count;
            self.pending.batches.push(batch.slice(0, count));
            batch = batch.slice(count, batch.num_rows() - count);
        }
        full
    }

    /// What is left, in the end.
    pub(crate) fn finish(self) -> Window {
        Window { last: true, ..self.pending }
    }

    fn next(&mut self) -> Window {
        let following = Window {
            task: self.pending.task,
            layout: Arc::clone(&self.pending.layout),
            first_row: self.pending.first_row + self.rows as u64,
            batches: Vec::new(),
            last: false,
        };
        self.rows = 0;
        std::mem::replace(&mut self.pending, following)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatchOptions;
    use arrow::datatypes::Schema;

    use super::*;

    fn gatherer() -> Gatherer {
        let layout = Arc::new(Layout { query: 0, passage: 0, scored: Arc::new(Schema::empty()) });
        Gatherer::new(7, layout, 10)
    }

    fn rows(count: usize) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap()
    }

    /// First row and rows of each batch.
    fn shape(window: &Window) -> (u64, Vec<usize>) {
        assert_eq!(window.task, 7);
        (window.first_row, window.batches.iter().map(RecordBatch::num_rows).collect())
    }

    #[test]
    fn big_batches_are_cut_and_small_ones_gathered() {
        let mut gatherer = gatherer();
        assert!(gatherer.push(rows(7)).is_empty());
        let full = gatherer.push(rows(25));
        assert_eq!(full.iter().map(shape).collect::<Vec<_>>(), [(0, vec![7, 3]), (10, vec![10]), (20, vec![10])]);
        assert!(full.iter().all(|window| !window.last));
        let last = gatherer.finish();
        assert_eq!((shape(&last), last.last), ((30, vec![2]), true));
    }

    #[test]
    fn the_last_window_is_empty_only_if_the_unit_is() {
        let mut exact = gatherer();
        assert!(exact.push(rows(10)).is_empty());
        assert!(exact.push(rows(0)).is_empty());
        let last = exact.finish();
        assert_eq!((shape(&last), last.last, last.rows()), ((0, vec![10]), true, 10));
        let empty = gatherer().finish();
        assert!(empty.last && empty.texts().is_empty());
    }
}
