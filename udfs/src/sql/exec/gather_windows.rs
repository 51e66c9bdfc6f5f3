//! The operator's input, one window at a time.

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::TryStreamExt;
use futures::stream::Fuse;

use crate::window::WindowCutter;

/// Rows that are scored together, and the memory that is reserved for them.
pub(super) struct ReservedWindow {
    pub(super) pieces: Vec<RecordBatch>,
    pub(super) memory: MemoryReservation,
}

/// Reads the input into windows. Reserves memory for rows as soon as they are read.
pub(super) struct GatherWindows {
    input: Fuse<SendableRecordBatchStream>,
    /// Cuts pieces that are no longer than an output batch.
    cutter: WindowCutter<RecordBatch>,
    /// The reservation of the window being filled.
    memory: MemoryReservation,
    /// How many of its pieces are reserved for.
    reserved: usize,
}

impl GatherWindows {
    pub(super) fn new(
        input: Fuse<SendableRecordBatchStream>,
        cutter: WindowCutter<RecordBatch>,
        memory: MemoryReservation,
    ) -> Self {
        Self { input, cutter, memory, reserved: 0 }
    }

    /// The next window, and the reader of those after it.
    pub(super) async fn next_window(mut self) -> Result<Option<(ReservedWindow, Self)>> {
        let pieces = loop {
            if let Some(pieces) = self.cutter.next_full() {
                break pieces;
            }
            reserve(&self.memory, &self.cutter.pending()[self.reserved..])?;
            self.reserved = self.cutter.pending().len();
            match self.input.try_next().await? {
                Some(batch) => self.cutter.push(batch),
                None => break self.cutter.finish(),
            }
        };
        if pieces.is_empty() {
            return Ok(None);
        }
        reserve(&self.memory, &pieces[self.reserved..])?;
        self.reserved = 0;
        let memory = self.memory.take();
        Ok(Some((ReservedWindow { pieces, memory }, self)))
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
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{StreamExt, stream};

    use super::*;

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
        let input: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(batch().schema(), input));
        let cutter = WindowCutter::new(10).with_piece_rows(3);
        let windows = GatherWindows::new(input.fuse(), cutter, MemoryConsumer::new("test").register(&pool));
        let (first, windows) = windows.next_window().await.unwrap().unwrap();
        assert_eq!((rows(&first), pool.reserved()), (vec![3, 1, 3, 1, 2], 40));
        let (second, windows) = windows.next_window().await.unwrap().unwrap();
        assert_eq!((rows(&second), pool.reserved()), (vec![2], 48));
        drop(first);
        assert_eq!(pool.reserved(), 8);
        assert!(windows.next_window().await.unwrap().is_none());
    }
}
