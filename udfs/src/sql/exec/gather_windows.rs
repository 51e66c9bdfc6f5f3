//! The operator's input, a window at a time.

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::TryStreamExt;
use futures::stream::Fuse;

use crate::window::WindowCutter;

/// Rows that are scored together, and the memory that is accounted for them.
pub(super) struct ReservedWindow {
    pub(super) pieces: Vec<RecordBatch>,
    pub(super) memory: MemoryReservation,
}

/// Reads the input into windows, and accounts for the rows of each from when they are read.
pub(super) struct GatherWindows {
    input: Fuse<SendableRecordBatchStream>,
    /// Cuts pieces that are no longer than an output batch.
    cutter: WindowCutter<RecordBatch>,
    /// Of the window being filled.
    memory: MemoryReservation,
    /// How many of its pieces are accounted for.
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

    /// The next window, and what reads those after it.
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

/// What the rows of a batch take, whatever else lies in the buffers they share.
fn bytes(batch: &RecordBatch) -> Result<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}
