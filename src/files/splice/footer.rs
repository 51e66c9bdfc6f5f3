//! The footer of a Parquet file: which of its fields say where something is.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use parquet::file::reader::ChunkReader;

use crate::files::parquet_file::chunk_range;
use crate::files::thrift_value::{Struct, Value};

/// The bytes at both ends of a file.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";

/// The length of the footer, and the magic bytes.
const TAIL_BYTES: usize = 8;

/// Fields of `FileMetaData`.
pub(super) mod file_field {
    pub(in crate::files::splice) const SCHEMA: i16 = 2;
    pub(in crate::files::splice) const ROWS: i16 = 3;
    pub(in crate::files::splice) const GROUPS: i16 = 4;
    pub(in crate::files::splice) const ENTRIES: i16 = 5;
    pub(in crate::files::splice) const COLUMN_ORDERS: i16 = 7;
}

/// Fields of `SchemaElement`.
pub(super) mod schema_field {
    pub(in crate::files::splice) const CHILDREN: i16 = 5;
}

/// Fields of `RowGroup`.
pub(super) mod group_field {
    pub(in crate::files::splice) const COLUMNS: i16 = 1;
    pub(in crate::files::splice) const UNCOMPRESSED_BYTES: i16 = 2;
    pub(in crate::files::splice) const OFFSET: i16 = 5;
    pub(in crate::files::splice) const COMPRESSED_BYTES: i16 = 6;
    pub(in crate::files::splice) const ORDINAL: i16 = 7;
}

/// Fields of `ColumnChunk`.
pub(super) mod chunk_field {
    pub(in crate::files::splice) const OFFSET: i16 = 2;
    pub(in crate::files::splice) const METADATA: i16 = 3;
    /// Offset and, in the next field, length; so is the other.
    pub(in crate::files::splice) const OFFSET_INDEX: i16 = 4;
    pub(in crate::files::splice) const COLUMN_INDEX: i16 = 6;
}

/// Fields of `ColumnMetaData`.
pub(super) mod metadata_field {
    pub(in crate::files::splice) const UNCOMPRESSED_BYTES: i16 = 6;
    pub(in crate::files::splice) const COMPRESSED_BYTES: i16 = 7;
    pub(in crate::files::splice) const DATA_PAGE: i16 = 9;
    pub(in crate::files::splice) const INDEX_PAGE: i16 = 10;
    pub(in crate::files::splice) const DICTIONARY_PAGE: i16 = 11;
    pub(in crate::files::splice) const BLOOM_FILTER: i16 = 14;
    pub(in crate::files::splice) const BLOOM_FILTER_BYTES: i16 = 15;
}

/// The footer of a file, with these row groups only.
pub(super) fn read_footer(file: &impl ChunkReader, groups: &Range<usize>) -> Result<Struct> {
    let start = file.len().checked_sub(TAIL_BYTES as u64).context("it is too short")?;
    let tail = file.get_bytes(start, TAIL_BYTES)?;
    let mut length = [0; 4];
    length.copy_from_slice(&tail[..4]);
    let length = u64::from(u32::from_le_bytes(length));
    let start = start.checked_sub(length).context("its footer's length is wrong")?;
    let wanted = |field, place| field != file_field::GROUPS || groups.contains(&place);
    let (footer, _) =
        Struct::read_some(&file.get_bytes(start, length as usize)?, wanted).context("its footer cannot be read")?;
    Ok(footer)
}

/// Adds the columns of the footer `added` to the schema of another, and sets the number of rows.
pub(super) fn add_to_schema(footer: &mut Struct, mut added: Struct, rows: usize) -> Result<()> {
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
pub(super) fn range_of(column: &mut Struct) -> Result<Range<u64>> {
    let metadata = column.structure(chunk_field::METADATA)?;
    let length = metadata.number(metadata_field::COMPRESSED_BYTES).context("a column chunk has no length")?;
    let offset = |field| metadata.number(field);
    Ok(chunk_range(offset(metadata_field::DICTIONARY_PAGE), offset(metadata_field::DATA_PAGE), length))
}

/// The bytes of a page index; `None` if the chunk has none.
pub(super) fn index_range(column: &Struct, field: i16) -> Result<Option<Range<u64>>> {
    let Some(offset) = column.number(field) else { return Ok(None) };
    let length = column.number(field + 1).context("a page index has no length")?;
    let start = u64::try_from(offset).context("the place of a page index is wrong")?;
    Ok(Some(start..start.saturating_add(u64::try_from(length).context("the length of a page index is wrong")?)))
}
