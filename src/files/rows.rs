//! The rows of an input that a run scores.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;

use super::format::{FileFormat, OutputKind};
use super::group::Group;
use super::input::InputFile;
use super::layout::{Columns, Layout};
use super::parquet_file::ParquetFile;
use super::source::{Batches, Source};
use super::text_columns::TextColumns;
use crate::storage::ObjectFile;

/// An open input: its text columns, or all of them if the output is not a copy of it.
#[derive(Debug)]
pub(crate) struct Rows {
    input: InputFile,
    columns: Read,
    /// All columns of the file.
    schema: SchemaRef,
    groups: Vec<Group>,
    layout: Arc<RowLayout>,
}

/// What is read of a file.
#[derive(Debug)]
enum Read {
    Texts(TextColumns, ObjectFile),
    All(Source, Handle),
}

/// Where query and passage are in a batch of rows, and which columns are written of it.
#[derive(Debug)]
pub(crate) struct RowLayout {
    pub(crate) query: usize,
    pub(crate) passage: usize,
    /// The columns that are written.
    pub(crate) written: SchemaRef,
    /// Whether the columns that were read are among them, before the added ones.
    pub(crate) carries: bool,
}

impl RowLayout {
    /// The batch that is written: the added columns, behind those that were read if they are carried along.
    pub(crate) fn append(&self, rows: &RecordBatch, added: impl IntoIterator<Item = ArrayRef>) -> Result<RecordBatch> {
        let carried = if self.carries { rows.columns() } else { &[] };
        let columns = carried.iter().cloned().chain(added).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.written), columns)?)
    }
}

impl InputFile {
    /// Whether an output of this kind is a copy of the file with columns added, not an encoding of its rows.
    pub(crate) fn is_spliced(&self, output: OutputKind) -> bool {
        self.format() == FileFormat::Parquet && output == OutputKind::Parquet
    }
}

impl Rows {
    /// Opens the file to add columns to it. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read, or the columns are not as `columns` says; the error names the file.
    pub(crate) fn open(input: &InputFile, columns: &Columns, output: OutputKind, runtime: &Handle) -> Result<Self> {
        let context = || format!("cannot score {}", input.location);
        if !input.is_spliced(output) {
            let source = Source::open(input, runtime)?;
            let layout = Layout::new(source.schema(), columns).with_context(context)?;
            let written = layout.scored(source.schema());
            let layout = RowLayout { query: layout.query, passage: layout.passage, written, carries: true };
            return Ok(Self {
                input: input.clone(),
                schema: Arc::clone(source.schema()),
                groups: source.groups(),
                columns: Read::All(source, runtime.clone()),
                layout: Arc::new(layout),
            });
        }
        let object = ObjectFile::new(input.location.clone(), input.identity.size_bytes, 1, runtime.clone());
        let file = ParquetFile::open(&object).with_context(|| format!("cannot read {} as Parquet", input.location))?;
        let Layout { query, passage, added } = Layout::new(file.schema(), columns).with_context(context)?;
        let texts = TextColumns::new(&file, query, passage).with_context(context)?;
        Ok(Self {
            input: input.clone(),
            schema: Arc::clone(file.schema()),
            groups: file.groups(),
            columns: Read::Texts(texts, object),
            layout: Arc::new(RowLayout { query: 0, passage: 1, written: added, carries: false }),
        })
    }

    /// All columns of the file.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn layout(&self) -> &Arc<RowLayout> {
        &self.layout
    }

    /// Reads the rows of some groups from the row `first_row` of the file on, in batches of at most `batch_rows` rows;
    /// Arrow batches are returned as stored. Blocks.
    pub(crate) fn read(&self, groups: Range<usize>, first_row: u64, batch_rows: usize) -> Result<Batches> {
        match &self.columns {
            Read::Texts(texts, object) => {
                let before: u64 = self.groups[..groups.start].iter().map(|group| group.rows).sum();
                texts
                    .read(object, groups, first_row - before, batch_rows)
                    .with_context(|| format!("cannot read {}", self.input.location))
            }
            Read::All(source, runtime) => source.read(&self.input, groups, None, batch_rows, runtime),
        }
    }
}
