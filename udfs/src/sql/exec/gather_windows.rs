//! The operator's rows on their way into windows, accounted for in the memory pool.

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryReservation;

use crate::window::WindowCutter;
use crate::window_stream::WaitingRows;

/// Rows that are scored together, and the memory that is reserved for them.
pub(super) struct ReservedWindow {
    pub(super) pieces: Vec<RecordBatch>,
    pub(super) memory: MemoryReservation,
}

/// Cuts rows into windows. Reserves memory for the rows of the window being filled before more are read, and for those
/// of a full window when it is taken: until then they are slices of the batch that the input holds.
pub(super) struct GatherWindows {
    /// Cuts pieces that are no longer than an output batch.
    cutter: WindowCutter<RecordBatch>,
    /// The reservation of the window being filled.
    memory: MemoryReservation,
    /// How many of its pieces are reserved for.
    reserved: usize,
}

impl GatherWindows {
    pub(super) fn new(cutter: WindowCutter<RecordBatch>, memory: MemoryReservation) -> Self {
        Self { cutter, memory, reserved: 0 }
    }

    fn with_memory(&mut self, pieces: Vec<RecordBatch>) -> Result<Option<ReservedWindow>> {
        reserve(&self.memory, &pieces[self.reserved..])?;
        self.reserved = 0;
        Ok((!pieces.is_empty()).then(|| ReservedWindow { pieces, memory: self.memory.take() }))
    }
}

impl WaitingRows for GatherWindows {
    type Rows = RecordBatch;
    type Window = ReservedWindow;
    type Error = DataFusionError;

    fn push(&mut self, batch: RecordBatch) {
        self.cutter.push(batch);
    }

    fn account(&mut self) -> Result<()> {
        reserve(&self.memory, &self.cutter.pending()[self.reserved..])?;
        self.reserved = self.cutter.pending().len();
        Ok(())
    }

    fn has_full(&self) -> bool {
        self.cutter.has_full()
    }

    fn has_rest(&self) -> bool {
        !self.cutter.pending().is_empty()
    }

    fn take_full(&mut self) -> Result<Option<ReservedWindow>> {
        match self.cutter.next_full() {
            Some(pieces) => self.with_memory(pieces),
            None => Ok(None),
        }
    }

    fn take_rest(&mut self) -> Result<Option<ReservedWindow>> {
        let pieces = self.cutter.finish();
        self.with_memory(pieces)
    }
}

fn reserve(memory: &MemoryReservation, pieces: &[RecordBatch]) -> Result<()> {
    for piece in pieces {
        memory.try_grow(bytes(piece)?).map_err(|error| {
            error.context("the rows of a window do not fit in memory; set rerank.window_rows lower")
        })?;
    }
    Ok(())
}

/// Bytes of a batch's rows, whatever else is in the buffers that they share.
fn bytes(batch: &RecordBatch) -> Result<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int32Array};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use futures::{FutureExt, StreamExt, stream};
    use tokio::sync::Notify;

    use super::*;
    use crate::window_stream::score_windows;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from_iter_values(0..4)) as ArrayRef)]).unwrap()
    }

    fn rows(window: &ReservedWindow) -> Vec<usize> {
        window.pieces.iter().map(RecordBatch::num_rows).collect()
    }

    #[tokio::test]
    async fn rows_are_accounted_for_from_when_they_are_read() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let reserved = Arc::clone(&pool);
        let input = stream::iter(0..3).map(move |read| {
            assert_eq!(reserved.reserved(), read * 16);
            Ok(batch())
        });
        let cutter = WindowCutter::new(10).with_piece_rows(3);
        let windows = GatherWindows::new(cutter, MemoryConsumer::new("test").register(&pool));
        let answered = Arc::new(Notify::new());
        let first = Arc::clone(&answered);
        let scored = score_windows(input, windows, None, move |window| {
            let first = Arc::clone(&first);
            async move {
                // The last window is cut while the first is in flight.
                first.notified().await;
                Ok(window)
            }
        });
        let mut scored = std::pin::pin!(scored);
        assert!(scored.next().now_or_never().is_none());
        assert_eq!(pool.reserved(), 48);
        answered.notify_one();
        let first = scored.next().await.unwrap().unwrap();
        assert_eq!((rows(&first), pool.reserved()), (vec![3, 1, 3, 1, 2], 48));
        answered.notify_one();
        let second = scored.next().await.unwrap().unwrap();
        assert_eq!((rows(&second), pool.reserved()), (vec![2], 48));
        drop(first);
        assert_eq!(pool.reserved(), 8);
        assert!(scored.next().await.is_none());
    }

    #[tokio::test]
    async fn rows_without_memory_come_after_those_in_flight_as_an_error() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(16 + 8));
        let windows = GatherWindows::new(WindowCutter::new(4), MemoryConsumer::new("test").register(&pool));
        let input = stream::iter([Ok(batch()), Ok(batch()), Ok(batch())]);
        let scored = score_windows(input, windows, None, async |window: ReservedWindow| Ok(window));
        let scored: Vec<Result<ReservedWindow>> = scored.collect().await;
        assert_eq!(scored.len(), 2);
        let error = scored[1].as_ref().err().unwrap().to_string();
        assert!(scored[0].is_ok() && error.contains("set rerank.window_rows lower"), "{error}");
        drop(scored);
        assert_eq!(pool.reserved(), 0);
    }
}
