//! Arrow IPC files (`.arrow`, `.feather`), read one record batch at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, MetadataVersion, convert, root_as_footer, root_as_message};
use parquet::file::reader::{ChunkReader, Length};

use super::group::Group;
use crate::storage::ObjectFile;

/// Bytes after the footer: its length and the magic number.
const TRAILER_BYTES: usize = 10;

/// The marker before a message's length; older writers omit it.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];

/// The footer of a file.
#[derive(Debug)]
pub(crate) struct ArrowFile {
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
    groups: Vec<Group>,
}

impl ArrowFile {
    /// Reads the footer and the header of each record batch. Blocks.
    pub(crate) fn open(file: &ObjectFile) -> Result<Self, ArrowError> {
        let size = file.len();
        let trailer = size
            .checked_sub(TRAILER_BYTES as u64)
            .ok_or_else(|| ArrowError::ParseError(format!("{size} bytes are too few")))?;
        let mut length = [0; TRAILER_BYTES];
        length.copy_from_slice(&file.get_bytes(trailer, TRAILER_BYTES)?);
        let length = read_footer_length(length).map_err(|error| {
            ArrowError::ParseError(format!(
                "{error}; a stream (.arrows) cannot be read in parts, write the file format"
            ))
        })?;
        let start = trailer.checked_sub(length as u64).ok_or_else(|| wrong("its footer's length"))?;
        let footer = file.get_bytes(start, length)?;
        let footer = root_as_footer(&footer).map_err(|error| ArrowError::ParseError(format!("footer: {error}")))?;
        let schema = footer.schema().ok_or_else(|| wrong("its schema"))?;
        let batches: Vec<Block> = footer.recordBatches().ok_or_else(|| wrong("its batches"))?.iter().copied().collect();
        let groups = batches.iter().map(|block| group(file, block)).collect::<Result<_, _>>()?;
        Ok(Self {
            schema: Arc::new(convert::fb_to_schema(schema)),
            version: footer.version(),
            dictionaries: footer.dictionaries().map(|blocks| blocks.iter().copied().collect()).unwrap_or_default(),
            batches,
            groups,
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A group is a record batch.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Reads record batches of the file that was passed to `open`. Blocks.
    pub(crate) fn read(
        &self,
        file: ObjectFile,
        batches: Range<usize>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<>, ArrowError> {
        let mut decoder = FileDecoder::new(Arc::clone(&self.schema), self.version);
        for block in &self.dictionaries {
            decoder.read_dictionary(block, &read_block(&file, block)?)?;
        }
        let blocks = self.batches[batches].to_vec();
        Ok(blocks.into_iter().filter_map(move |block| {
            let batch = read_block(&file, &block).and_then(|bytes| decoder.read_record_batch(&block, &bytes));
            batch.transpose()
        }))
    }
}

/// Rows and bytes of a record batch.
fn group(file: &ObjectFile, block: &Block) -> Result<Group, ArrowError> {
    let (start, header, body) = place(block)?;
    let bytes = file.get_range(start, header)?;
    let skipped = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
    let message = bytes.get(skipped..).ok_or_else(|| wrong("a batch's header"))?;
    let message = root_as_message(message).map_err(|error| ArrowError::ParseError(format!("batch: {error}")))?;
    let rows = message.header_as_record_batch().ok_or_else(|| wrong("a batch's header"))?.length();
    Ok(Group { rows: rows.unsigned_abs(), bytes: (header + body) as u64 })
}

fn read_block(file: &ObjectFile, block: &Block) -> Result<Buffer, ArrowError> {
    let (start, header, body) = place(block)?;
    Ok(Buffer::from(file.get_range(start, header + body)?))
}

/// The start of a block, and the lengths of its header and body in bytes.
fn place(block: &Block) -> Result<(u64, usize, usize), ArrowError> {
    let place = || {
        let (start, header) = (u64::try_from(block.offset()).ok()?, usize::try_from(block.metaDataLength()).ok()?);
        Some((start, header, usize::try_from(block.bodyLength()).ok()?))
    };
    place().ok_or_else(|| wrong("a block's place"))
}

fn wrong(what: &str) -> ArrowError {
    ArrowError::ParseError(format!("{what} is missing or wrong; the file is damaged"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, StringArray};
    use arrow_ipc::writer::FileWriter;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::storage::Location;

    fn batch(range: Range<i64>) -> RecordBatch {
        let keys = Int32Array::from_iter_values(range.clone().map(|i| (i % 2) as i32));
        let words = DictionaryArray::new(keys, Arc::new(StringArray::from(vec!["even", "odd"])));
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef),
            ("word", Arc::new(words)),
        ])
        .unwrap()
    }

    fn stored(content: Vec<u8>) -> (tokio::runtime::Runtime, ObjectFile) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let location = Location::parse("memory:///file").unwrap();
        let size = content.len() as u64;
        runtime.block_on(location.store.put(&location.path, content.into())).unwrap();
        let file = ObjectFile::new(location, size, 1, runtime.handle().clone());
        (runtime, file)
    }

    fn written() -> Vec<u8> {
        let mut writer = FileWriter::try_new(Vec::new(), &batch(0..1).schema()).unwrap();
        for range in [0..4, 4..4, 4..10] {
            writer.write(&batch(range)).unwrap();
        }
        writer.into_inner().unwrap()
    }

    #[test]
    fn batches_are_read_alone() {
        let (_runtime, file) = stored(written());
        let arrow = ArrowFile::open(&file).unwrap();
        assert_eq!(arrow.groups().iter().map(|group| group.rows).collect::<Vec<_>>(), [4, 0, 6]);
        assert_eq!(*arrow.schema(), batch(0..1).schema());
        let read: Vec<RecordBatch> = arrow.read(file.clone(), 2..3).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, [batch(4..10)]);
        assert_eq!(arrow.read(file, 0..3).unwrap().count(), 3);
    }

    #[test]
    fn what_is_no_arrow_file_is_refused() {
        for (content, expected) in [
            (b"short".to_vec(), "too few"),
            (b"this is long enough but no Arrow file".to_vec(), "write the file format"),
            ([&[0xff; 4][..], b"ARROW1"].concat(), ""),
        ] {
            let (_runtime, file) = stored(content);
            let error = ArrowFile::open(&file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
