//! The thread that copies.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::encoder::ColumnEncoder;
use super::footer::{
    MAGIC, add_to_schema, chunk_field, file_field, group_field, index_range, metadata_field, range_of, read_footer,
};
use super::sink::UploadSink;
use crate::files::arrow_hint::with_fields;
use crate::files::format::Compression;
use crate::files::input::InputFile;
use crate::files::parquet_file::ParquetFile;
use crate::files::thrift_value::{Struct, Value};
use crate::storage::{ObjectFile, RangeReader, Upload};

/// The header of a bloom filter has fewer bytes.
const BLOOM_HEADER_BYTES: usize = 64;

/// What the thread needs that copies.
pub(super) struct SpliceWriter {
    /// The input's footer, whose row groups are those that are copied.
    footer: Struct,
    /// The rows of each of them.
    pub(super) rows: Vec<usize>,
    chunks: RangeReader,
    /// For what is small and anywhere.
    blocks: ObjectFile,
    pub(super) output: UploadSink,
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
            Some(Encoded::Input(range)) => input.get_bytes(range.start, (range.end - range.start) as usize)?,
        };
        if !of_offsets {
            return Ok(Some(bytes));
        }
        Ok(Some(moved_pages(&bytes, self.moved).context("a page index cannot be read")?.into()))
    }
}

impl SpliceWriter {
    pub(super) fn open(
        input: &InputFile,
        groups: Range<usize>,
        added: &SchemaRef,
        compression: Compression,
        upload: Upload,
        runtime: &Handle,
        stopped: [Arc<AtomicBool>; 2],
    ) -> Result<Self> {
        let (location, size) = (input.location.clone(), input.identity.size_bytes);
        let blocks = ObjectFile::new(location.clone(), size, 1, runtime.clone());
        let file = ParquetFile::open(&blocks)?;
        let rows =
            file.groups().get(groups.clone()).map(|groups| groups.iter().map(|group| group.rows as usize).collect());
        let rows: Vec<usize> = rows.context("it has fewer row groups than before; was it changed during the run?")?;
        let mut footer = read_footer(&blocks, &groups)?;
        let mut with_indexes = false;
        for group in footer.structures(file_field::GROUPS)? {
            let mut columns = group.structures(group_field::COLUMNS)?.into_iter();
            with_indexes |= columns.any(|column| column.number(chunk_field::OFFSET_INDEX).is_some());
        }
        let encoder = ColumnEncoder::new(added, compression, with_indexes)?;
        add_to_schema(&mut footer, encoder.footer()?, rows.iter().sum())?;
        if let Some(hint) = file.hint() {
            let encoded = with_fields(hint, added.fields());
            for entry in footer.structures(file_field::ENTRIES)? {
                if entry.get(1) == Some(&Value::Bytes(ARROW_SCHEMA_META_KEY.into())) {
                    entry.set(2, Value::Bytes(encoded.clone().into()));
                }
            }
        }
        let mut output = UploadSink::new(upload, runtime.clone(), stopped);
        output.write_all(MAGIC)?;
        let chunks = RangeReader::new(location, size, runtime.clone());
        Ok(Self { footer, rows, chunks, blocks, output, encoder, indexes: Vec::new() })
    }

    pub(super) fn write_groups(&mut self, mut scores: mpsc::Receiver<RecordBatch>) -> Result<()> {
        let mut groups = std::mem::take(self.footer.list(file_field::GROUPS)?);
        for (index, group) in groups.iter_mut().enumerate() {
            let Value::Struct(group) = group else { bail!("its footer is damaged") };
            self.write_group(index, group, &mut scores)?;
        }
        *self.footer.list(file_field::GROUPS)? = groups;
        Ok(())
    }

    /// Copies a row group, and encodes the added columns behind it.
    fn write_group(
        &mut self,
        index: usize,
        group: &mut Struct,
        scores: &mut mpsc::Receiver<RecordBatch>,
    ) -> Result<()> {
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
                    group.set_number(sum, sum_before.saturating_add(part));
                }
            }
            added.push(column.clone());
        }
        let first = self.indexes.len() - width - added.len();
        if let Some(offset) = group.number(group_field::OFFSET).filter(|offset| *offset > 0) {
            let moved = self.indexes.get(first).map_or(0, |first| first.moved);
            group.set_number(group_field::OFFSET, offset.saturating_add(moved));
        }
        Ok(added)
    }

    /// Writes the page indexes and the footer.
    pub(super) fn write_footer(&mut self) -> Result<()> {
        for field in [chunk_field::COLUMN_INDEX, chunk_field::OFFSET_INDEX] {
            let mut groups = self.footer.structures(file_field::GROUPS)?;
            for of_group in self.indexes.chunk_by(|one, other| one.group == other.group) {
                let mut columns = groups[of_group[0].group].structures(group_field::COLUMNS)?;
                for index in of_group {
                    let Some(bytes) = index.encoded(field, &self.blocks)? else { continue };
                    let column = &mut *columns[index.column];
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
            of.set_number(field, offset.saturating_add(moved));
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
    let length = if let Some(length) = metadata.number(metadata_field::BLOOM_FILTER_BYTES) {
        usize::try_from(length)?
    } else {
        // The header begins with the length of what follows it.
        let most = usize::try_from(file.len().saturating_sub(start))?.min(BLOOM_HEADER_BYTES);
        let (header, header_bytes) = Struct::read(&file.get_bytes(start, most)?).context("a bloom filter")?;
        header_bytes + usize::try_from(header.number(1).context("a bloom filter has no length")?)?
    };
    metadata.set_number(metadata_field::BLOOM_FILTER, output.position as i64);
    output.write_all(&file.get_bytes(start, length)?)?;
    Ok(())
}

/// An offset index whose pages are so much further on.
fn moved_pages(bytes: &[u8], moved: i64) -> Result<Vec<u8>> {
    let (mut index, _) = Struct::read(bytes)?;
    for page in index.structures(1)? {
        let offset = page.number(1).context("a page has no place")?;
        page.set_number(1, offset.saturating_add(moved));
    }
    index.write()
}
