//! Encodes the added columns.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;

use super::footer::read_footer;
use crate::files::format::Compression;
use crate::files::output::codec;
use crate::files::thrift_value::Struct;

/// Encodes the added columns of one row group after the other, each as a Parquet file in memory.
pub(super) struct ColumnEncoder {
    columns: Arc<parquet::schema::types::Type>,
    properties: Arc<WriterProperties>,
    added: SchemaRef,
}

impl ColumnEncoder {
    pub(super) fn new(added: &SchemaRef, compression: Compression, with_indexes: bool) -> Result<Self> {
        let columns = ArrowSchemaConverter::new().convert(added)?.root_schema_ptr();
        let statistics = if with_indexes { EnabledStatistics::Page } else { EnabledStatistics::Chunk };
        let properties = WriterProperties::builder()
            .set_compression(codec(compression))
            .set_statistics_enabled(statistics)
            .set_offset_index_disabled(!with_indexes)
            .build();
        Ok(Self { columns, properties: Arc::new(properties), added: Arc::clone(added) })
    }

    /// The footer of a file with these columns.
    pub(super) fn footer(&self) -> Result<Struct> {
        Ok(self.encode(&RecordBatch::new_empty(Arc::clone(&self.added)))?.1)
    }

    /// A file of one row group, and its footer.
    pub(super) fn encode(&self, rows: &RecordBatch) -> Result<(Bytes, Struct)> {
        let mut file = SerializedFileWriter::new(Vec::new(), Arc::clone(&self.columns), Arc::clone(&self.properties))?;
        let encoders = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&self.added)).create_column_writers(0)?;
        let mut encoders = encoders.into_iter();
        let mut group = file.next_row_group()?;
        for (field, values) in self.added.fields().iter().zip(rows.columns()) {
            for leaf in compute_leaves(field, values)? {
                let mut encoder = encoders.next().context("a column has no encoder")?;
                encoder.write(&leaf)?;
                encoder.close()?.append_to_row_group(&mut group)?;
            }
        }
        group.close()?;
        let content = Bytes::from(file.into_inner()?);
        let footer = read_footer(&content, &(0..1))?;
        Ok((content, footer))
    }
}
