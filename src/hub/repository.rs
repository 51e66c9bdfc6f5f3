//! How files get into the cache.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::RemoteFile;
use super::cache::Repository;
use super::git::pointer_id;

/// How often it is looked whether another process has finished.
const LOCK_INTERVAL: Duration = Duration::from_millis(250);

/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

impl Repository {
    /// The content of a file, if the cache has it, for whichever revision it was fetched.
    pub(super) fn blob(&self, file: &RemoteFile) -> Option<PathBuf> {
        let whole = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.len() == file.size_bytes);
        let blobs = self.folder.join("blobs");
        let by_id = blobs.join(&file.id);
        if whole(&by_id) {
            return Some(by_id);
        }
        // Large files are called by their SHA-256, which the hub's listing only gives in the id of their pointers.
        std::fs::read_dir(blobs).ok()?.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == SHA256_DIGITS && whole(path) && pointer_id(name, file.size_bytes) == file.id
        })
    }

    /// Whether a snapshot has a file.
    pub(crate) fn has(&self, commit: &str, file: &RemoteFile) -> bool {
        std::fs::metadata(self.snapshot(commit).join(&file.name)).is_ok_and(|meta| meta.len() == file.size_bytes)
    }

    /// Where a file is while it is fetched. A process that is killed leaves it there for the next.
    pub(super) fn incomplete(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", file.id))
    }

    /// Puts a file that has been fetched in its place.
    pub(super) fn keep(&self, file: &RemoteFile, blob_name: &str) -> Result<PathBuf> {
        let blob = self.folder.join("blobs").join(blob_name);
        std::fs::rename(self.incomplete(file), &blob).with_context(|| format!("cannot make {}", blob.display()))?;
        Ok(blob)
    }

    /// Gives a content its name in a snapshot.
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

    /// Notes which commit a branch or tag is.
    pub(crate) fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let file = self.folder.join("refs").join(revision);
        let write = || {
            std::fs::create_dir_all(file.parent().unwrap_or(&self.folder))?;
            std::fs::write(&file, commit)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// Waits until no other process fetches this file. The lock ends with the result, or with the process.
    pub(super) async fn lock(&self, file: &RemoteFile) -> Result<File> {
        let path = self.locks.join(format!("{}.lock", file.id));
        let open = || {
            std::fs::create_dir_all(&self.locks)?;
            File::create(&path)
        };
        let lock = open().with_context(|| format!("cannot make {}", path.display()))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
                // Without locks two processes may fetch a file at once; what they make of it is checked.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, "no locks here");
                    return Ok(lock);
                }
            }
        }
    }
}

/// A relative link, so that the cache may be moved.
#[cfg(unix)]
fn point(link: &Path, blob: &Path) -> std::io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), link)
}

/// Links need privileges on some systems: there it is a second name, or a copy.
#[cfg(not(unix))]
fn point(link: &Path, blob: &Path) -> std::io::Result<()> {
    std::fs::hard_link(blob, link).or_else(|_| std::fs::copy(blob, link).map(|_| ()))
}
