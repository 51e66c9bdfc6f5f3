//! A file of an object store, read in blocks by the Parquet decoder.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::location::Location;

/// Memory for the cached blocks of one file.
const CACHE_BYTES: usize = 64 << 20;

/// The largest block: about one page of the usual size.
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// The smallest block. A very wide table costs more memory before it costs more requests.
const MIN_BLOCK_BYTES: usize = 64 << 10;

/// Random access to a file for the synchronous Parquet decoder on a blocking thread.
///
/// Parquet's asynchronous reader fetches whole row groups, and a row group may be as large as its file (several writers
/// default to a million rows). This type reads the columns of a row group side by side, one block of each at a time, so
/// memory does not depend on how the input was written.
///
/// The decoder reads the columns in turns. The most recently used blocks are kept: one per column and a few more.
#[derive(Debug, Clone)]
pub(crate) struct ObjectFile {
    location: Location,
    size_bytes: u64,
    block_bytes: usize,
    blocks_kept: usize,
    /// Least recently used first.
    blocks: Arc<Mutex<Vec<(u64, Bytes)>>>,
    runtime: Handle,
}

impl ObjectFile {
    /// A file whose decoder reads `columns` leaf columns in turns.
    pub(crate) fn new(location: Location, size_bytes: u64, columns: usize, runtime: Handle) -> Self {
        let blocks_kept = columns + 2;
        let block_bytes = (CACHE_BYTES / blocks_kept).clamp(MIN_BLOCK_BYTES, MAX_BLOCK_BYTES);
        Self { location, size_bytes, block_bytes, blocks_kept, blocks: Arc::default(), runtime }
    }

    /// The same file for a decoder that reads this many leaf columns in turns.
    pub(crate) fn with_columns(&self, columns: usize) -> Self {
        Self::new(self.location.clone(), self.size_bytes, columns, self.runtime.clone())
    }

    /// Returns a block from memory or from the store.
    fn block(&self, number: u64) -> io::Result<Bytes> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = blocks.iter().position(|(kept, _)| *kept == number) {
            let block = blocks.remove(position);
            let bytes = block.1.clone();
            blocks.push(block);
            return Ok(bytes);
        }
        let start = number * self.block_bytes as u64;
        let end = (start + self.block_bytes as u64).min(self.size_bytes);
        let bytes = self.fetch(start..end)?;
        if blocks.len() == self.blocks_kept {
            blocks.remove(0);
        }
        blocks.push((number, bytes.clone()));
        Ok(bytes)
    }

    /// Fetches bytes that are read only once. They are not cached.
    pub(crate) fn get_range(&self, start: u64, length: usize) -> Result<Bytes> {
        let range = start..start.saturating_add(length as u64);
        self.check(range.clone())?;
        Ok(self.fetch(range)?)
    }

    fn fetch(&self, range: Range<u64>) -> io::Result<Bytes> {
        let bytes = self.runtime.block_on(self.location.store.get_range(&self.location.path, range.clone()))?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        Ok(bytes)
    }

    /// The bytes from `position` to the end of its block; none at the end of the file.
    fn rest_of_block(&self, position: u64) -> io::Result<Bytes> {
        if position >= self.size_bytes {
            return Ok(Bytes::new());
        }
        let block_bytes = self.block_bytes as u64;
        Ok(self.block(position / block_bytes)?.slice((position % block_bytes) as usize..))
    }

    fn check(&self, range: Range<u64>) -> Result<()> {
        if range.end <= self.size_bytes {
            return Ok(());
        }
        Err(ParquetError::EOF(format!("bytes {range:?} were expected in a file of {}", self.size_bytes)))
    }
}

impl Length for ObjectFile {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for ObjectFile {
    type T = ObjectFileReader;

    fn get_read(&self, start: u64) -> Result<ObjectFileReader> {
        self.check(start..start)?;
        Ok(ObjectFileReader { file: self.clone(), position: start, ahead: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.check(start..start.saturating_add(length as u64))?;
        let first = self.rest_of_block(start)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&first);
        while bytes.len() < length {
            let next = self.rest_of_block(start + bytes.len() as u64)?;
            bytes.extend_from_slice(&next[..next.len().min(length - bytes.len())]);
        }
        Ok(bytes.into())
    }
}

/// Reads a file sequentially from a position.
pub(crate) struct ObjectFileReader {
    file: ObjectFile,
    /// The position after `ahead`.
    position: u64,
    /// Bytes fetched but not read yet.
    ahead: Bytes,
}

impl Read for ObjectFileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            self.ahead = self.file.rest_of_block(self.position)?;
            self.position += self.ahead.len() as u64;
        }
        let length = buffer.len().min(self.ahead.len());
        buffer[..length].copy_from_slice(&self.ahead.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `bytes` bytes in blocks of 64 KiB, of which `columns + 2` are kept.
    fn file(bytes: usize, columns: usize) -> (tokio::runtime::Runtime, ObjectFile, Vec<u8>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let content: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
        let location = Location::parse("memory:///file").unwrap();
        runtime.block_on(location.store.put(&location.path, content.clone().into())).unwrap();
        let mut file = ObjectFile::new(location, bytes as u64, columns, runtime.handle().clone());
        file.block_bytes = MIN_BLOCK_BYTES;
        (runtime, file, content)
    }

    #[test]
    fn ranges_within_and_across_blocks() {
        let (_runtime, file, content) = file(3 * MIN_BLOCK_BYTES + 7, 1);
        for (start, length) in [(0, 5), (MIN_BLOCK_BYTES - 1, 2), (10, 3 * MIN_BLOCK_BYTES - 10), (0, content.len())] {
            assert_eq!(file.get_bytes(start as u64, length).unwrap(), content[start..start + length]);
        }
        assert!(file.get_bytes(content.len() as u64, 1).is_err());
        assert!(file.get_bytes(u64::MAX, 2).is_err());
    }

    #[test]
    fn reads_onward_to_the_end() {
        let (_runtime, file, content) = file(2 * MIN_BLOCK_BYTES + 9, 1);
        let mut rest = Vec::new();
        file.get_read(100).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, content[100..]);
    }

    #[test]
    fn keeps_no_more_blocks_than_it_may() {
        let (_runtime, file, content) = file(8 * MIN_BLOCK_BYTES, 1);
        file.get_bytes(0, content.len()).unwrap();
        let kept: Vec<u64> = file.blocks.lock().unwrap().iter().map(|(number, _)| *number).collect();
        assert_eq!(kept, [5, 6, 7]);
    }

    #[test]
    fn wide_tables_have_smaller_blocks() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let block_bytes = |columns| {
            let location = Location::parse("memory:///file").unwrap();
            ObjectFile::new(location, 0, columns, runtime.handle().clone()).block_bytes
        };
        assert_eq!(block_bytes(5), MAX_BLOCK_BYTES);
        assert_eq!(block_bytes(254), CACHE_BYTES / 256);
        assert_eq!(block_bytes(100_000), MIN_BLOCK_BYTES);
    }
}
