//! The folder of an executor.
//!
//! Ballista takes its folder for its own: it deletes all folders in it when it ends, and old ones meanwhile. So it gets
//! one that nobody else has anything in:
//!
//! ```text
//! DIR/rerank-executor-Xy12ab/executor.lock     locked while the executor lives
//! DIR/rerank-executor-Xy12ab/work/             Ballista's
//! ```

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::storage::{Lock, Others};

/// How the names of executors' folders begin.
const PREFIX: &str = "rerank-executor-";

/// The file that tells an executor that lives from one that was killed, and its folder from those of others.
const LOCK: &str = "executor.lock";

/// What is Ballista's.
const WORK: &str = "work";

/// A folder of this executor alone. It is removed in the end.
#[derive(Debug)]
pub(crate) struct WorkDir {
    folder: PathBuf,
    work: PathBuf,
    /// Held until the folder is gone.
    _lock: Lock,
}

impl WorkDir {
    /// Makes a folder in `parent`, and removes what executors left there that were killed.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let context = || format!("cannot make a folder in {}; name another with --work-dir", parent.display());
        std::fs::create_dir_all(parent).with_context(context)?;
        sweep(parent);
        loop {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).with_context(context)?.keep();
            match Lock::create(&folder.join(LOCK)) {
                // Before it was locked, another executor took the folder for a dead one's; that one removes it.
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

    /// Where Ballista may do as it likes.
    pub(crate) fn path(&self) -> &Path {
        &self.work
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes the folders of executors that live no more. A folder without a lock file is not an executor's, whatever its
/// name, and where there are no locks nobody can tell who lives.
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

/// Removes an executor's folder, whose lock is held. What is not an executor's stays. A failure is logged: the next
/// executor tries again.
fn remove(folder: &Path) {
    let removed = match std::fs::remove_dir_all(folder.join(WORK)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        // Not before: a folder without a lock file is never looked at again.
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

        // One that lives keeps its rows.
        let second = WorkDir::new(parent.path()).unwrap();
        assert!(first.path().join("rows").exists() && second.path() != first.path());
        drop((first, second));
        assert_eq!(names(parent.path()), ["mine", "rerank-executor-shared", "rerank-executor-theirs"]);
    }
}
