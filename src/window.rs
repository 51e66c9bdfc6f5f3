//! Rows gathered into windows of equal size, across the batches and files they come in.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use crate::layout::Layout;

/// What reading gives, in order: the beginning of a file, its rows, its end.
#[derive(Debug)]
pub(crate) enum Event {
    /// The file of this number begins.
    Begin { file: usize, layout: Arc<Layout> },
    /// Some rows of it.
    Rows(Rows),
    /// It is complete.
    End,
}

/// Consecutive rows of one file.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    /// The file's number.
    pub(crate) file: usize,
    /// The file's columns.
    pub(crate) layout: Arc<Layout>,
    /// The number in the file of the first of the rows.
    pub(crate) first_row: u64,
    /// All columns.
    pub(crate) batch: RecordBatch,
}

impl Rows {
    fn slice(&self, offset: usize, length: usize) -> Self {
        Self { first_row: self.first_row + offset as u64, batch: self.batch.slice(offset, length), ..self.clone() }
    }
}

/// Rows that are scored together, with the files' beginnings and ends between them.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// In the order they were read.
    pub(crate) events: Vec<Event>,
    rows: usize,
}

impl Window {
    /// Where each row comes from.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Rows> {
        self.events.iter().filter_map(|event| match event {
            Event::Rows(rows) => Some(rows),
            Event::Begin { .. } | Event::End => None,
        })
    }

    /// The queries and the passages of each piece.
    pub(crate) fn texts(&self) -> Vec<(ArrayRef, ArrayRef)> {
        let column = |rows: &Rows, index| Arc::clone(rows.batch.column(index));
        self.pieces().map(|rows| (column(rows, rows.layout.query), column(rows, rows.layout.passage))).collect()
    }
}

/// Cuts what is read into windows.
#[derive(Debug)]
pub(crate) struct Gatherer {
    window_rows: usize,
    pending: Window,
}

impl Gatherer {
    /// Gathers windows of this many rows; the last may have fewer.
    pub(crate) fn new(window_rows: usize) -> Self {
        Self { window_rows, pending: Window::default() }
    }

    /// Adds what was read, and gives the window that it completes. A batch must not be larger than a window.
    pub(crate) fn push(&mut self, event: Event) -> Option<Window> {
        let Event::Rows(rows) = event else {
            self.pending.events.push(event);
            return None;
        };
        let count = rows.batch.num_rows();
        let missing = self.window_rows - self.pending.rows;
        if count < missing {
            self.add(rows);
            return None;
        }
        self.add(rows.slice(0, missing));
        let full = std::mem::take(&mut self.pending);
        if count > missing {
            self.add(rows.slice(missing, count - missing));
        }
        Some(full)
    }

    /// What is left, in the end.
    pub(crate) fn finish(self) -> Option<Window> {
        Some(self.pending).filter(|window| !window.events.is_empty())
    }

    fn add(&mut self, rows: Rows) {
        self.pending.rows += rows.batch.num_rows();
        self.pending.events.push(Event::Rows(rows));
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatchOptions;
    use arrow::datatypes::Schema;

    use super::*;

    fn rows(file: usize, first_row: u64, count: usize) -> Event {
        let schema = Arc::new(Schema::empty());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
        Event::Rows(Rows { file, layout: Arc::new(Layout { query: 0, passage: 0, scored: schema }), first_row, batch })
    }

    /// (file, first row, rows) of each piece.
    fn shape(window: &Window) -> Vec<(usize, u64, usize)> {
        window.pieces().map(|rows| (rows.file, rows.first_row, rows.batch.num_rows())).collect()
    }

    #[test]
    fn big_batches_are_cut_and_small_ones_gathered() {
        let mut gatherer = Gatherer::new(10);
        assert!(gatherer.push(rows(0, 0, 7)).is_none());
        let first = gatherer.push(rows(0, 7, 10)).unwrap();
        assert_eq!(shape(&first), [(0, 0, 7), (0, 7, 3)]);
        assert!(gatherer.push(Event::End).is_none());
        let second = gatherer.push(rows(1, 0, 3)).unwrap();
        assert_eq!(shape(&second), [(0, 10, 7), (1, 0, 3)]);
        assert!(matches!(second.events[1], Event::End));
        assert!(gatherer.finish().is_none());
    }

    #[test]
    fn ends_of_files_are_not_lost() {
        let mut gatherer = Gatherer::new(10);
        let full = gatherer.push(rows(0, 0, 10)).unwrap();
        assert_eq!(shape(&full), [(0, 0, 10)]);
        assert!(gatherer.push(Event::End).is_none());
        let rest = gatherer.finish().unwrap();
        assert!(rest.texts().is_empty());
        assert!(matches!(rest.events[..], [Event::End]));
    }
}
