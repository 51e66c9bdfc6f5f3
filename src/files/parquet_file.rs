//! A Parquet input as its footer describes it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, RowGroupMetaData,
};

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
        check(&metadata)?;
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

    /// A group is a row group.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let groups = self.metadata.row_groups().iter();
        groups
            .map(|group| Group { rows: group.num_rows().unsigned_abs(), bytes: group.compressed_size().unsigned_abs() })
            .collect()
    }
}

fn footer(file: &ObjectFile, options: ParquetMetaDataOptions) -> Result<ParquetMetaData> {
    Ok(ParquetMetaDataReader::new().with_metadata_options(Some(options)).parse_and_finish(file)?)
}

/// Refuses files whose columns cannot be told apart or cannot be read.
fn check(metadata: &ParquetMetaData) -> Result<()> {
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
