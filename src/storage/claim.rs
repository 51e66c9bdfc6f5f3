//! A local file that only one process may write at a time.
//!
//! ```text
//! .out.parquet.rerank-lock                  locked while a process writes out.parquet
//! .out.parquet.4711-0a1b2c3d.unfinished     its rows until the file is complete and renamed
//! ```
//!
//! Readers of directories skip names that begin with a dot. The system releases the lock when the process ends, however
//! it ends. The holder of the lock may delete all unfinished files of its target. Object stores need none of this: an
//! upload stays invisible until it is complete.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object_store::path::Path as StorePath;

use super::location::Location;
use super::lock::{Lock, Others};
use super::unfinished::{remove_unfinished, staged_name, writer_id};

/// The suffix of a file's name until the file is complete.
const UNFINISHED: &str = ".unfinished";

/// The longest name in bytes. Longer names are cut in the names derived from them, which are longer and must fit too.
const LONGEST_NAME: usize = 180;

/// The right to write a file. Dropping it removes unfinished files.
#[derive(Debug)]
pub(crate) struct Claim {
    staging: Location,
    folder: PathBuf,
    staging_name: String,
    lock_file: PathBuf,
    _made: Folders,
    /// Held until everything is removed.
    _lock: Lock,
}

impl Claim {
    /// Claims a file, and deletes what killed runs left beside it. Returns `None` for files in object stores.
    ///
    /// # Errors
    /// If another process is writing the file, or its folder is not writable.
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
            // Nobody can tell who owns these files. Their names are unique, so they do no harm.
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

    /// The path to write to until the file is complete.
    pub(crate) fn staging(&self) -> &Location {
        &self.staging
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A successful abort has removed it already.
        remove_unfinished(&self.folder, |name| staged_name(name).unwrap_or(name) == self.staging_name);
        if let Err(error) = std::fs::remove_file(&self.lock_file) {
            tracing::warn!(file = %self.lock_file.display(), %error, "a lock file could not be removed");
        }
    }
}

/// Folders created for a file, deepest first. The empty ones are removed on drop.
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
        // A folder that is not empty stays, and so do its parents.
        drop(self.0.iter().try_for_each(std::fs::remove_dir));
    }
}

/// The names of the files beside the one being written.
struct Names<'a> {
    target: &'a str,
    /// The common prefix of the names.
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

    /// Whether `name` is an unfinished file of the target.
    fn are_of(&self, name: &str) -> bool {
        let name = match staged_name(name) {
            // Earlier versions staged under the target's own name.
            Some(name) if name == self.target => return true,
            staged => staged.unwrap_or(name),
        };
        name.strip_prefix(&self.stem).and_then(|rest| rest.strip_suffix(UNFINISHED)).is_some_and(is_writer_id)
    }
}

/// Whether [`writer_id`] may have returned this text. It keeps the files of target `a.b` apart from those of target
/// `a`.
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
        // A claim on another file in the same folder does not conflict.
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
