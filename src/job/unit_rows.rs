//! The rows of a unit, read in batches on a thread that may block.

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use tokio::runtime::Handle;

use super::unit::Unit;
use crate::files::{InputFile, Source};

/// Reads some or all columns of a unit in batches of at most `batch_rows` rows. `each` takes a batch and returns
/// whether to continue. Returns whether the unit was read to its end. Blocks.
pub(crate) fn read_unit(
    input: &InputFile,
    unit: &Unit,
    columns: Option<&[usize]>,
    batch_rows: usize,
    runtime: &Handle,
    each: impl FnMut(RecordBatch) -> bool,
) -> Result<bool> {
    let source = Source::open(input, runtime)?;
    read_groups(&source, input, unit, columns, batch_rows, runtime, each)
}

/// Like [`read_unit`], but reads from an open file.
pub(crate) fn read_groups(
    source: &Source,
    input: &InputFile,
    unit: &Unit,
    columns: Option<&[usize]>,
    batch_rows: usize,
    runtime: &Handle,
    mut each: impl FnMut(RecordBatch) -> bool,
) -> Result<bool> {
    let mut rows = 0;
    for batch in source.read(input, unit.groups.clone(), columns, batch_rows, runtime)? {
        let batch =
            batch.with_context(|| format!("cannot read {} after row {}", input.location, unit.first_row + rows))?;
        rows += batch.num_rows() as u64;
        if !each(batch) {
            return Ok(false);
        }
    }
    if rows != unit.rows {
        bail!(
            "cannot read {}: it gave {rows} rows from row {} on, expected {}; was it changed during the run?",
            input.location,
            unit.first_row,
            unit.rows
        );
    }
    Ok(true)
}
