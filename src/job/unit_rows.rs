//! The rows of units, read in batches on a thread that may block.

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use tokio::runtime::Handle;

use super::unit::Unit;
use crate::files::{Batches, InputFile, Rows, Source};

/// Reads some or all columns of a unit that consists of groups, in batches of at most `batch_rows` rows. `each` takes a
/// batch and returns whether to continue. Returns whether the unit was read to its end. Blocks.
pub(super) fn read_unit(
    input: &InputFile,
    unit: &Unit,
    columns: Option<&[usize]>,
    batch_rows: usize,
    runtime: &Handle,
    each: impl FnMut(RecordBatch) -> Result<bool>,
) -> Result<bool> {
    let source = Source::open(input, runtime)?;
    let batches = source.read(input, unit.groups.clone(), columns, batch_rows, runtime)?;
    RowCursor { next_row: unit.first_row, batches, rest: None }.read(input, unit, each)
}

/// Reads units that follow each other in one file, each from where the last one ended.
pub(crate) struct RowCursor {
    /// The number of the next row within the file.
    next_row: u64,
    batches: Batches,
    /// The rows of the last batch that belong to the next unit.
    rest: Option<RecordBatch>,
}

impl RowCursor {
    /// Begins at a unit, to read up to the unit `last` of the same file. Blocks.
    pub(crate) fn begin(rows: &Rows, unit: &Unit, last: &Unit, batch_rows: usize) -> Result<Self> {
        let batches = rows.read(unit.groups.start..last.groups.end, unit.first_row, batch_rows)?;
        Ok(Self { next_row: unit.first_row, batches, rest: None })
    }

    /// Whether the unit begins where the last one ended.
    pub(crate) fn is_at(&self, unit: &Unit) -> bool {
        self.next_row == unit.first_row
    }

    /// Reads a unit. `each` takes a batch and returns whether to continue. Returns whether the unit was read to its
    /// end. Blocks.
    pub(crate) fn read(
        &mut self,
        input: &InputFile,
        unit: &Unit,
        mut each: impl FnMut(RecordBatch) -> Result<bool>,
    ) -> Result<bool> {
        let location = &input.location;
        let end = unit.first_row + unit.rows;
        while self.next_row < end {
            let Some(batch) = self.rest.take().map(Ok).or_else(|| self.batches.next()) else {
                bail!(
                    "cannot read {location}: it ended at row {}, expected {end} rows; was it changed during the run?",
                    self.next_row
                );
            };
            let batch = batch.with_context(|| format!("cannot read {location} after row {}", self.next_row))?;
            let wanted = usize::try_from(end - self.next_row).unwrap_or(usize::MAX).min(batch.num_rows());
            if wanted < batch.num_rows() {
                self.rest = Some(batch.slice(wanted, batch.num_rows() - wanted));
            }
            self.next_row += wanted as u64;
            if !each(batch.slice(0, wanted))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
