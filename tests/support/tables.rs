//! Tables in Parquet.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// A table as a Parquet file.
pub(crate) fn encode(table: &RecordBatch) -> Bytes {
    encode_groups(table, usize::MAX)
}

/// A table as a Parquet file with row groups of this many rows, at most.
pub(crate) fn encode_groups(table: &RecordBatch, rows: usize) -> Bytes {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(rows))
        .build();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    bytes.into()
}

/// A Parquet file as a table, or why it is none.
pub(crate) fn decode(file: Bytes) -> parquet::errors::Result<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = Arc::clone(reader.schema());
    let batches = reader.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The rows of several files, in the order of their column `id`: two sets of files that hold the same rows become equal,
/// however they are cut.
pub(crate) fn rows_by_id(files: impl Iterator<Item = Bytes>) -> RecordBatch {
    let tables: Vec<RecordBatch> = files.map(|file| decode(file).unwrap()).collect();
    let table = concat_batches(&tables[0].schema(), &tables).unwrap();
    let order = sort_to_indices(table.column_by_name("id").unwrap(), None, None).unwrap();
    take_record_batch(&table, &order).unwrap()
}
