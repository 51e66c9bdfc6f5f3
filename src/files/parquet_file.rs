//! A Parquet input as its footer describes it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::reader::Length;

use super::arrow_hint::arrow_hint;
use super::group::Group;
use super::interval;
use super::readable::{marked, readable};
use crate::storage::ObjectFile;

/// The footer of a file.
#[derive(Debug, Clone)]
pub(crate) struct ParquetFile {
    metadata: Arc<ParquetMetaData>,
    /// The Arrow schema in the footer.
    hint: Option<Schema>,
    schema: SchemaRef,
}

impl ParquetFile {
    /// Reads the footer. Blocks.
    ///
    /// # Errors
    /// If the file is not Parquet, is encrypted, has two columns of one name, or consists of several files.
    pub(crate) fn open(file: &ObjectFile) -> Result<Self> {
        let metadata = footer(file, ParquetMetaDataOptions::new())?;
        check(&metadata, file.len())?;
        let entries = metadata.file_metadata().key_value_metadata();
        let hint = arrow_hint(entries)?;
        let suggested = parquet_to_arrow_schema(metadata.file_metadata().schema_descr(), entries)?;
        let schema = readable(&suggested, metadata.file_metadata().schema(), hint.as_ref());
        Ok(Self { metadata: Arc::new(metadata), hint, schema: Arc::new(schema) })
    }

    /// What a reader of all columns needs, and the columns that result. Intervals are read as bytes, which
    /// [`interval::decode`] turns into the columns. Blocks.
    pub(super) fn reader_metadata(&self, file: &ObjectFile) -> Result<(ArrowReaderMetadata, SchemaRef)> {
        let parquet = self.metadata.file_metadata().schema();
        let Some(bytes) = interval::without_intervals(parquet)? else {
            let options = ArrowReaderOptions::new().with_schema(Arc::clone(&self.schema));
            let metadata = ArrowReaderMetadata::try_new(Arc::clone(&self.metadata), options)?;
            return Ok((metadata, marked(&self.schema, parquet)));
        };
        let metadata = footer(file, ParquetMetaDataOptions::new().with_schema(Arc::new(bytes)))?;
        let options = ArrowReaderOptions::new().with_schema(interval::stored(&self.schema, parquet));
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), options)?;
        Ok((metadata, marked(&interval::decoded_schema(&self.schema, parquet), parquet)))
    }

    pub(crate) fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.metadata
    }

    pub(super) fn hint(&self) -> Option<&Schema> {
        self.hint.as_ref()
    }

    /// The columns as they are read.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn groups(&self) -> Vec<Group> {
        groups_of(&self.metadata)
    }
}

/// The groups of a file. A group is a row group.
pub(super) fn groups_of(metadata: &ParquetMetaData) -> Vec<Group> {
    let group = |group: &RowGroupMetaData| Group {
        rows: group.num_rows().unsigned_abs(),
        bytes: group.compressed_size().unsigned_abs(),
    };
    metadata.row_groups().iter().map(group).collect()
}

fn footer(file: &ObjectFile, options: ParquetMetaDataOptions) -> Result<ParquetMetaData> {
    Ok(ParquetMetaDataReader::new().with_metadata_options(Some(options)).parse_and_finish(file)?)
}

/// Refuses files whose columns cannot be told apart or cannot be read, and footers that contradict themselves: rows
/// would be cut in other places for one column than for another.
fn check(metadata: &ParquetMetaData, size_bytes: u64) -> Result<()> {
    let mut names = HashSet::new();
    for field in metadata.file_metadata().schema().get_fields() {
        if !names.insert(field.name()) {
            bail!("it has two columns named '{}'; rename one", field.name());
        }
    }
    for column in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let name = column.column_path().string();
        if column.crypto_metadata().is_some() {
            bail!("its column '{name}' is encrypted; write a copy that is not");
        }
        if column.file_path().is_some() {
            bail!("its column '{name}' is in another file; name the files with the data");
        }
    }
    let mut rows = 0_i64;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        rows = rows
            .checked_add(group.num_rows())
            .filter(|_| group.num_rows() >= 0)
            .with_context(|| format!("its footer is damaged: row group {index} has {} rows", group.num_rows()))?;
        for column in group.columns() {
            let place =
                || format!("its footer is damaged: column '{}' of row group {index}", column.column_path().string());
            if column.column_descr().max_rep_level() == 0 && column.num_values() != group.num_rows() {
                bail!("{} has {} values in {} rows", place(), column.num_values(), group.num_rows());
            }
            let dictionary = column.dictionary_page_offset().unwrap_or_default();
            let lengths = [column.compressed_size(), column.uncompressed_size()];
            let is_inside = |offset: i64| u64::try_from(offset).is_ok_and(|offset| offset <= size_bytes);
            if lengths.iter().any(|length| *length < 0)
                || ![column.data_page_offset(), dictionary].into_iter().all(is_inside)
                || chunk_bytes(column).end > size_bytes
            {
                bail!("{} is not in the file", place());
            }
        }
    }
    if rows != metadata.file_metadata().num_rows() {
        bail!("its footer is damaged: it has {} rows, and its row groups {rows}", metadata.file_metadata().num_rows());
    }
    Ok(())
}

/// The bytes of a column chunk.
pub(super) fn chunk_bytes(column: &ColumnChunkMetaData) -> Range<u64> {
    chunk_range(column.dictionary_page_offset(), Some(column.data_page_offset()), column.compressed_size())
}

/// The bytes of a column chunk with these offsets and this length.
///
/// The dictionary page comes first, if there is one. Some writers state an offset of 0 where there is no such page, for
/// dictionaries and, in a row group without rows, for data.
pub(super) fn chunk_range(dictionary: Option<i64>, data: Option<i64>, length: i64) -> Range<u64> {
    let start = [dictionary, data].into_iter().flatten().filter(|offset| *offset > 0).min().unwrap_or_default();
    let start = start.unsigned_abs();
    start..start.saturating_add(length.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn footers_that_contradict_themselves_are_refused() {
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let rows = RecordBatch::try_from_iter([("id", rows)]).unwrap();
        let mut content = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut content, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let size = content.len() as u64;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(content)).unwrap();
        check(&metadata, size).unwrap();
        assert!(
            check(&metadata, 20).unwrap_err().to_string().contains("column 'id' of row group 0 is not in the file")
        );

        let group = metadata.row_group(0);
        let refusal = |group: RowGroupMetaData| {
            let changed = metadata.clone().into_builder().set_row_groups(vec![group]).build();
            check(&changed, size).unwrap_err().to_string()
        };
        let rows = |count| group.clone().into_builder().set_num_rows(count).build().unwrap();
        assert!(refusal(rows(9)).contains("column 'id' of row group 0 has 10 values in 9 rows"));
        assert!(refusal(rows(-1)).contains("row group 0 has -1 rows"));
        let chunk = |builder: parquet::file::metadata::ColumnChunkMetaDataBuilder| {
            group.clone().into_builder().set_column_metadata(vec![builder.build().unwrap()]).build().unwrap()
        };
        let column = || group.column(0).clone().into_builder();
        for damaged in [
            chunk(column().set_total_compressed_size(-1)),
            chunk(column().set_total_compressed_size(i64::MAX)),
            chunk(column().set_data_page_offset(i64::MAX).set_dictionary_page_offset(None)),
            chunk(column().set_data_page_offset(-4)),
            chunk(column().set_data_page_offset(i64::MAX)),
            chunk(column().set_dictionary_page_offset(Some(i64::MIN))),
        ] {
            assert!(refusal(damaged).contains("column 'id' of row group 0 is not in the file"));
        }
        let twice = metadata.clone().into_builder().set_row_groups(vec![group.clone(), group.clone()]).build();
        assert!(check(&twice, size).unwrap_err().to_string().contains("it has 10 rows, and its row groups 20"));
    }

    #[test]
    fn an_offset_of_zero_is_none() {
        assert_eq!(chunk_range(Some(4), Some(30), 50), 4..54);
        assert_eq!(chunk_range(Some(0), Some(30), 50), 30..80);
        assert_eq!(chunk_range(Some(4), Some(0), 15), 4..19);
        assert_eq!(chunk_range(None, Some(0), 0), 0..0);
    }
}
