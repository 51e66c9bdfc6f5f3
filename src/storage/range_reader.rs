//! Reads long ranges of a file once, from their beginning to their end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{GetOptions, GetRange, GetResultPayload};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::location::Location;

/// Ranges that are no further apart are read with one request, and the bytes between them are dropped.
const LARGEST_GAP_BYTES: u64 = 1 << 20;

/// Streams the ranges of a file that are announced, on a thread that may block. Memory holds what the store sends at
/// once.
///
/// Column chunks usually lie behind each other, so that one request reads all those of a row group.
pub(crate) struct RangeReader {
    location: Location,
    size_bytes: u64,
    /// Where requests end, sorted; see [`Self::announce`].
    spans: Vec<Range<u64>>,
    open: Arc<Mutex<Option<OpenRange>>>,
    runtime: Handle,
}

/// A request whose response is being read.
struct OpenRange {
    position: u64,
    end: u64,
    body: Body,
}

enum Body {
    File(File),
    Stream { stream: BoxStream<'static, object_store::Result<Bytes>>, ahead: Bytes },
}

impl RangeReader {
    pub(crate) fn new(location: Location, size_bytes: u64, runtime: Handle) -> Self {
        Self { location, size_bytes, spans: Vec::new(), open: Arc::default(), runtime }
    }

    /// Says which ranges will be read next, so that neighbours share a request.
    pub(crate) fn announce(&mut self, ranges: impl IntoIterator<Item = Range<u64>>) {
        let mut ranges: Vec<Range<u64>> = ranges.into_iter().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        self.spans.clear();
        for range in ranges {
            match self.spans.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(LARGEST_GAP_BYTES) => {
                    last.end = last.end.max(range.end);
                }
                _ => self.spans.push(range),
            }
        }
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The end of the request that begins here.
    fn end_of(&self, start: u64) -> u64 {
        let span = self.spans.iter().find(|span| span.contains(&start));
        span.map_or(self.size_bytes, |span| span.end).min(self.size_bytes)
    }

    fn request(&self, range: Range<u64>) -> io::Result<OpenRange> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = self.runtime.block_on(self.location.store.get_opts(&self.location.path, options))?;
        let body = match result.payload {
            GetResultPayload::File(mut file, _) => {
                file.seek(SeekFrom::Start(range.start))?;
                Body::File(file)
            }
            GetResultPayload::Stream(stream) => Body::Stream { stream, ahead: Bytes::new() },
        };
        Ok(OpenRange { position: range.start, end: range.end, body })
    }
}

impl OpenRange {
    /// Reads what is at hand. Returns 0 at the end of the response.
    fn read(&mut self, buffer: &mut [u8], runtime: &Handle) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
        let count = match &mut self.body {
            Body::File(file) => file.read(&mut buffer[..wanted])?,
            Body::Stream { stream, ahead } => {
                while ahead.is_empty() && wanted > 0 {
                    match runtime.block_on(stream.next()) {
                        Some(bytes) => *ahead = bytes?,
                        None => break,
                    }
                }
                let count = wanted.min(ahead.len());
                buffer[..count].copy_from_slice(&ahead.split_to(count));
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }

    /// Drops the bytes before a position.
    fn skip_to(&mut self, position: u64, runtime: &Handle) -> io::Result<()> {
        let mut dropped = [0; 4096];
        while self.position < position {
            let count = dropped.len().min(usize::try_from(position - self.position).unwrap_or(usize::MAX));
            if self.read(&mut dropped[..count], runtime)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

impl Length for RangeReader {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for RangeReader {
    type T = RangeRead;

    fn get_read(&self, start: u64) -> Result<RangeRead> {
        if start > self.size_bytes {
            return Err(ParquetError::EOF(format!("byte {start} was expected in a file of {}", self.size_bytes)));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let reaches =
            |open: &OpenRange| open.position <= start && start - open.position <= LARGEST_GAP_BYTES && start < open.end;
        match open.as_mut().filter(|open| reaches(open)) {
            Some(open) => open.skip_to(start, &self.runtime)?,
            None if start == self.size_bytes => *open = None,
            None => *open = Some(self.request(start..self.end_of(start))?),
        }
        drop(open);
        Ok(RangeRead { open: Arc::clone(&self.open), runtime: self.runtime.clone() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Reads on where [`RangeReader::get_read`] was asked to begin. Only the latest of them may be used.
pub(crate) struct RangeRead {
    open: Arc<Mutex<Option<OpenRange>>>,
    runtime: Handle,
}

impl Read for RangeRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_mut().map_or(Ok(0), |open| open.read(buffer, &self.runtime))
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn readers() -> (tokio::runtime::Runtime, tempfile::TempDir, [RangeReader; 2], Vec<u8>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3_000_000).map(|i| (i * 31 % 251) as u8).collect();
        let reader = |location: Location| {
            runtime.block_on(location.store.put(&location.path, content.clone().into())).unwrap();
            RangeReader::new(location, content.len() as u64, runtime.handle().clone())
        };
        let local = Location::parse(folder.path().join("file").to_str().unwrap()).unwrap();
        let readers = [reader(local), reader(Location::parse("memory:///file").unwrap())];
        (runtime, folder, readers, content)
    }

    #[test]
    fn announced_ranges_are_read_in_order_or_not() {
        let (_runtime, _folder, readers, content) = readers();
        for mut reader in readers {
            reader.announce([2_900_000..3_000_000, 10..20, 20..500_000, 600_000..700_000]);
            assert_eq!(reader.spans, [10..700_000, 2_900_000..3_000_000]);
            for range in [10..20, 20..500_000, 600_000..700_000, 2_900_000..3_000_000, 15..700_000, 0..5] {
                let mut read = Vec::new();
                let length = (range.end - range.start) as u64;
                reader.get_read(range.start as u64).unwrap().take(length).read_to_end(&mut read).unwrap();
                assert!(read == content[range.clone()], "{range:?}");
                assert_eq!(reader.get_bytes(range.start as u64, read.len()).unwrap(), read);
            }
            assert_eq!(reader.get_read(3_000_000).unwrap().read(&mut [0; 4]).unwrap(), 0);
            assert!(reader.get_read(3_000_001).is_err());
            assert!(reader.get_bytes(2_999_999, 2).is_err());
        }
    }
}
