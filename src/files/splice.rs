//! A Parquet file that is the input's own column chunks and a few columns more.
//!
//! ```text
//! input      | row group 0: id, query, passage |         | row group 1: id, query, passage |         footer
//! output     | row group 0: id, query, passage | score   | row group 1: id, query, passage | score   footer
//! ```
//!
//! The chunks are copied byte for byte, and with them go their statistics, page indexes and bloom filters. Schema,
//! key-value metadata and sort order are the input's, with the added columns behind them. So is the name of the
//! writer: readers decide by it whether statistics can be trusted.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::arrow_hint::with_fields;
use super::format::Compression;
use super::input::InputFile;
use super::output::codec;
use super::parquet_file::{ParquetFile, chunk_bytes};
use crate::storage::{ObjectFile, RangeReader, Upload};

/// Bytes handed to the upload at once.
const PIECE_BYTES: usize = 1 << 20;

/// Row groups of added columns that wait for the thread.
const GROUPS_AHEAD: usize = 1;

/// The most row groups that a file is written with: their numbers are 16-bit integers.
const MOST_GROUPS: usize = i16::MAX as usize;

/// Writes a copy of some row groups of a Parquet file with added columns.
///
/// A thread copies the chunks of a row group while its scores are being computed, and waits for them.
pub(crate) struct Splice {
    thread: Option<JoinHandle<(SpliceWriter, Result<()>)>>,
    /// Takes the added columns of one row group after the other.
    sender: Option<mpsc::Sender<RecordBatch>>,
    /// The rows of each row group that is left.
    groups: std::vec::IntoIter<usize>,
    /// The rows of the row group that is being filled; `None` after the last.
    wanted: Option<usize>,
    /// Rows of the added columns that do not make up a row group yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    input: InputFile,
    added: SchemaRef,
    /// The upload, after a thread that has ended.
    upload: Option<Upload>,
    abandoned: Arc<AtomicBool>,
}

/// What the thread needs that copies.
struct SpliceWriter {
    /// The input, with the row groups that are copied.
    file: ParquetFile,
    /// The number of the first of them in the input.
    first_group: usize,
    chunks: RangeReader,
    /// For what is small and anywhere.
    blocks: ObjectFile,
    output: SerializedFileWriter<UploadSink>,
    /// Makes encoders of the added columns.
    encoders: ArrowRowGroupWriterFactory,
    added: SchemaRef,
}

impl Splice {
    /// Begins a copy of these row groups of `input` with the columns `added`. Reads the input's footer. Copying ends with
    /// an error soon after `stopped` is true.
    ///
    /// # Errors
    /// If the file cannot be read, or cannot be copied with more columns.
    pub(crate) async fn begin(
        input: InputFile,
        groups: Range<usize>,
        added: SchemaRef,
        compression: Compression,
        upload: Upload,
        stopped: Arc<AtomicBool>,
    ) -> Result<Self> {
        if groups.len() > MOST_GROUPS {
            bail!("a copy can have at most {MOST_GROUPS} row groups, not {}; pass a smaller --unit-rows", groups.len());
        }
        let runtime = Handle::current();
        let abandoned = Arc::<AtomicBool>::default();
        let mut writer = {
            let (input, added) = (input.clone(), Arc::clone(&added));
            let stopped = [stopped, Arc::clone(&abandoned)];
            let open = move || SpliceWriter::open(&input, groups, added, compression, upload, &runtime, stopped);
            tokio::task::spawn_blocking(open).await.context("the copy was not begun")??
        };
        let groups = writer.file.groups();
        let mut rows = groups.iter().map(|group| group.rows as usize).collect::<Vec<_>>().into_iter();
        let wanted = rows.next();
        let (sender, receiver) = mpsc::channel(GROUPS_AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            let written = writer.write_groups(receiver);
            (writer, written)
        });
        Ok(Self {
            thread: Some(thread),
            sender: Some(sender),
            groups: rows,
            wanted,
            pending: Vec::new(),
            pending_rows: 0,
            input,
            added,
            upload: None,
            abandoned,
        })
    }

    /// Appends rows of the added columns.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.pending_rows += rows.num_rows();
        self.pending.push(rows.clone());
        self.send_full().await
    }

    /// Hands the row groups that are complete to the thread.
    async fn send_full(&mut self) -> Result<()> {
        while let Some(wanted) = self.wanted.filter(|wanted| *wanted <= self.pending_rows) {
            let pending = concat_batches(&self.added, &self.pending)?;
            self.pending_rows -= wanted;
            self.pending = vec![pending.slice(wanted, self.pending_rows)];
            let sender = self.sender.as_ref().context("the copy has ended")?;
            if sender.send(pending.slice(0, wanted)).await.is_err() {
                return self.join(false).await;
            }
            self.wanted = self.groups.next();
        }
        Ok(())
    }

    /// Writes the footer and makes the file appear, if it is complete and the input is what it was.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.send_full().await?;
        if self.wanted.is_some() || self.pending_rows > 0 {
            bail!("the scores are not those of {}: it has another number of rows", self.input.location);
        }
        self.join(true).await?;
        self.input.check_unchanged().await?;
        Ok(self.upload.as_mut().context("the copy has ended")?.finish().await?)
    }

    /// Waits for the thread, which writes the footer if the copy is complete.
    async fn join(&mut self, complete: bool) -> Result<()> {
        self.sender = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let (mut writer, written) = thread.await.context("the copy has ended")?;
        let footer = move || {
            let written = written.and_then(|()| {
                Ok(if complete {
                    drop(writer.output.finish()?)
                })
            });
            (writer.output.inner_mut().upload.take(), written)
        };
        let (upload, written) = tokio::task::spawn_blocking(footer).await.context("the copy has ended")?;
        self.upload = upload;
        written
    }

    /// The upload, also of a copy that failed or is not complete.
    pub(crate) async fn into_upload(mut self) -> Option<Upload> {
        self.abandoned.store(true, Ordering::Relaxed);
        // There is another error to report.
        drop(self.join(false).await);
        self.upload
    }
}

impl SpliceWriter {
    fn open(
        input: &InputFile,
        groups: Range<usize>,
        added: SchemaRef,
        compression: Compression,
        upload: Upload,
        runtime: &Handle,
        stopped: [Arc<AtomicBool>; 2],
    ) -> Result<Self> {
        let (location, size) = (input.location.clone(), input.identity.size_bytes);
        let blocks = ObjectFile::new(location.clone(), size, 1, runtime.clone());
        let first_group = groups.start;
        let file = ParquetFile::open(&blocks)?.with_groups(groups)?.with_page_indexes(&blocks)?;
        let properties = Arc::new(properties(&file, &added, compression));
        let columns = ArrowSchemaConverter::new().convert(&added)?;
        let columns = columns.root_schema().get_fields();
        let schema = with_columns(file.metadata().file_metadata().schema(), columns)?;
        let only = with_columns(&Type::group_type_builder("schema").build()?, columns)?;
        let encoders = SerializedFileWriter::new(io::sink(), Arc::new(only), Arc::clone(&properties))?;
        let encoders = ArrowRowGroupWriterFactory::new(&encoders, Arc::clone(&added));
        let sink = UploadSink { upload: Some(upload), piece: Vec::new(), runtime: runtime.clone(), stopped };
        let output = SerializedFileWriter::new(sink, Arc::new(schema), properties)?;
        let chunks = RangeReader::new(location, size, runtime.clone());
        Ok(Self { file, first_group, chunks, blocks, output, encoders, added })
    }

    fn write_groups(&mut self, mut scores: mpsc::Receiver<RecordBatch>) -> Result<()> {
        for group in 0..self.file.metadata().num_row_groups() {
            self.write_group(group, &mut scores)?;
        }
        Ok(())
    }

    /// Copies a row group, and encodes the added columns behind it.
    fn write_group(&mut self, index: usize, scores: &mut mpsc::Receiver<RecordBatch>) -> Result<()> {
        let metadata = Arc::clone(self.file.metadata());
        let group = metadata.row_group(index);
        self.chunks.announce(group.columns().iter().map(chunk_bytes));
        let mut output = self.output.next_row_group()?;
        for (column, chunk) in group.columns().iter().enumerate() {
            let copied = copied(&metadata, index, column, &self.blocks)
                .and_then(|close| Ok(output.append_column(&self.chunks, close)?));
            copied.with_context(|| {
                format!("column '{}' of row group {}", chunk.column_path().string(), self.first_group + index)
            })?;
        }
        let rows = scores.blocking_recv().context("the copy was abandoned")?;
        let mut encoders = self.encoders.create_column_writers(index)?.into_iter();
        for (field, values) in self.added.fields().iter().zip(rows.columns()) {
            for leaf in compute_leaves(field, values)? {
                let mut encoder = encoders.next().context("a column has no encoder")?;
                encoder.write(&leaf)?;
                encoder.close()?.append_to_row_group(&mut output)?;
            }
        }
        output.close()?;
        Ok(())
    }
}

/// What the writer records of a column chunk that it copies.
fn copied(metadata: &ParquetMetaData, group: usize, column: usize, file: &ObjectFile) -> Result<ColumnCloseResult> {
    let chunk = metadata.row_group(group).column(column);
    let starts_with_dictionary = chunk_bytes(chunk).start != chunk.data_page_offset().unsigned_abs();
    let own = if starts_with_dictionary {
        chunk.clone()
    } else {
        chunk.clone().into_builder().set_dictionary_page_offset(None).build()?
    };
    let index = metadata.column_index().map(|groups| groups[group][column].clone());
    Ok(ColumnCloseResult {
        bytes_written: chunk.compressed_size().unsigned_abs(),
        rows_written: metadata.row_group(group).num_rows().unsigned_abs(),
        metadata: own,
        bloom_filter: Sbbf::read_from_column_chunk(chunk, file).context("its bloom filter cannot be read")?,
        column_index: index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
        offset_index: metadata.offset_index().map(|groups| groups[group][column].clone()),
    })
}

/// The schema with columns appended.
fn with_columns(schema: &Type, added: &[Arc<Type>]) -> Result<Type> {
    let info = schema.get_basic_info();
    let fields = schema.get_fields().iter().chain(added).cloned().collect();
    let root = Type::group_type_builder(schema.name())
        .with_id(info.has_id().then(|| info.id()))
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(fields);
    Ok(root.build()?)
}

fn properties(file: &ParquetFile, added: &SchemaRef, compression: Compression) -> WriterProperties {
    let metadata = file.metadata();
    let entries = metadata.file_metadata().key_value_metadata();
    let entries = entries.map(|entries| with_fields(entries, file.hint(), added.fields()));
    // An offset index is for all columns or for none.
    let statistics = match (metadata.column_index(), metadata.offset_index()) {
        (Some(_), Some(_)) => EnabledStatistics::Page,
        _ => EnabledStatistics::Chunk,
    };
    WriterProperties::builder()
        .set_created_by(metadata.file_metadata().created_by().unwrap_or("unknown").to_owned())
        .set_key_value_metadata(entries)
        .set_sorting_columns(sort_order(metadata))
        .set_compression(codec(compression))
        .set_statistics_enabled(statistics)
        .set_offset_index_disabled(metadata.offset_index().is_none())
        .build()
}

/// The sort order of the rows, if all row groups have the same.
fn sort_order(metadata: &ParquetMetaData) -> Option<Vec<SortingColumn>> {
    let mut orders = metadata.row_groups().iter().map(|group| group.sorting_columns());
    let first = orders.next()??;
    orders.all(|order| order == Some(first)).then(|| first.clone())
}

/// Sends what is written to an upload, on a thread that may block.
struct UploadSink {
    upload: Option<Upload>,
    piece: Vec<u8>,
    runtime: Handle,
    /// Whether the file is no longer wanted: because the run was stopped, or because this copy failed.
    stopped: [Arc<AtomicBool>; 2],
}

impl UploadSink {
    fn send(&mut self) -> io::Result<()> {
        if self.stopped.iter().any(|stopped| stopped.load(Ordering::Relaxed)) {
            return Err(io::Error::other("the copy was stopped"));
        }
        let piece = std::mem::take(&mut self.piece);
        let upload = self.upload.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(self.runtime.block_on(upload.put(piece.into()))?)
    }
}

impl Write for UploadSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES + bytes.len());
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}
