//! A local file that is to be written by one process at a time, whose runs do not disturb each other.
//!
//! ```text
//! .out.parquet.rerank-lock                  locked while a process writes out.parquet
//! .out.parquet.4711-0a1b2c3d.unfinished     what it has written, until that is complete and renamed
//! ```
//!
//! Readers of directories skip names that begin with a dot. The lock goes when its process goes, however that ends: who
//! holds it may delete all unfinished files of the same target. Object stores need nothing of this: an upload is seen by
//! nobody until it is complete.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object_store::path::Path as StorePath;

use super::location::Location;
use super::lock::{Lock, Others};
use super::unfinished::{remove_unfinished, staged_name, writer_id};

/// How the name of a file ends until it is complete.
const UNFINISHED: &str = ".unfinished";

/// A name with more bytes than this is cut in the names beside it, which are longer and must fit too.
const LONGEST_NAME: usize = 180;

/// The right to write a file. Dropping it removes what is unfinished.
#[derive(Debug)]
pub(crate) struct Claim {
    staging: Location,
    folder: PathBuf,
    staging_name: String,
    lock_file: PathBuf,
    _made: Folders,
    /// Held until nothing is left.
    _lock: Lock,
}

impl Claim {
    /// Takes the right to write a file, and deletes what runs left beside it that were killed. `None` for files of
    /// object stores.
    ///
    /// # Errors
    /// If another process is writing the file, or its folder cannot be written.
    pub(crate) fn new(target: &Location) -> Result<Option<Self>> {
        let Some(path) = target.local_path() else { return Ok(None) };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            bail!("cannot write {target}: it has no name");
        };
        let context = || format!("cannot write {target}");
        let names = Names::of(name);
        let made = Folders::make(folder).with_context(context)?;
        let lock_file = folder.join(names.lock());
        let (lock, others) = Lock::create(&lock_file).with_context(context)?;
        match others {
            Others::AtWork => {
                bail!("another process is writing OUTPUT {target}; wait until it has ended, or name another file");
            }
            Others::None => remove_unfinished(folder, |name| names.are_of(name)),
            // Nobody can tell whose the files are. They have names of their own, so that they do no harm.
            Others::Unknown => {}
        }
        let staging_name = names.staging(&writer_id());
        let staging = StorePath::from_absolute_path(folder.join(&staging_name)).with_context(context)?;
        Ok(Some(Self {
            staging: target.with_path(staging),
            folder: folder.to_owned(),
            staging_name,
            lock_file,
            _made: made,
            _lock: lock,
        }))
    }

    /// Where the file is written until it is complete.
    pub(crate) fn staging(&self) -> &Location {
        &self.staging
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Aborting has done that, unless it failed.
        remove_unfinished(&self.folder, |name| staged_name(name).unwrap_or(name) == self.staging_name);
        if let Err(error) = std::fs::remove_file(&self.lock_file) {
            tracing::warn!(file = %self.lock_file.display(), %error, "a lock file could not be removed");
        }
    }
}

/// Folders that were made for a file, the deepest first. Those that are empty in the end are removed.
#[derive(Debug)]
struct Folders(Vec<PathBuf>);

impl Folders {
    fn make(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        std::fs::create_dir_all(folder)?;
        Ok(Self(missing))
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        // One that is not empty stays, and so do those around it.
        drop(self.0.iter().try_for_each(std::fs::remove_dir));
    }
}

/// The names of the files beside one that is being written.
struct Names<'a> {
    target: &'a str,
    /// What they begin with.
    stem: String,
}

impl<'a> Names<'a> {
    fn of(target: &'a str) -> Self {
        if target.len() <= LONGEST_NAME {
            return Self { target, stem: format!(".{target}.") };
        }
        let mut hasher = DefaultHasher::new();
        target.hash(&mut hasher);
        let cut = &target[..target.floor_char_boundary(LONGEST_NAME - 20)];
        Self { target, stem: format!(".{cut}~{:016x}.", hasher.finish()) }
    }

    fn lock(&self) -> String {
        format!("{}rerank-lock", self.stem)
    }

    fn staging(&self, writer: &str) -> String {
        format!("{}{writer}{UNFINISHED}", self.stem)
    }

    /// Whether this is an unfinished file of the target.
    fn are_of(&self, name: &str) -> bool {
        let name = match staged_name(name) {
            // Versions before this wrote there.
            Some(name) if name == self.target => return true,
            staged => staged.unwrap_or(name),
        };
        name.strip_prefix(&self.stem).and_then(|rest| rest.strip_suffix(UNFINISHED)).is_some_and(is_writer_id)
    }
}

/// Whether [`writer_id`] may have given this: the target `a` has no files of the target `a.b`.
fn is_writer_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(process, random)| {
        !process.is_empty()
            && process.bytes().all(|byte| byte.is_ascii_digit())
            && random.len() == 8
            && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn location(path: &Path) -> Location {
        Location::parse(path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn one_process_writes_and_its_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = location(&folder.path().join("new/deep/out~1.parquet"));
        let claim = Claim::new(&target).unwrap().unwrap();
        let staging = claim.staging().local_path().unwrap();
        let staged = format!("{}#1", staging.display());
        for file in [&staging, Path::new(&staged)] {
            std::fs::write(file, "rows").unwrap();
        }
        let error = Claim::new(&target).unwrap_err().to_string();
        assert!(error.contains(&format!("another process is writing OUTPUT {target};")), "{error}");
        assert!(staging.exists() && Path::new(&staged).exists());
        // Another file beside it is another matter.
        let other = Claim::new(&location(&folder.path().join("new/deep/out~2.parquet"))).unwrap().unwrap();
        drop(claim);
        assert_eq!(names(&folder.path().join("new/deep")), [".out~2.parquet.rerank-lock"]);
        drop(other);
        drop(Claim::new(&target).unwrap());
        assert_eq!(names(folder.path()), ["new"], "the folder was there before");
        std::fs::remove_dir_all(folder.path().join("new")).unwrap();
        drop(Claim::new(&target).unwrap());
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let long = "ä".repeat(120);
        let long_other = format!("{}x", "ä".repeat(119));
        for target in ["a", &long] {
            let files = |target: &str| {
                let names = Names::of(target);
                let staging = names.staging("17-0123abcd");
                [names.lock(), format!("{staging}#1"), staging]
            };
            let others = [".a.notes.unfinished", "a#x", "b#1", "a.parquet"].map(str::to_owned);
            let mut kept: Vec<_> =
                files("a.b").into_iter().chain(files("b")).chain(files(&long_other)).chain(others).collect();
            kept.sort();
            for file in files(target).iter().chain(&kept).chain([&format!("{target}#1")]) {
                std::fs::write(folder.path().join(file), "").unwrap();
            }
            let claim = Claim::new(&location(&folder.path().join(target))).unwrap().unwrap();
            std::fs::write(claim.staging().local_path().unwrap(), "").unwrap();
            drop(claim);
            assert_eq!(names(folder.path()), kept);
        }
    }

    #[test]
    fn an_upload_needs_no_claim() {
        assert!(Claim::new(&Location::parse("memory:///out/file.parquet").unwrap()).unwrap().is_none());
    }
}
