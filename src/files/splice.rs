//! A Parquet file that is the input's own column chunks and a few columns more.
//!
//! ```text
//! input      | row group 0: id, query, passage |         | row group 1: id, query, passage |         footer
//! output     | row group 0: id, query, passage | score   | row group 1: id, query, passage | score   footer
//! ```
//!
//! The chunks are copied byte for byte, and with them go their page indexes and bloom filters. The footer is the input's,
//! with other offsets and the added columns: the Parquet library would not write all of it again, and it does not only
//! describe the data. By the name of the writer and the order of columns, for instance, readers decide whether they trust
//! statistics.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowSchemaConverter};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::SerializedFileWriter;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::arrow_hint::with_fields;
use super::format::Compression;
use super::input::InputFile;
use super::output::codec;
use super::parquet_file::{ParquetFile, chunk_range};
use super::thrift_value::{Struct, Value};
use crate::storage::{ObjectFile, RangeReader, Upload};

/// The bytes at both ends of a file.
const MAGIC: &[u8; 4] = b"PAR1";

/// The length of the footer, and the magic bytes.
const TAIL_BYTES: usize = 8;

/// Fields of `FileMetaData`.
mod file_field {
    pub(super) const SCHEMA: i16 = 2;
    pub(super) const ROWS: i16 = 3;
    pub(super) const GROUPS: i16 = 4;
    pub(super) const ENTRIES: i16 = 5;
    pub(super) const COLUMN_ORDERS: i16 = 7;
}

/// Fields of `SchemaElement`.
mod schema_field {
    pub(super) const CHILDREN: i16 = 5;
}

/// Fields of `RowGroup`.
mod group_field {
    pub(super) const COLUMNS: i16 = 1;
    pub(super) const UNCOMPRESSED_BYTES: i16 = 2;
    pub(super) const OFFSET: i16 = 5;
    pub(super) const COMPRESSED_BYTES: i16 = 6;
    pub(super) const ORDINAL: i16 = 7;
}

/// Fields of `ColumnChunk`.
mod chunk_field {
    pub(super) const OFFSET: i16 = 2;
    pub(super) const METADATA: i16 = 3;
    /// Offset and, in the next field, length; so is the other.
    pub(super) const OFFSET_INDEX: i16 = 4;
    pub(super) const COLUMN_INDEX: i16 = 6;
}

/// Fields of `ColumnMetaData`.
mod metadata_field {
    pub(super) const UNCOMPRESSED_BYTES: i16 = 6;
    pub(super) const COMPRESSED_BYTES: i16 = 7;
    pub(super) const DATA_PAGE: i16 = 9;
    pub(super) const INDEX_PAGE: i16 = 10;
    pub(super) const DICTIONARY_PAGE: i16 = 11;
    pub(super) const BLOOM_FILTER: i16 = 14;
    pub(super) const BLOOM_FILTER_BYTES: i16 = 15;
}

/// Bytes handed to the upload at once.
const PIECE_BYTES: usize = 1 << 20;

/// The header of a bloom filter has fewer bytes.
const BLOOM_HEADER_BYTES: usize = 64;

/// Row groups of added columns that wait for the thread.
const GROUPS_AHEAD: usize = 1;

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
    /// The input's footer, whose row groups are those that are copied.
    footer: Struct,
    /// The rows of each of them.
    rows: Vec<usize>,
    chunks: RangeReader,
    /// For what is small and anywhere.
    blocks: ObjectFile,
    output: UploadSink,
    encoder: ColumnEncoder,
    /// The page indexes to write, by row group and column.
    indexes: Vec<PageIndexes>,
}

/// The page indexes of a column chunk.
struct PageIndexes {
    group: usize,
    column: usize,
    /// Encoded, if there is one. Those of the input are read when they are written.
    column_index: Option<Encoded>,
    offset_index: Option<Encoded>,
    /// How far the chunk is from where it was.
    moved: i64,
}

enum Encoded {
    Input(Range<u64>),
    Added(Bytes),
}

impl PageIndexes {
    /// The index of this field, with the places that its pages have now.
    fn encoded(&self, field: i16, input: &ObjectFile) -> Result<Option<Bytes>> {
        let of_offsets = field == chunk_field::OFFSET_INDEX;
        let bytes = match if of_offsets { &self.offset_index } else { &self.column_index } {
            None => return Ok(None),
            Some(Encoded::Added(bytes)) => bytes.clone(),
            Some(Encoded::Input(range)) => input.get_range(range.start, (range.end - range.start) as usize)?,
        };
        if !of_offsets {
            return Ok(Some(bytes));
        }
        Ok(Some(moved_pages(&bytes, self.moved).context("a page index cannot be read")?.into()))
    }
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
        let runtime = Handle::current();
        let abandoned = Arc::<AtomicBool>::default();
        let mut writer = {
            let (input, added) = (input.clone(), Arc::clone(&added));
            let stopped = [stopped, Arc::clone(&abandoned)];
            let open = move || SpliceWriter::open(&input, groups, added, compression, upload, &runtime, stopped);
            tokio::task::spawn_blocking(open).await.context("the copy was not begun")??
        };
        let mut rows = writer.rows.clone().into_iter();
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
            let written = written.and_then(|()| if complete { writer.write_footer() } else { Ok(()) });
            (writer.output.upload.take(), written)
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
        let file = ParquetFile::open(&blocks)?;
        let rows = file.groups().get(groups.clone()).map(|groups| groups.iter().map(|group| group.rows as usize).collect());
        let rows: Vec<usize> = rows.context("it has fewer row groups than before; was it changed during the run?")?;
        let mut footer = read_footer(&blocks, &groups)?;
        let mut with_indexes = false;
        for group in footer.structures(file_field::GROUPS)? {
            let mut columns = group.structures(group_field::COLUMNS)?.into_iter();
            with_indexes |= columns.any(|column| column.number(chunk_field::OFFSET_INDEX).is_some());
        }
        let mut encoder = ColumnEncoder::new(&added, compression, with_indexes)?;
        add_to_schema(&mut footer, &mut encoder, rows.iter().sum())?;
        if let Some(hint) = file.hint() {
            let encoded = with_fields(hint, added.fields());
            for entry in footer.structures(file_field::ENTRIES)? {
                if entry.get(1) == Some(&Value::Bytes(ARROW_SCHEMA_META_KEY.into())) {
                    entry.set(2, Value::Bytes(encoded.clone().into()));
                }
            }
        }
        let mut output =
            UploadSink { upload: Some(upload), position: 0, piece: Vec::new(), runtime: runtime.clone(), stopped };
        output.write_all(MAGIC)?;
        let chunks = RangeReader::new(location, size, runtime.clone());
        Ok(Self { footer, rows, chunks, blocks, output, encoder, indexes: Vec::new() })
    }

    fn write_groups(&mut self, mut scores: mpsc::Receiver<RecordBatch>) -> Result<()> {
        let mut groups = std::mem::take(self.footer.list(file_field::GROUPS)?);
        for (index, group) in groups.iter_mut().enumerate() {
            let Value::Struct(group) = group else { bail!("its footer is damaged") };
            self.write_group(index, group, &mut scores)?;
        }
        *self.footer.list(file_field::GROUPS)? = groups;
        Ok(())
    }

    /// Copies a row group, and encodes the added columns behind it.
    fn write_group(&mut self, index: usize, group: &mut Struct, scores: &mut mpsc::Receiver<RecordBatch>) -> Result<()> {
        let mut columns = group.structures(group_field::COLUMNS)?;
        let ranges = columns.iter_mut().map(|column| range_of(column)).collect::<Result<Vec<_>>>()?;
        self.chunks.announce(ranges.iter().cloned());
        for (place, (column, range)) in columns.into_iter().zip(ranges).enumerate() {
            let read = self.chunks.get_read(range.start)?;
            let moved = copy_chunk(read, column, range, &mut self.output)?;
            self.indexes.push(PageIndexes {
                group: index,
                column: place,
                column_index: index_range(column, chunk_field::COLUMN_INDEX)?.map(Encoded::Input),
                offset_index: index_range(column, chunk_field::OFFSET_INDEX)?.map(Encoded::Input),
                moved,
            });
        }
        let rows = scores.blocking_recv().context("the copy was abandoned")?;
        let added = self.add_columns(index, group, &rows)?;
        for column in group.structures(group_field::COLUMNS)? {
            copy_bloom_filter(column.structure(chunk_field::METADATA)?, &self.blocks, &mut self.output)?;
        }
        group.list(group_field::COLUMNS)?.extend(added.into_iter().map(Value::Struct));
        // The numbers are 16-bit integers, and may be left out.
        match (group.number(group_field::ORDINAL), i16::try_from(index)) {
            (Some(_), Ok(index)) => group.set(group_field::ORDINAL, Value::I16(index)),
            _ => group.remove(group_field::ORDINAL),
        }
        Ok(())
    }

    /// Encodes the added columns. Returns what the footer says of their chunks, and adds to the sums of the row group.
    fn add_columns(&mut self, index: usize, group: &mut Struct, rows: &RecordBatch) -> Result<Vec<Struct>> {
        let width = group.list(group_field::COLUMNS)?.len();
        let (content, mut footer) = self.encoder.encode(rows)?;
        let mut groups = footer.structures(file_field::GROUPS)?;
        let columns = groups.first_mut().context("the added columns were not encoded")?;
        let mut added = Vec::new();
        for (place, column) in columns.structures(group_field::COLUMNS)?.into_iter().enumerate() {
            let range = range_of(column)?;
            let read = content.get_read(range.start)?;
            let moved = copy_chunk(read, column, range, &mut self.output)?;
            let encoded = |range: Range<u64>| Encoded::Added(content.slice(range.start as usize..range.end as usize));
            self.indexes.push(PageIndexes {
                group: index,
                column: width + place,
                column_index: index_range(column, chunk_field::COLUMN_INDEX)?.map(encoded),
                offset_index: index_range(column, chunk_field::OFFSET_INDEX)?.map(encoded),
                moved,
            });
            let metadata = column.structure(chunk_field::METADATA)?;
            for (sum, part) in [
                (group_field::UNCOMPRESSED_BYTES, metadata_field::UNCOMPRESSED_BYTES),
                (group_field::COMPRESSED_BYTES, metadata_field::COMPRESSED_BYTES),
            ] {
                if let (Some(sum_before), Some(part)) = (group.number(sum), metadata.number(part)) {
                    group.set_number(sum, sum_before + part);
                }
            }
            added.push(column.clone());
        }
        let first = self.indexes.len() - width - added.len();
        if let Some(offset) = group.number(group_field::OFFSET).filter(|offset| *offset > 0) {
            group.set_number(group_field::OFFSET, offset + self.indexes.get(first).map_or(0, |first| first.moved));
        }
        Ok(added)
    }

    /// Writes the page indexes and the footer.
    fn write_footer(&mut self) -> Result<()> {
        for field in [chunk_field::COLUMN_INDEX, chunk_field::OFFSET_INDEX] {
            let mut groups = self.footer.structures(file_field::GROUPS)?;
            for of_group in self.indexes.chunk_by(|one, other| one.group == other.group) {
                let mut columns = groups[of_group[0].group].structures(group_field::COLUMNS)?;
                for index in of_group {
                    let Some(bytes) = index.encoded(field, &self.blocks)? else { continue };
                    let column = &mut columns[index.column];
                    column.set(field, Value::I64(self.output.position as i64));
                    column.set(field + 1, Value::I32(i32::try_from(bytes.len())?));
                    self.output.write_all(&bytes)?;
                }
            }
        }
        let footer = self.footer.write()?;
        self.output.write_all(&footer)?;
        self.output.write_all(&u32::try_from(footer.len()).context("its footer is too large")?.to_le_bytes())?;
        self.output.write_all(MAGIC)?;
        Ok(self.output.flush()?)
    }
}

/// The footer of a file, with these row groups only.
fn read_footer(file: &ObjectFile, groups: &Range<usize>) -> Result<Struct> {
    let size = file.len();
    let start = size.checked_sub(TAIL_BYTES as u64).context("it is too short")?;
    let tail = file.get_bytes(start, TAIL_BYTES)?;
    let mut length = [0; 4];
    length.copy_from_slice(&tail[..4]);
    let length = u64::from(u32::from_le_bytes(length));
    let start = start.checked_sub(length).context("its footer's length is wrong")?;
    footer_of(&file.get_range(start, length as usize)?, groups)
}

fn footer_of(bytes: &[u8], groups: &Range<usize>) -> Result<Struct> {
    let wanted = |field, place| field != file_field::GROUPS || groups.contains(&place);
    let (footer, _) = Struct::read_some(bytes, wanted).context("its footer cannot be read")?;
    Ok(footer)
}

/// Adds columns to the schema of a footer, and sets the number of rows.
fn add_to_schema(footer: &mut Struct, encoder: &mut ColumnEncoder, rows: usize) -> Result<()> {
    let mut added = encoder.footer()?;
    let elements = std::mem::take(added.list(file_field::SCHEMA)?);
    let mut elements = elements.into_iter();
    let Some(Value::Struct(root)) = elements.next() else { bail!("the added columns have no schema") };
    let more = root.number(schema_field::CHILDREN).unwrap_or_default();
    let mut schema = footer.structures(file_field::SCHEMA)?;
    let root = schema.first_mut().context("its schema is empty")?;
    let children = root.number(schema_field::CHILDREN).unwrap_or_default() + more;
    root.set(schema_field::CHILDREN, Value::I32(i32::try_from(children)?));
    footer.list(file_field::SCHEMA)?.extend(elements);
    footer.set(file_field::ROWS, Value::I64(rows as i64));
    if let (Ok(orders), Ok(more)) = (footer.list(file_field::COLUMN_ORDERS), added.list(file_field::COLUMN_ORDERS)) {
        orders.append(more);
    }
    Ok(())
}

/// The bytes of a column chunk.
fn range_of(column: &mut Struct) -> Result<Range<u64>> {
    let metadata = column.structure(chunk_field::METADATA)?;
    let length = metadata.number(metadata_field::COMPRESSED_BYTES).context("a column chunk has no length")?;
    let offset = |field| metadata.number(field);
    Ok(chunk_range(offset(metadata_field::DICTIONARY_PAGE), offset(metadata_field::DATA_PAGE), length))
}

/// The bytes of a page index; `None` if the chunk has none.
fn index_range(column: &Struct, field: i16) -> Result<Option<Range<u64>>> {
    let Some(offset) = column.number(field) else { return Ok(None) };
    let length = column.number(field + 1).context("a page index has no length")?;
    let start = u64::try_from(offset).context("the place of a page index is wrong")?;
    Ok(Some(start..start.saturating_add(u64::try_from(length).context("the length of a page index is wrong")?)))
}

/// Copies a chunk and adjusts what the footer says of its place. Returns how far it is from where it was.
fn copy_chunk(read: impl Read, column: &mut Struct, range: Range<u64>, output: &mut UploadSink) -> Result<i64> {
    let (moved, length) = (output.position as i64 - range.start as i64, range.end - range.start);
    let copied = io::copy(&mut read.take(length), output)?;
    if copied != length {
        bail!("a column chunk has {copied} bytes, expected {length}");
    }
    let shift = |of: &mut Struct, field| {
        // 0 stands for nothing.
        if let Some(offset) = of.number(field).filter(|offset| *offset > 0) {
            of.set_number(field, offset + moved);
        }
    };
    shift(column, chunk_field::OFFSET);
    let metadata = column.structure(chunk_field::METADATA)?;
    for field in [metadata_field::DATA_PAGE, metadata_field::INDEX_PAGE, metadata_field::DICTIONARY_PAGE] {
        shift(metadata, field);
    }
    Ok(moved)
}

/// Copies the bloom filter of a chunk, if it has one.
fn copy_bloom_filter(metadata: &mut Struct, file: &ObjectFile, output: &mut UploadSink) -> Result<()> {
    let Some(offset) = metadata.number(metadata_field::BLOOM_FILTER).filter(|offset| *offset > 0) else {
        return Ok(());
    };
    let start = offset.unsigned_abs();
    let length = match metadata.number(metadata_field::BLOOM_FILTER_BYTES) {
        Some(length) => usize::try_from(length)?,
        None => {
            // The header, which begins with the length of what follows it.
            let most = usize::try_from(file.len().saturating_sub(start))?.min(BLOOM_HEADER_BYTES);
            let (header, header_bytes) = Struct::read(&file.get_bytes(start, most)?).context("a bloom filter")?;
            header_bytes + usize::try_from(header.number(1).context("a bloom filter has no length")?)?
        }
    };
    metadata.set_number(metadata_field::BLOOM_FILTER, output.position as i64);
    output.write_all(&file.get_range(start, length)?)?;
    Ok(())
}

/// An offset index whose pages are so much further on.
fn moved_pages(bytes: &[u8], moved: i64) -> Result<Vec<u8>> {
    let (mut index, _) = Struct::read(bytes)?;
    for page in index.structures(1)? {
        let offset = page.number(1).context("a page has no place")?;
        page.set_number(1, offset + moved);
    }
    index.write()
}

/// Encodes the added columns of one row group after the other, each as a Parquet file in memory.
struct ColumnEncoder {
    columns: Arc<parquet::schema::types::Type>,
    properties: Arc<WriterProperties>,
    added: SchemaRef,
}

impl ColumnEncoder {
    fn new(added: &SchemaRef, compression: Compression, with_indexes: bool) -> Result<Self> {
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
    fn footer(&mut self) -> Result<Struct> {
        Ok(self.encode(&RecordBatch::new_empty(Arc::clone(&self.added)))?.1)
    }

    /// A file of one row group, and its footer.
    fn encode(&mut self, rows: &RecordBatch) -> Result<(Bytes, Struct)> {
        let mut file =
            SerializedFileWriter::new(Vec::new(), Arc::clone(&self.columns), Arc::clone(&self.properties))?;
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
        let tail = content.len() - TAIL_BYTES;
        let mut length = [0; 4];
        length.copy_from_slice(&content[tail..tail + 4]);
        let footer = footer_of(&content[tail - u32::from_le_bytes(length) as usize..tail], &(0..1))?;
        Ok((content, footer))
    }
}

/// Sends what is written to an upload, on a thread that may block.
struct UploadSink {
    upload: Option<Upload>,
    /// Bytes written.
    position: u64,
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
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}
