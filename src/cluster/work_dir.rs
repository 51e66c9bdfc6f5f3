//! The working folder of an executor.
//!
//! Ballista deletes all folders in its working folder when it ends, and old ones while it runs. So it gets a folder
//! that nothing else uses:
//!
//! ```text
//! DIR/rerank-executor-Xy12ab/executor.lock     locked while the executor runs
//! DIR/rerank-executor-Xy12ab/work/             Ballista's working folder
//! ```

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::storage::{Lock, Others};

/// The prefix of executors' folders.
const PREFIX: &str = "rerank-executor-";

/// Its lock shows whether an executor is running; its presence, that the folder belongs to an executor.
const LOCK: &str = "executor.lock";

/// Ballista's working folder.
const WORK: &str = "work";

/// A folder for this executor alone. It is removed on drop.
#[derive(Debug)]
pub(crate) struct WorkDir {
    folder: PathBuf,
    work: PathBuf,
    /// Held until the folder is gone.
    _lock: Lock,
}

impl WorkDir {
    /// Creates a folder in `parent`, and removes the folders of killed executors there.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let context = || format!("cannot make a folder in {}; name another with --work-dir", parent.display());
        std::fs::create_dir_all(parent).with_context(context)?;
        sweep(parent);
        loop {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).with_context(context)?.keep();
            match Lock::create(&folder.join(LOCK)) {
                // Before the lock was taken, another executor considered this folder abandoned. That one removes it.
                Ok((_, Others::AtWork)) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Ok((lock, _)) => {
                    let work = folder.join(WORK);
                    let this = Self { folder, work, _lock: lock };
                    std::fs::create_dir(&this.work).with_context(context)?;
                    return Ok(this);
                }
                Err(error) => {
                    drop(std::fs::remove_dir(&folder));
                    return Err(error).with_context(context);
                }
            }
        }
    }

    /// The folder for Ballista.
    pub(crate) fn path(&self) -> &Path {
        &self.work
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes the folders of executors that no longer run. A folder without a lock file does not belong to an executor,
/// whatever its name. Without lock support, running executors cannot be recognized, and nothing is removed.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir())
            || !entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
        {
            continue;
        }
        let file = entry.path().join(LOCK);
        if let Ok((lock, Others::None)) = Lock::new(&file)
            && lock.is_on(&file)
        {
            remove(&entry.path());
        }
    }
}

/// Removes an executor's folder, whose lock must be held. Files that are not the executor's stay. A failure is only
/// logged: the next executor tries again.
fn remove(folder: &Path) {
    let removed = match std::fs::remove_dir_all(folder.join(WORK)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        // The lock file goes last: a folder without one is never looked at again.
        _ => std::fs::remove_file(folder.join(LOCK)).and_then(|()| remove_if_empty(folder)),
    };
    if let Err(error) = removed {
        tracing::warn!(folder = %folder.display(), %error, "the folder of an executor could not be removed");
    }
}

fn remove_if_empty(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_of_dead_executors_are_removed_and_no_others() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        for folder in
            ["rerank-executor-dead/work/job", "rerank-executor-theirs/work", "mine", "rerank-executor-shared/work"]
        {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [
            "rerank-executor-dead/executor.lock",
            "rerank-executor-dead/work/job/rows",
            "rerank-executor-shared/executor.lock",
            "rerank-executor-shared/notes",
            "mine/executor.lock",
        ] {
            std::fs::write(at(file), "").unwrap();
        }
        let first = WorkDir::new(parent.path()).unwrap();
        std::fs::write(first.path().join("rows"), "").unwrap();
        let own = first.folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = ["mine", "rerank-executor-shared", "rerank-executor-theirs", &own].map(str::to_owned);
        expected.sort();
        assert_eq!(names(parent.path()), expected);
        assert_eq!(names(&at("rerank-executor-shared")), ["notes"]);
        assert_eq!(names(&at("mine")), ["executor.lock"]);

        // A running executor keeps its rows.
        let second = WorkDir::new(parent.path()).unwrap();
        assert!(first.path().join("rows").exists() && second.path() != first.path());
        drop((first, second));
        assert_eq!(names(parent.path()), ["mine", "rerank-executor-shared", "rerank-executor-theirs"]);
    }
}
