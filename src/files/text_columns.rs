//! The two text columns of a Parquet file, read without the others.
//!
//! Both are read as string views, whatever the writer made of them: plain text, 64-bit offsets, views, or dictionaries,
//! which have other values in each row group and keys that may be too narrow for two of them. Views have no limit of
//! 2 GiB either.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::column::page::PageReader;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataBuilder, RowGroupMetaData,
};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::{SchemaDescriptor, Type};

use super::parquet_file::{ParquetFile, chunk_bytes};
use super::source::Batches;
use crate::storage::ObjectFile;

/// Text in a batch, on average. A batch has fewer rows where texts are long.
const BATCH_TEXT_BYTES: u64 = 32 << 20;

/// The query and passage columns of a file.
#[derive(Debug)]
pub(crate) struct TextColumns {
    /// The footer of a file that has only these columns.
    metadata: ArrowReaderMetadata,
    /// Where query and passage are among them; `None` for a column whose type is Null.
    places: [Option<usize>; 2],
    schema: SchemaRef,
}

impl TextColumns {
    /// The columns with these indices.
    ///
    /// # Errors
    /// If one is not text.
    pub(crate) fn new(file: &ParquetFile, query: usize, passage: usize) -> Result<Self> {
        let mut kept: Vec<usize> = Vec::new();
        let mut place = |column: usize| -> Option<usize> {
            if *file.schema().field(column).data_type() == DataType::Null {
                return None;
            }
            kept.iter().position(|kept| *kept == column).or_else(|| {
                kept.push(column);
                Some(kept.len() - 1)
            })
        };
        let places = [place(query), place(passage)];
        let metadata = only(file.metadata(), &kept)?;
        let views = metadata.file_metadata().schema().get_fields().iter();
        let views = views.map(|field| Field::new(field.name(), DataType::Utf8View, field.is_optional()));
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(views.collect::<Vec<_>>())));
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), options)?;
        let read = ["query", "passage"].map(|name| Field::new(name, DataType::Utf8View, true));
        Ok(Self { metadata, places, schema: Arc::new(Schema::new(read.to_vec())) })
    }

    /// Reads rows of some groups as batches of a query and a passage column, from the row `skipped` of the groups on.
    /// The file is the one whose footer was read. Blocks.
    pub(crate) fn read(
        &self,
        file: &ObjectFile,
        groups: Range<usize>,
        skipped: u64,
        batch_rows: usize,
    ) -> Result<Batches> {
        let (schema, places) = (Arc::clone(&self.schema), self.places);
        let columns = self.places.into_iter().flatten().max().map_or(0, |last| last + 1);
        let file = file.with_columns(columns);
        let to_batch = move |rows: usize, columns: &[ArrayRef]| {
            let column = |place: Option<usize>| match place {
                Some(place) => Arc::clone(&columns[place]),
                None => new_null_array(&DataType::Utf8View, rows),
            };
            RecordBatch::try_new(Arc::clone(&schema), places.map(column).to_vec())
        };
        let found = &self.metadata.metadata().row_groups()[groups.clone()];
        let rows: u64 = found.iter().map(|group| group.num_rows().unsigned_abs()).sum();
        let bytes = found.iter().map(|group| group.total_byte_size().unsigned_abs()).fold(0, u64::saturating_add);
        let fitting = BATCH_TEXT_BYTES / (bytes / rows.max(1)).max(1);
        let batch_rows = batch_rows.min(usize::try_from(fitting).unwrap_or(usize::MAX)).max(1);
        if columns == 0 {
            let left = usize::try_from(rows.saturating_sub(skipped))?;
            let sizes = (0..left).step_by(batch_rows).map(move |first| batch_rows.min(left - first));
            return Ok(Box::new(sizes.map(move |rows| to_batch(rows, &[]))));
        }
        let metadata = Arc::clone(self.metadata.metadata());
        // A row group without rows may have no pages either.
        let has_rows = |group: usize| metadata.row_group(group).num_rows() > 0;
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), self.metadata.clone())
            .with_row_groups(groups.clone().filter(|group| has_rows(*group)).collect())
            .with_offset(usize::try_from(skipped)?)
            .with_batch_size(batch_rows)
            .build()?;
        Ok(Box::new(batches.map(move |batch| match batch {
            Ok(batch) => to_batch(batch.num_rows(), batch.columns()),
            Err(error) => Err(match damaged_page(&metadata, groups.clone(), &file) {
                Some(page) => ArrowError::ParquetError(page),
                None => error,
            }),
        })))
    }
}

/// The metadata of a file that has only these columns, all of them text.
fn only(metadata: &ParquetMetaData, columns: &[usize]) -> Result<ParquetMetaData> {
    let file = metadata.file_metadata();
    let schema = file.schema_descr();
    let mut leaves = Vec::with_capacity(columns.len());
    let mut fields = Vec::with_capacity(columns.len());
    for &column in columns {
        let field = &file.schema().get_fields()[column];
        let leaf = (0..schema.num_columns()).find(|&leaf| schema.get_column_root_idx(leaf) == column);
        let (Some(leaf), true) = (leaf, field.is_primitive()) else {
            bail!("column '{}' is not text", field.name());
        };
        if field.get_physical_type() != PhysicalType::BYTE_ARRAY {
            bail!("column '{}' is stored as {}, expected text", field.name(), field.get_physical_type());
        }
        leaves.push(leaf);
        let text = Type::primitive_type_builder(field.name(), PhysicalType::BYTE_ARRAY)
            .with_repetition(field.get_basic_info().repetition())
            .with_logical_type(Some(LogicalType::String));
        fields.push(Arc::new(text.build()?));
    }
    let root = Type::group_type_builder(file.schema().name()).with_fields(fields).build()?;
    let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
    let chunk = |place: usize, chunk: &ColumnChunkMetaData| {
        let data = chunk.data_page_offset();
        let start = chunk_bytes(chunk).start as i64;
        ColumnChunkMetaData::builder(schema.column(place))
            .set_compression_codec(chunk.compression_codec())
            .set_encodings_mask(*chunk.encodings_mask())
            .set_total_compressed_size(chunk.compressed_size())
            .set_total_uncompressed_size(chunk.uncompressed_size())
            .set_num_values(chunk.num_values())
            .set_data_page_offset(data)
            .set_dictionary_page_offset((start < data).then_some(start))
            .build()
    };
    let mut groups = Vec::with_capacity(metadata.num_row_groups());
    for group in metadata.row_groups() {
        let chunks = leaves.iter().enumerate().map(|(place, &leaf)| chunk(place, group.column(leaf)));
        let chunks = chunks.collect::<parquet::errors::Result<Vec<_>>>()?;
        let bytes = chunks.iter().map(ColumnChunkMetaData::uncompressed_size).fold(0, i64::saturating_add);
        let builder = RowGroupMetaData::builder(Arc::clone(&schema)).set_num_rows(group.num_rows());
        groups.push(builder.set_total_byte_size(bytes).set_column_metadata(chunks).build()?);
    }
    let created_by = file.created_by().map(str::to_owned);
    let file = FileMetaData::new(file.version(), file.num_rows(), created_by, None, schema, None);
    Ok(ParquetMetaDataBuilder::new(file).set_row_groups(groups).build())
}

/// Describes the first page of some groups that cannot be read: the reader itself does not say which it is.
fn damaged_page(metadata: &ParquetMetaData, groups: Range<usize>, file: &ObjectFile) -> Option<String> {
    for group in groups {
        let rows = usize::try_from(metadata.row_group(group).num_rows()).ok()?;
        for column in metadata.row_group(group).columns() {
            let place = || format!("column '{}', row group {group}", column.column_path().string());
            let reader = SerializedPageReader::new(Arc::new(file.clone()), column, rows, None);
            let mut reader = match reader {
                Ok(reader) => reader,
                Err(error) => return Some(format!("{}: {error}", place())),
            };
            for page in 0_usize.. {
                match reader.get_next_page() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Some(format!("{}, page {page}: {error}", place())),
                }
            }
        }
    }
    None
}
