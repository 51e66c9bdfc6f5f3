//! The rows of units, read in batches on a thread that may block.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{Field, SchemaRef};
use tokio::runtime::Handle;

use super::unit::Unit;
use crate::files::{Batches, InputFile, PartitionValue, Rows, Source, partition_value};

/// Reads columns of a unit that consists of groups, in batches of at most `batch_rows` rows. Columns that the file
/// lacks are in its path. `each` takes a batch and returns whether to continue. Returns whether the unit was read to
/// its end. Blocks.
pub(super) fn read_unit(
    input: &InputFile,
    unit: &Unit,
    schema: &SchemaRef,
    batch_rows: usize,
    runtime: &Handle,
    mut each: impl FnMut(RecordBatch) -> Result<bool>,
) -> Result<bool> {
    let source = Source::open(input, runtime)?;
    let places: Vec<Option<usize>> =
        schema.fields().iter().map(|field| source.schema().index_of(field.name()).ok()).collect();
    let columns: Vec<usize> = places.iter().flatten().copied().collect();
    let batches = source.read(input, unit.groups.clone(), Some(&columns), batch_rows, runtime)?;
    let mut cursor = RowCursor { next_row: unit.first_row, batches, rest: None };
    cursor.read(input, unit, |batch| {
        let mut read = batch.columns().iter();
        let columns = schema.fields().iter().zip(&places).map(|(field, place)| match place {
            // Another file may package the column in another way.
            Some(_) => cast(read.next().context("a column is missing")?, field.data_type()).with_context(|| {
                format!("column '{}' of {} cannot be read as {}", field.name(), input.location, field.data_type())
            }),
            None => partition(input, field, batch.num_rows()),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        each(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    })
}

/// A column of the value in the file's path.
fn partition(input: &InputFile, field: &Field, rows: usize) -> Result<ArrayRef> {
    let value = partition_value(&input.identity.name, field.name())
        .with_context(|| format!("{} has no column '{}'", input.location, field.name()))?;
    let text = match value {
        PartitionValue::Null => None,
        PartitionValue::Text(text) => Some(text),
    };
    let value = StringArray::from(vec![text]);
    let rows = UInt64Array::from(vec![0; rows]);
    Ok(take(&value, &rows, None)?)
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
