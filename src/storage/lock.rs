//! Locks that show processes working on the same job, file or folder to each other. Not every file system has locks.

#[cfg(unix)]
use std::fs::Metadata;
use std::fs::{File, OpenOptions, TryLockError, create_dir_all};
use std::io;
use std::path::Path;

/// Held while a process works. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// The result of asking for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// No other process holds it.
    None,
    /// Another process holds it.
    AtWork,
    /// This file system has no locks.
    Unknown,
}

impl Lock {
    /// Opens the lock's file and returns whether others hold the lock. If nobody does, excludes others until
    /// [`Self::share`] is called.
    pub(crate) fn new(path: &Path) -> io::Result<(Self, Others)> {
        Ok(Self::ask(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// Like [`Self::new`], but creates the file if it is missing. The holder of the lock may delete the file.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, Others)> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let (lock, others) = Self::ask(file);
            // Between opening and locking, another process may have deleted the file; the next one would create and
            // lock a new one.
            if others != Others::None || lock.is_on(path) {
                return Ok((lock, others));
            }
        }
    }

    fn ask(file: File) -> (Self, Others) {
        let others = others(file.try_lock());
        (Self { file }, others)
    }

    /// Whether this path still names the locked file.
    #[cfg(unix)]
    pub(crate) fn is_on(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;

        let id = |file: io::Result<Metadata>| file.ok().map(|file| (file.dev(), file.ino()));
        let own = id(self.file.metadata());
        own.is_some() && own == id(std::fs::metadata(path))
    }

    /// Whether a file still exists at this path.
    #[cfg(not(unix))]
    pub(crate) fn is_on(&self, path: &Path) -> bool {
        path.exists()
    }

    /// Locks a file that exists only for locking, and creates it if it is missing. `alone` excludes everybody else;
    /// otherwise the lock is shared. [`Others::AtWork`] means that the lock was not granted.
    pub(crate) fn gate(path: &Path, alone: bool) -> io::Result<(Self, Others)> {
        path.parent().map_or(Ok(()), create_dir_all)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let others = others(if alone { file.try_lock() } else { file.try_lock_shared() });
        Ok((Self { file }, others))
    }

    /// Shares the lock. From now on, others can join and see that this process is working.
    pub(crate) fn share(&self) {
        // Not all systems can downgrade a lock in place.
        let shared = self.file.unlock().and_then(|()| self.file.lock_shared());
        if let Err(error) = shared {
            tracing::debug!(%error, "no locks here");
        }
    }
}

/// Interprets the result of an attempt to lock.
fn others(locked: Result<(), TryLockError>) -> Others {
    match locked {
        Ok(()) => Others::None,
        Err(TryLockError::WouldBlock) => Others::AtWork,
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "no locks here");
            Others::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_see_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let (first, others) = Lock::new(&path).unwrap();
        assert_eq!(others, Others::None);
        first.share();
        let (second, others) = Lock::new(&path).unwrap();
        assert_eq!(others, Others::AtWork);
        second.share();
        drop(first);
        assert_eq!(Lock::new(&path).unwrap().1, Others::AtWork);
        drop(second);
        assert_eq!(Lock::new(&path).unwrap().1, Others::None);
    }

    #[test]
    fn a_file_that_was_deleted_is_locked_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (first, others) = Lock::create(&path).unwrap();
        assert_eq!(others, Others::None);
        assert!(first.is_on(&path));
        assert_eq!(Lock::create(&path).unwrap().1, Others::AtWork);
        std::fs::remove_file(&path).unwrap();
        assert!(!first.is_on(&path));
        let (second, others) = Lock::create(&path).unwrap();
        assert_eq!(others, Others::None);
        assert!(second.is_on(&path));
        #[cfg(unix)]
        assert!(!first.is_on(&path));
    }

    #[test]
    fn a_gate_lets_many_through_or_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/gate");
        let enter = |alone| {
            let (lock, others) = Lock::gate(&path, alone).unwrap();
            (others == Others::None).then_some(lock)
        };
        let (first, second) = (enter(false), enter(false));
        assert!(first.is_some() && second.is_some() && enter(true).is_none());
        drop((first, second));
        let alone = enter(true);
        assert!(alone.is_some() && enter(false).is_none() && enter(true).is_none());
    }
}
