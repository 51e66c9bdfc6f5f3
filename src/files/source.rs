//! An input file of any format, read in parts.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use tokio::runtime::Handle;

use super::arrow_file::ArrowFile;
use super::format::FileFormat;
use super::group::Group;
use super::input::InputFile;
use super::interval;
use super::parquet_file::{ParquetFile, groups_of};
use crate::storage::ObjectFile;

/// The footer of a file. Opening and reading block.
#[derive(Debug)]
pub(crate) enum Source {
    Parquet {
        metadata: ArrowReaderMetadata,
        /// The columns, once intervals are decoded.
        schema: SchemaRef,
    },
    Arrow(Arc<ArrowFile>),
}

/// The batches of some groups.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

impl Source {
    /// Reads the file's footer.
    pub(crate) fn open(input: &InputFile, runtime: &Handle) -> Result<Self> {
        // A footer is read sequentially, like one column.
        let file = ObjectFile::new(input.location.clone(), input.identity.size_bytes, 1, runtime.clone());
        match input.format() {
            FileFormat::Parquet => ParquetFile::open(&file)
                .and_then(|parquet| parquet.reader_metadata(&file))
                .map(|(metadata, schema)| Self::Parquet { metadata, schema })
                .with_context(|| format!("cannot read {} as Parquet", input.location)),
            FileFormat::Arrow => ArrowFile::open(&file)
                .map(|file| Self::Arrow(Arc::new(file)))
                .with_context(|| format!("cannot read {} as an Arrow IPC file", input.location)),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Parquet { schema, .. } => schema,
            Self::Arrow(file) => file.schema(),
        }
    }

    /// The parts that can be read alone, in order.
    pub(crate) fn groups(&self) -> Vec<Group> {
        match self {
            Self::Parquet { metadata, .. } => groups_of(metadata.metadata()),
            Self::Arrow(file) => file.groups().to_vec(),
        }
    }

    /// Reads groups of the file that was passed to `open`: all columns, or the columns with these indices in this
    /// order. `batch_rows` limits the rows of a batch for Parquet; Arrow batches are returned as stored.
    pub(crate) fn read(
        &self,
        input: &InputFile,
        groups: Range<usize>,
        columns: Option<&[usize]>,
        batch_rows: usize,
        runtime: &Handle,
    ) -> Result<Batches> {
        let (location, size_bytes) = (input.location.clone(), input.identity.size_bytes);
        match self {
            Self::Parquet { metadata, schema } => {
                let parquet = metadata.parquet_schema();
                let mask = match columns {
                    None => ProjectionMask::all(),
                    Some(columns) => ProjectionMask::roots(parquet, columns.iter().copied()),
                };
                let leaves = (0..parquet.num_columns()).filter(|&leaf| mask.leaf_included(leaf)).count();
                let file = ObjectFile::new(location, size_bytes, leaves, runtime.clone());
                let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
                    .with_row_groups(groups.collect())
                    .with_projection(mask)
                    .with_batch_size(batch_rows)
                    .build()
                    .with_context(|| format!("cannot read {}", input.location))?;
                // The reader can leave out columns, but returns them in the order of the file.
                let order = columns.map(|columns| {
                    let mut sorted = columns.to_vec();
                    sorted.sort_unstable();
                    columns.iter().filter_map(|column| sorted.binary_search(column).ok()).collect::<Vec<_>>()
                });
                let batches = in_order(Box::new(batches), order);
                if schema == metadata.schema() {
                    return Ok(batches);
                }
                let schema = match columns {
                    None => Arc::clone(schema),
                    Some(columns) => Arc::new(schema.project(columns)?),
                };
                Ok(Box::new(batches.map(move |batch| interval::decode(&batch?, &schema))))
            }
            Self::Arrow(arrow) => {
                let file = ObjectFile::new(location, size_bytes, 1, runtime.clone());
                let batches = arrow.read(file, groups).with_context(|| format!("cannot read {}", input.location))?;
                Ok(in_order(Box::new(batches), columns.map(<[usize]>::to_vec)))
            }
        }
    }
}

/// The batches with the columns at these indices, in this order.
fn in_order(batches: Batches, columns: Option<Vec<usize>>) -> Batches {
    match columns {
        None => batches,
        Some(columns) => Box::new(batches.map(move |batch| batch?.project(&columns))),
    }
}
