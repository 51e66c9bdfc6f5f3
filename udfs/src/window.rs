//! Cuts rows into windows: the rows that are sorted by length and scored together.
//!
//! ```text
//! pushed     [ 7 rows ] [          25 rows          ]
//! windows    [ 7 + 3 ] [ 10 ] [ 10 ]        finish [ 5 ]
//! ```
//!
//! A score depends, by rounding, on the window of its row. All entry points of the crate cut windows here. Rows that
//! are all there, as in an array, fall into the same windows each time. So do those of a stream without a longest delay
//! ([`Reranker::with_max_delay`](crate::Reranker::with_max_delay)): then the same rows in the same order have the same
//! scores, to the last bit, however they arrive. With a delay, which is the default, windows also follow the arrival of
//! rows and what else is being scored ([`window_stream`](crate::window_stream)), and scores are the same up to
//! rounding.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// Default number of rows that are sorted by length and cut into device batches together. More rows mean less padding
/// and more memory.
pub const DEFAULT_WINDOW_ROWS: usize = 8192;

/// The most bytes of text in a window of more than one row. Windows of ordinary texts have far less.
pub const WINDOW_TEXT_BYTES: usize = 256 << 20;

/// Windows of one stream of rows that are in flight at once: while one is on the device, the next is tokenized.
pub const WINDOWS_IN_FLIGHT: usize = 2;

/// Bytes of text that are counted as a token. Texts have three to five: with so few, the first window is no more than a
/// batch, also if its rows are long and one more would not have fitted.
const TOKEN_BYTES: usize = 2;

/// Tokens of the two texts of a row for which no column has text: those of an expression, for example.
const ROW_TOKENS: usize = 4;

/// How many times larger than the one before it a window may be that has not grown to full size.
const GROWTH: usize = 4;

/// The size of windows that are small at first, so that the first rows of many are soon scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Growth {
    /// The most bytes of the next window: its text, and what each row has beside its text.
    bytes: usize,
    row_bytes: usize,
}

impl Growth {
    /// Begins with a window of about `tokens` tokens, where each row has `row_tokens` tokens beside its texts.
    pub(crate) fn from(tokens: usize, row_tokens: usize) -> Self {
        let bytes = tokens.saturating_mul(TOKEN_BYTES);
        Self { bytes, row_bytes: (row_tokens + ROW_TOKENS).saturating_mul(TOKEN_BYTES) }
    }

    /// The smaller of both.
    #[cfg(feature = "datafusion")]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), row_bytes: self.row_bytes.max(other.row_bytes) }
    }

    /// The size of the window after this one; `None` for full size.
    fn next(self) -> Option<Self> {
        let bytes = self.bytes.saturating_mul(GROWTH);
        (bytes < WINDOW_TEXT_BYTES).then_some(Self { bytes, ..self })
    }

    fn holds(self, rows: usize, text_bytes: usize) -> bool {
        text_bytes.saturating_add(rows.saturating_mul(self.row_bytes)) <= self.bytes
    }
}

/// Consecutive rows that can be cut in two.
pub trait Rows: Sized {
    /// The number of rows.
    fn rows(&self) -> usize;

    /// The first `rows` rows, and those after them. `rows` is at most [`Self::rows`].
    #[must_use]
    fn split_at(self, rows: usize) -> (Self, Self);

    /// The bytes of text in the first `rows` rows. Text that is not counted does not limit windows. Default: 0.
    fn text_bytes(&self, rows: usize) -> usize {
        let _ = rows;
        0
    }
}

impl Rows for RecordBatch {
    fn rows(&self) -> usize {
        self.num_rows()
    }

    fn split_at(self, rows: usize) -> (Self, Self) {
        (self.slice(0, rows), self.slice(rows, self.num_rows() - rows))
    }

    fn text_bytes(&self, rows: usize) -> usize {
        self.columns().iter().map(|column| text_bytes(&column.slice(0, rows))).sum()
    }
}

/// Two columns of equal length, such as queries and passages.
impl Rows for (ArrayRef, ArrayRef) {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn split_at(self, rows: usize) -> (Self, Self) {
        let (first, second) = self;
        let after = first.len() - rows;
        ((first.slice(0, rows), second.slice(0, rows)), (first.slice(rows, after), second.slice(rows, after)))
    }

    fn text_bytes(&self, rows: usize) -> usize {
        text_bytes(&self.0.slice(0, rows)) + text_bytes(&self.1.slice(0, rows))
    }
}

/// The bytes of a column's texts; 0 for other columns. A text that a dictionary shares counts each time.
fn text_bytes(column: &ArrayRef) -> usize {
    let range = |offsets: (i64, i64)| usize::try_from(offsets.1 - offsets.0).unwrap_or_default();
    match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().offsets();
            range((offsets[0].into(), offsets[column.len()].into()))
        }
        DataType::LargeUtf8 => {
            let offsets = column.as_string::<i64>().offsets();
            range((offsets[0], offsets[column.len()]))
        }
        // The lower half of a view is its length; that of a NULL is 0 or does no harm.
        DataType::Utf8View => column.as_string_view().views().iter().map(|view| *view as u32 as usize).sum(),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let values = dictionary.values();
            if values.is_empty() || text_bytes(values) == 0 {
                return 0;
            }
            let lengths: Vec<usize> = (0..values.len()).map(|value| text_bytes(&values.slice(value, 1))).collect();
            dictionary.normalized_keys().into_iter().map(|key| lengths[key]).sum()
        }
        _ => 0,
    }
}

/// One row for each element.
impl<T> Rows for Vec<T> {
    fn rows(&self) -> usize {
        self.len()
    }

    fn split_at(mut self, rows: usize) -> (Self, Self) {
        let after = self.split_off(rows);
        (self, after)
    }
}

/// Cuts rows, in whatever pieces they arrive, into windows of equal size; only the last may be smaller, and windows
/// that would have more than [`WINDOW_TEXT_BYTES`] of text.
///
/// A window consists of the pieces of its rows, in order. Nothing is copied.
///
/// ```
/// use datafusion_rerank::WindowCutter;
///
/// let mut cutter = WindowCutter::new(3);
/// cutter.push(vec![1, 2]);
/// assert_eq!(cutter.next_full(), None);
/// cutter.push(vec![3, 4]);
/// assert_eq!(cutter.next_full(), Some(vec![vec![1, 2], vec![3]]));
/// assert_eq!(cutter.finish(), [vec![4]]);
/// ```
#[derive(Debug, Clone)]
pub struct WindowCutter<R> {
    window_rows: usize,
    window_bytes: usize,
    piece_rows: usize,
    keeps_last: bool,
    growth: Option<Growth>,
    /// Complete windows that have not been taken.
    full: VecDeque<Vec<R>>,
    /// The window being filled, and its rows.
    pending: Vec<R>,
    pending_rows: usize,
    pending_bytes: usize,
}

impl<R: Rows> WindowCutter<R> {
    /// Cuts windows of `window_rows` rows; at least 1.
    pub fn new(window_rows: usize) -> Self {
        Self {
            window_rows: window_rows.max(1),
            window_bytes: WINDOW_TEXT_BYTES,
            piece_rows: usize::MAX,
            keeps_last: false,
            growth: None,
            full: VecDeque::new(),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
        }
    }

    /// Cuts pieces too, to at most `rows` rows (at least 1). Default: pieces stay as they are pushed.
    #[must_use]
    pub fn with_piece_rows(self, rows: usize) -> Self {
        Self { piece_rows: rows.max(1), ..self }
    }

    /// Completes a window only when the next row is pushed, so that [`Self::finish`] returns rows unless none were
    /// pushed at all. Default: a window is complete with its last row.
    #[must_use]
    pub fn keeping_last(self) -> Self {
        Self { keeps_last: true, ..self }
    }

    /// Makes the first windows smaller. Default: all have full size.
    #[must_use]
    pub(crate) fn growing(self, growth: Option<Growth>) -> Self {
        Self { growth, ..self }
    }

    /// Appends rows.
    pub fn push(&mut self, rows: R) {
        let mut rest = Some(rows);
        while let Some(rows) = rest.take().filter(|rows| rows.rows() > 0) {
            if self.pending_rows == self.window_rows {
                self.complete();
            }
            let most = rows.rows().min(self.window_rows - self.pending_rows).min(self.piece_rows);
            let count = self.fitting(&rows, most);
            if count == 0 {
                self.complete();
                rest = Some(rows);
                continue;
            }
            let piece = if count < rows.rows() {
                let (piece, after) = rows.split_at(count);
                rest = Some(after);
                piece
            } else {
                rows
            };
            self.pending_bytes += piece.text_bytes(count);
            self.pending.push(piece);
            self.pending_rows += count;
            if self.pending_rows == self.window_rows && !self.keeps_last {
                self.complete();
            }
        }
    }

    /// How many of the first `most` rows have room in the pending window. A window without rows has room for one.
    fn fitting(&self, rows: &R, most: usize) -> usize {
        let fits = |count: usize| {
            let text_bytes = self.pending_bytes.saturating_add(rows.text_bytes(count));
            let holds = |growth: Growth| growth.holds(self.pending_rows + count, text_bytes);
            text_bytes <= self.window_bytes && self.growth.is_none_or(holds)
        };
        if fits(most) {
            return most;
        }
        // The text of more rows is at least as long.
        let (mut fit, mut too_many) = (0, most);
        while too_many - fit > 1 {
            let middle = usize::midpoint(fit, too_many);
            if fits(middle) { fit = middle } else { too_many = middle }
        }
        fit.max(usize::from(self.pending_rows == 0))
    }

    /// The next complete window; `None` until more rows are pushed.
    pub fn next_full(&mut self) -> Option<Vec<R>> {
        self.full.pop_front()
    }

    /// Whether there is a complete window.
    pub(crate) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// The pieces of the window being filled, without those of complete windows.
    pub fn pending(&self) -> &[R] {
        &self.pending
    }

    /// The window being filled, as it is; empty if no rows are left. Call it when all complete windows are taken. Rows
    /// that are pushed after it begin another window.
    pub fn finish(&mut self) -> Vec<R> {
        self.growth = self.growth.and_then(Growth::next);
        self.pending_rows = 0;
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending)
    }

    fn complete(&mut self) {
        let window = self.finish();
        self.full.push_back(window);
    }
}

/// Cuts rows that have all arrived into windows.
pub(crate) fn cut_windows<R: Rows>(rows: R, window_rows: usize) -> Vec<Vec<R>> {
    let mut cutter = WindowCutter::new(window_rows);
    cutter.push(rows);
    let mut windows = Vec::from(std::mem::take(&mut cutter.full));
    windows.extend(Some(cutter.finish()).filter(|last| !last.is_empty()));
    windows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, LargeStringArray, StringArray, StringViewArray};
    use arrow::datatypes::{Int8Type, Int32Type};
    use proptest::prelude::*;

    use super::*;

    /// Pushes all pieces and takes windows as they complete. Returns the last window separately.
    fn cut(mut cutter: WindowCutter<Vec<u32>>, pieces: &[Vec<u32>]) -> (Vec<Vec<Vec<u32>>>, Vec<Vec<u32>>) {
        let mut windows = Vec::new();
        for piece in pieces {
            cutter.push(piece.clone());
            windows.extend(std::iter::from_fn(|| cutter.next_full()));
        }
        (windows, cutter.finish())
    }

    /// Pieces of consecutive numbers.
    fn pieces(lengths: &[usize]) -> Vec<Vec<u32>> {
        let mut numbers = 0..;
        lengths.iter().map(|length| numbers.by_ref().take(*length).collect()).collect()
    }

    fn rows(window: &[Vec<u32>]) -> usize {
        window.iter().map(Vec::len).sum()
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_window_and_in_order(
            lengths in prop::collection::vec(0_usize..20, 0..20),
            window_rows in 0_usize..12,
            piece_rows in 0_usize..12,
            keeps_last: bool,
        ) {
            let pieces = pieces(&lengths);
            let cutter = WindowCutter::new(window_rows).with_piece_rows(piece_rows);
            let (windows, last) = cut(if keeps_last { cutter.keeping_last() } else { cutter }, &pieces);
            let (window_rows, piece_rows) = (window_rows.max(1), piece_rows.max(1));
            prop_assert!(windows.iter().all(|window| rows(window) == window_rows));
            prop_assert!(rows(&last) <= window_rows);
            let cut: Vec<&Vec<u32>> = windows.iter().flatten().chain(&last).collect();
            prop_assert!(cut.iter().all(|piece| (1..=piece_rows).contains(&piece.len())));
            prop_assert_eq!(cut.into_iter().flatten().collect::<Vec<_>>(), pieces.iter().flatten().collect::<Vec<_>>());
            let total: usize = lengths.iter().sum();
            let full = if keeps_last { total.saturating_sub(1) / window_rows } else { total / window_rows };
            prop_assert_eq!(windows.len(), full);
            prop_assert_eq!(rows(&last), total - full * window_rows);
        }

        #[test]
        fn windows_do_not_depend_on_the_pieces(
            lengths in prop::collection::vec(0_usize..20, 0..20),
            window_rows in 1_usize..12,
        ) {
            let pieces = pieces(&lengths);
            let (mut windows, last) = cut(WindowCutter::new(window_rows), &pieces);
            windows.extend(Some(last).filter(|last| !last.is_empty()));
            let whole: Vec<u32> = pieces.concat();
            let expected = cut_windows(whole, window_rows);
            prop_assert!(expected.iter().all(|window| window.len() == 1));
            let joined = |windows: &[Vec<Vec<u32>>]| windows.iter().map(|window| window.concat()).collect::<Vec<_>>();
            prop_assert_eq!(joined(&windows), joined(&expected));
        }
    }

    #[test]
    fn a_window_is_complete_with_its_last_row_or_with_the_row_after_it() {
        let mut at_once = WindowCutter::new(2);
        at_once.push(vec![1, 2]);
        assert_eq!((at_once.next_full(), at_once.pending().len()), (Some(vec![vec![1, 2]]), 0));
        assert!(at_once.finish().is_empty());
        let mut later = WindowCutter::new(2).keeping_last();
        later.push(vec![1, 2]);
        later.push(vec![]);
        assert_eq!((later.next_full(), later.pending()), (None, [vec![1, 2]].as_slice()));
        later.push(vec![3]);
        assert_eq!(later.next_full(), Some(vec![vec![1, 2]]));
        assert_eq!(later.finish(), [vec![3]]);
    }

    #[test]
    fn windows_grow_to_full_size() {
        let lines = |rows: usize| StringArray::from_iter_values((0..rows).map(|_| "x".repeat(88)));
        let sizes = |pieces: &[usize]| {
            // A row is 88 bytes of text and 2 + 4 tokens of 2 bytes.
            let mut cutter = WindowCutter::new(50).growing(Some(Growth::from(100, 2)));
            let mut sizes = Vec::new();
            for rows in pieces {
                cutter.push(RecordBatch::try_from_iter([("n", Arc::new(lines(*rows)) as ArrayRef)]).unwrap());
                sizes.extend(std::iter::from_fn(|| cutter.next_full()));
            }
            sizes.push(cutter.finish());
            sizes.iter().map(|window| window.iter().map(RecordBatch::num_rows).sum()).collect::<Vec<usize>>()
        };
        assert_eq!(sizes(&[150]), [2, 8, 32, 50, 50, 8]);
        assert_eq!(sizes(&[1; 150]), [2, 8, 32, 50, 50, 8]);
        assert_eq!(sizes(&[1]), [1]);
        // A row is never too long for a window of its own.
        let mut cutter = WindowCutter::new(50).growing(Some(Growth::from(1, 2)));
        cutter.push(RecordBatch::try_from_iter([("n", Arc::new(lines(3)) as ArrayRef)]).unwrap());
        assert_eq!((cutter.next_full().map(|rows| rows[0].num_rows()), cutter.pending()[0].num_rows()), (Some(1), 1));
    }

    #[test]
    fn windows_end_before_too_much_text() {
        let texts = |lengths: &[usize]| StringArray::from_iter_values(lengths.iter().map(|length| "x".repeat(*length)));
        let lengths = [3, 3, 3, 20, 1, 9, 1, 0, 0];
        let expected = [vec![3, 3, 3], vec![20], vec![1, 9], vec![1, 0, 0]];
        let layouts: [ArrayRef; 3] = [
            Arc::new(texts(&lengths)),
            Arc::new(texts(&lengths).iter().collect::<LargeStringArray>()),
            Arc::new(texts(&lengths).iter().collect::<StringViewArray>()),
        ];
        for column in layouts {
            // Whole, and a row at a time.
            for piece_rows in [lengths.len(), 1] {
                let mut cutter = WindowCutter::new(100);
                cutter.window_bytes = 10;
                for first in (0..lengths.len()).step_by(piece_rows) {
                    let piece = column.slice(first, piece_rows);
                    cutter.push(RecordBatch::try_from_iter([("n", piece)]).unwrap());
                }
                let mut windows: Vec<Vec<RecordBatch>> = std::iter::from_fn(|| cutter.next_full()).collect();
                windows.push(cutter.finish());
                let lengths = |window: &Vec<RecordBatch>| {
                    let rows = window.iter().flat_map(|piece| (0..piece.num_rows()).map(|row| piece.slice(row, 1)));
                    rows.map(|row| row.text_bytes(1)).collect::<Vec<_>>()
                };
                assert_eq!(windows.iter().map(lengths).collect::<Vec<_>>(), expected, "{}", column.data_type());
            }
        }
    }

    #[test]
    fn the_text_of_every_layout_counts() {
        let words: DictionaryArray<Int8Type> = [Some("ab"), None, Some("c"), Some("ab")].into_iter().collect();
        assert_eq!(text_bytes(&(Arc::new(words) as ArrayRef)), 5 + 2);
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a".repeat(20)), None, Some("b".into())]));
        assert_eq!((text_bytes(&views), text_bytes(&views.slice(1, 2))), (21, 1));
        assert_eq!(text_bytes(&(Arc::new(Int32Array::from(vec![1])) as ArrayRef)), 0);
        let pair = (views.slice(0, 1), views.slice(2, 1));
        assert_eq!((pair.text_bytes(1), pair.text_bytes(0)), (21, 0));
    }

    #[test]
    fn batches_and_columns_are_sliced_where_they_are_cut() {
        let column = |values: std::ops::Range<i32>| Arc::new(Int32Array::from_iter_values(values)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("n", column(0..5))]).unwrap();
        let (first, second) = batch.split_at(2);
        assert_eq!([first.column(0), second.column(0)], [&column(0..2), &column(2..5)]);
        let windows = cut_windows((column(0..5), column(10..15)), 2);
        let values = windows.iter().flatten().map(|(a, b)| (a.len(), b.as_primitive::<Int32Type>().value(0)));
        let values: Vec<_> = values.collect();
        assert_eq!(values, [(2, 10), (2, 12), (1, 14)]);
    }
}
