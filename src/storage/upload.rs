//! Files that appear complete or not at all.

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use object_store::{MultipartUpload, ObjectMeta, ObjectStoreExt, PutPayload};
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::ParquetError;

use super::location::Location;

/// Bytes per part of an upload. S3 allows 10,000 parts, and only the last may be below 5 MiB.
const PART_BYTES: usize = 16 << 20;

/// A file that appears once it is complete. A small file is a single request, a larger one a multipart upload. On a
/// local file system, that is a file beside the target that is renamed at the end.
///
/// Unlike [`object_store::buffered::BufWriter`], it can be aborted in every state, even after it failed to complete.
pub(crate) struct Upload {
    location: Location,
    replaces: Replaces,
    parts: Option<Box<dyn MultipartUpload>>,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    size_bytes: u64,
    /// The entity tag of the file that a multipart upload replaces.
    old_etag: Option<String>,
    etag: Option<String>,
}

/// Which existing file a new one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaces {
    /// Any.
    Any,
    /// None: what exists was made by another process.
    Nothing,
    /// One of the same size: it has the same content.
    Same,
}

impl Replaces {
    /// # Errors
    /// If a file exists that a file of `size_bytes` bytes may not replace.
    pub(crate) async fn check(self, location: &Location, size_bytes: u64) -> object_store::Result<()> {
        if self == Self::Any {
            return Ok(());
        }
        match location.store.head(&location.path).await {
            Ok(found) if self == Self::Same && found.size == size_bytes => Ok(()),
            Ok(_) => Err(object_store::Error::AlreadyExists {
                path: location.to_string(),
                source: "another process made it during the run; it was not replaced".into(),
            }),
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) size_bytes: u64,
    /// The store's entity tag, if it has one.
    pub(crate) etag: Option<String>,
}

impl Upload {
    /// A file that replaces any other at its location.
    pub(crate) fn new(location: Location) -> Self {
        Self {
            location,
            replaces: Replaces::Any,
            parts: None,
            buffered: Vec::new(),
            buffered_bytes: 0,
            size_bytes: 0,
            old_etag: None,
            etag: None,
        }
    }

    pub(crate) fn replacing(self, replaces: Replaces) -> Self {
        Self { replaces, ..self }
    }

    pub(crate) async fn put(&mut self, mut bytes: Bytes) -> object_store::Result<()> {
        self.size_bytes += bytes.len() as u64;
        while self.buffered_bytes + bytes.len() >= PART_BYTES {
            // Some stores require all parts but the last to have the same size.
            self.buffered.push(bytes.split_to(PART_BYTES - self.buffered_bytes));
            self.put_part().await?;
        }
        if !bytes.is_empty() {
            self.buffered_bytes += bytes.len();
            self.buffered.push(bytes);
        }
        Ok(())
    }

    async fn put_part(&mut self) -> object_store::Result<()> {
        self.buffered_bytes = 0;
        let part = PutPayload::from_iter(std::mem::take(&mut self.buffered));
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                self.old_etag = look(&self.location).await.and_then(|file| file.e_tag);
                none.insert(self.location.store.put_multipart(&self.location.path).await?)
            }
        };
        parts.put_part(part).await
    }

    /// Uploads the rest and makes the file appear.
    pub(crate) async fn finish(&mut self) -> object_store::Result<()> {
        self.replaces.check(&self.location, self.size_bytes).await?;
        if self.parts.is_some() && self.buffered_bytes > 0 {
            self.put_part().await?;
        }
        self.etag = if let Some(parts) = &mut self.parts {
            match parts.complete().await {
                Ok(result) => result.e_tag,
                // If the response to a completion is lost, the request is retried, and the store no longer knows the
                // upload. The file exists nevertheless.
                Err(error) => {
                    let file = look(&self.location).await.filter(|file| file.size == self.size_bytes);
                    let etag = file.and_then(|file| file.e_tag).filter(|etag| Some(etag) != self.old_etag.as_ref());
                    Some(etag.ok_or(error)?)
                }
            }
        } else {
            // A small file costs one request and leaves no parts behind if the process is killed.
            let content = PutPayload::from_iter(std::mem::take(&mut self.buffered));
            self.location.store.put(&self.location.path, content).await?.e_tag
        };
        self.parts = None;
        Ok(())
    }

    /// The size and entity tag of the file.
    pub(crate) fn written(self) -> Written {
        Written { size_bytes: self.size_bytes, etag: self.etag }
    }

    /// Removes the uploaded parts.
    pub(crate) async fn abort(mut self) -> object_store::Result<()> {
        match &mut self.parts {
            Some(parts) => parts.abort().await,
            None => Ok(()),
        }
    }
}

/// The file's metadata, if the file exists and the store answers.
async fn look(location: &Location) -> Option<ObjectMeta> {
    location.store.head(&location.path).await.ok()
}

impl AsyncFileWriter for Upload {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.put(bytes).await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.finish().await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }
}

/// Writes a small file. It appears once it is complete.
pub(crate) async fn write_small(location: &Location, content: Vec<u8>) -> Result<()> {
    let payload = PutPayload::from(content);
    location.store.put(&location.path, payload).await.with_context(|| format!("cannot write {location}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_memory() -> Location {
        Location::parse("memory:///out/file").unwrap()
    }

    async fn content(location: &Location) -> Vec<u8> {
        location.store.get(&location.path).await.unwrap().bytes().await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn parts_make_up_the_file() {
        let location = in_memory();
        let mut upload = Upload::new(location.clone());
        let mut expected = Vec::new();
        for (byte, length) in [(1_u8, 5), (2, 2 * PART_BYTES), (3, 0), (4, PART_BYTES - 5), (5, 7)] {
            upload.put(vec![byte; length].into()).await.unwrap();
            expected.extend(vec![byte; length]);
            assert!(upload.buffered_bytes < PART_BYTES);
            assert_eq!(upload.buffered.iter().map(Bytes::len).sum::<usize>(), upload.buffered_bytes);
        }
        assert_eq!(location.file_size_bytes().await.unwrap(), None, "visible before it is complete");
        upload.finish().await.unwrap();
        assert_eq!(content(&location).await, expected);
    }

    #[tokio::test]
    async fn an_aborted_upload_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().join("out/file").to_str().unwrap()).unwrap();
        let mut upload = Upload::new(location.clone());
        upload.put(vec![0; PART_BYTES + 1].into()).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
        upload.abort().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
        Upload::new(location).abort().await.unwrap();
    }

    #[tokio::test]
    async fn small_files_replace_older_ones() {
        let location = in_memory();
        for text in ["one", "two"] {
            write_small(&location, text.into()).await.unwrap();
            assert_eq!(content(&location).await, text.as_bytes());
        }
    }
}
