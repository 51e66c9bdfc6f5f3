//! How a download writes to the cache.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use datafusion_rerank::{HubCache, HubRepository};

use super::files::is_complete;
use super::git::pointer_id;
use super::{HubModel, RemoteFile};

/// How often to retry a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(250);

/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// The part of the cache that belongs to one model.
#[derive(Debug)]
pub(crate) struct Repository {
    places: HubRepository,
}

impl Repository {
    pub(crate) fn new(cache: &HubCache, model: &HubModel) -> Self {
        Self { places: cache.repository(model.id()) }
    }

    /// The folder of a commit's files, by their names.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.places.snapshot(commit)
    }

    /// The folder of a branch, a tag or a commit, if it has every file that scoring needs.
    pub(crate) fn complete_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = self.places.commit(revision).unwrap_or_else(|| revision.to_owned());
        Some(self.snapshot(&commit)).filter(|folder| is_complete(folder))
    }

    /// The content of a file, if the cache has it from this or any other revision.
    pub(super) fn blob(&self, file: &RemoteFile) -> Option<PathBuf> {
        let is_whole = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.len() == file.size_bytes);
        let blobs = self.places.blobs();
        let by_id = blobs.join(&file.id);
        if is_whole(&by_id) {
            return Some(by_id);
        }
        // A large file is named by its SHA-256, which the hub lists only as the id of the pointer to it.
        std::fs::read_dir(blobs).ok()?.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == SHA256_DIGITS && is_whole(path) && pointer_id(name, file.size_bytes) == file.id
        })
    }

    /// Whether a snapshot has a file.
    pub(crate) fn has(&self, commit: &str, file: &RemoteFile) -> bool {
        std::fs::metadata(self.snapshot(commit).join(&file.name)).is_ok_and(|meta| meta.len() == file.size_bytes)
    }

    /// Where a file is written during its download. The next process resumes the file of a killed one.
    pub(super) fn incomplete(&self, file: &RemoteFile) -> PathBuf {
        self.places.blobs().join(format!("{}.incomplete", file.id))
    }

    /// Moves a complete download to its place.
    pub(super) fn keep(&self, file: &RemoteFile, blob_name: &str) -> Result<PathBuf> {
        let blob = self.places.blobs().join(blob_name);
        std::fs::rename(self.incomplete(file), &blob).with_context(|| format!("cannot make {}", blob.display()))?;
        Ok(blob)
    }

    /// Links a file of a snapshot to its content.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile, blob: &Path) -> Result<()> {
        let folder = self.snapshot(commit);
        let link = folder.join(&file.name);
        let make = || {
            std::fs::create_dir_all(&folder)?;
            if link.symlink_metadata().is_ok() {
                std::fs::remove_file(&link)?;
            }
            point(&link, blob)
        };
        make().with_context(|| format!("cannot make {}", link.display()))
    }

    /// Records the commit that a branch or tag points to.
    pub(crate) fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let refs = self.places.refs();
        let file = refs.join(revision);
        let write = || {
            std::fs::create_dir_all(file.parent().unwrap_or(&refs))?;
            std::fs::write(&file, commit)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// Waits until no other process is downloading this file. The lock is released when the result is dropped or the
    /// process ends.
    pub(super) async fn lock(&self, file: &RemoteFile) -> Result<File> {
        let folder = self.places.locks();
        let path = folder.join(format!("{}.lock", file.id));
        let open = || {
            std::fs::create_dir_all(folder)?;
            File::create(&path)
        };
        let lock = open().with_context(|| format!("cannot make {}", path.display()))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
                // Without locks, two processes may download a file concurrently; each verifies its result.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, "the file system has no locks");
                    return Ok(lock);
                }
            }
        }
    }
}

/// Makes a relative link, so that the cache can be moved.
#[cfg(unix)]
fn point(link: &Path, blob: &Path) -> std::io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), link)
}

/// Links need privileges on some systems: falls back to a second name, or a copy.
#[cfg(not(unix))]
fn point(link: &Path, blob: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, link).or_else(|_| std::fs::copy(blob, link).map(|_| ()))
}
