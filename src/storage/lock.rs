//! Who is at work on a job, where the file system can tell.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Held while a process works on a job; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// What was found when the lock was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// No other process holds it.
    None,
    /// Another process does.
    AtWork,
    /// This file system has no locks.
    Unknown,
}

impl Lock {
    /// Opens the file that the lock is on and tells whether others hold it. If there are none, they are kept out until
    /// [`Self::share`] is called.
    pub(crate) fn new(path: &Path) -> io::Result<(Self, Others)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let others = match file.try_lock() {
            Ok(()) => Others::None,
            Err(TryLockError::WouldBlock) => Others::AtWork,
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "no locks here");
                Others::Unknown
            }
        };
        Ok((Self { file }, others))
    }

    /// Lets others in; they see from now on that this process is at work.
    pub(crate) fn share(&self) {
        // Not all systems turn one kind into the other.
        let shared = self.file.unlock().and_then(|()| self.file.lock_shared());
        if let Err(error) = shared {
            tracing::debug!(%error, "no locks here");
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
}
