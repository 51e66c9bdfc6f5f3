//! Downloads of single files into the cache.
//!
//! A download is written to a separate file, which a later attempt resumes. The file gets its final name once its
//! content has the id that the hub lists.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use super::client::{DownloadFailure, HubClient, RemoteFile, Retries};
use super::git::{BlobId, pointer_id, sha256_hex};
use super::repository::Repository;
use super::transfer::Transfer;

/// Bytes after which a broken attempt no longer counts as a failure.
const SUCCESS_BYTES: u64 = 1 << 20;

/// Downloads the files of one commit.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    pub(crate) client: &'a HubClient,
    pub(crate) repository: &'a Repository,
    pub(crate) commit: &'a str,
    pub(crate) transfer: &'a Transfer,
}

impl Download<'_> {
    /// Adds a file to the snapshot, and downloads what the cache lacks of it.
    pub(crate) async fn fetch(&self, file: &RemoteFile) -> Result<()> {
        let _lock = self.repository.lock(file).await?;
        if let Some(blob) = self.repository.blob(file) {
            self.transfer.keep(file.size_bytes);
            return self.repository.link(self.commit, file, &blob);
        }
        loop {
            let mut part = Part::open(self.repository.incomplete(file), file).await?;
            let kept_bytes = part.position;
            self.transfer.keep(kept_bytes);
            self.fill(file, &mut part).await?;
            if let Some(name) = part.name(&file.id) {
                let blob = self.repository.keep(file, &name)?;
                return self.repository.link(self.commit, file, &blob);
            }
            std::fs::remove_file(&part.path).with_context(|| format!("cannot remove {}", part.path.display()))?;
            self.transfer.lose(file.size_bytes);
            if kept_bytes == 0 {
                bail!("what was fetched is not what the hub lists (git id {}); try again", file.id);
            }
            // The part left by an earlier run was damaged.
            tracing::warn!(file = file.name, "what was there of it is not what the hub lists; fetching it anew");
        }
    }

    /// Downloads the rest of a file, with retries.
    async fn fill(&self, file: &RemoteFile, part: &mut Part) -> Result<()> {
        let mut retries = Retries::default();
        while part.position < part.size_bytes {
            let before = part.position;
            if let Err(failure) = self.append(file, part).await {
                if part.position.saturating_sub(before) >= SUCCESS_BYTES {
                    retries = Retries::default();
                }
                retries.wait(failure).await?;
            }
        }
        Ok(())
    }

    /// Downloads until the end or the first failure.
    async fn append(&self, file: &RemoteFile, part: &mut Part) -> Result<(), DownloadFailure> {
        let mut stream = self.client.open(self.commit, file, part.position).await?;
        while let Some(bytes) = self.client.next(&mut stream).await? {
            if bytes.len() as u64 > part.size_bytes - part.position {
                // A server without range requests has sent the file from the beginning.
                self.transfer.lose(part.position);
                part.restart()?;
                return Err(self.client.broken(file, "it is longer than the hub lists"));
            }
            part.write(&bytes)?;
            self.transfer.add(bytes.len() as u64);
        }
        if part.position < part.size_bytes { Err(self.client.broken(file, "it ended too early")) } else { Ok(()) }
    }
}

/// A file that is being downloaded.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    position: u64,
    size_bytes: u64,
    is_pointer: bool,
    hash: ContentHash,
}

/// The hash that names a content in the cache, computed incrementally.
#[derive(Debug)]
enum ContentHash {
    Blob(BlobId),
    Large(Sha256),
}

impl ContentHash {
    fn new(size_bytes: u64, is_pointer: bool) -> Self {
        if is_pointer { Self::Large(Sha256::new()) } else { Self::Blob(BlobId::new(size_bytes)) }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blob(id) => id.update(bytes),
            Self::Large(hash) => hash.update(bytes),
        }
    }
}

impl Part {
    /// Opens a file and hashes its existing content, which takes about a second per gigabyte.
    async fn open(path: PathBuf, file: &RemoteFile) -> Result<Self> {
        let (size_bytes, is_pointer) = (file.size_bytes, file.is_pointer);
        tokio::task::spawn_blocking(move || {
            let shown = path.display().to_string();
            Self::open_blocking(path, size_bytes, is_pointer).with_context(|| format!("cannot write {shown}"))
        })
        .await?
    }

    fn open_blocking(path: PathBuf, size_bytes: u64, is_pointer: bool) -> std::io::Result<Self> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if file.metadata()?.len() > size_bytes {
            file.set_len(0)?;
        }
        let mut hash = ContentHash::new(size_bytes, is_pointer);
        let mut buffer = vec![0; 1 << 20];
        let mut position = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self { path, file, position, size_bytes, is_pointer, hash }),
                length => {
                    hash.update(&buffer[..length]);
                    position += length as u64;
                }
            }
        }
    }

    /// Appends bytes. Does not wait for the disk, so async callers call it directly.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "; make room, or set HF_HOME to a folder elsewhere; the same command resumes it"
                }
                _ => "",
            };
            anyhow!("cannot write {}: {error}{remedy}", self.path.display())
        })?;
        self.hash.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Discards what has been written.
    fn restart(&mut self) -> Result<()> {
        let restart = self.file.set_len(0).and_then(|()| self.file.rewind());
        restart.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.position = 0;
        self.hash = ContentHash::new(self.size_bytes, self.is_pointer);
        Ok(())
    }

    /// The name of the complete content in the cache, if `expected` is its git id.
    fn name(&mut self, expected: &str) -> Option<String> {
        match std::mem::replace(&mut self.hash, ContentHash::new(self.size_bytes, self.is_pointer)) {
            ContentHash::Blob(id) => Some(id.finish()).filter(|id| id == expected),
            ContentHash::Large(hash) => {
                Some(sha256_hex(hash)).filter(|name| pointer_id(name, self.size_bytes) == expected)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const HELLO_SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn open(path: &Path, is_pointer: bool) -> Part {
        Part::open_blocking(path.to_owned(), 6, is_pointer).unwrap()
    }

    #[test]
    fn a_part_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blobs/x.incomplete");
        for is_pointer in [false, true] {
            open(&path, is_pointer).write(b"hel").unwrap();
            let mut part = open(&path, is_pointer);
            assert_eq!(part.position, 3);
            part.write(b"lo\n").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"hello\n");
            let (expected, name) =
                if is_pointer { (pointer_id(HELLO_SHA256, 6), HELLO_SHA256) } else { (HELLO.to_owned(), HELLO) };
            assert_eq!(part.name(&expected), Some(name.to_owned()));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_wrong_content_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        let mut part = open(&path, false);
        part.write(b"jello\n").unwrap();
        assert_eq!(part.name(HELLO), None);
        part.restart().unwrap();
        part.write(b"hello\n").unwrap();
        assert_eq!(part.name(HELLO), Some(HELLO.to_owned()));
        assert_eq!(std::fs::read(&path).unwrap(), b"hello\n");
        std::fs::write(&path, "much longer than the hub lists").unwrap();
        assert_eq!(open(&path, false).position, 0);
    }
}
