//! The cache folder: converted weights, and measured token budgets.
//!
//! | file | what |
//! |---|---|
//! | `<fingerprint>-<key>.<precision>` | weights of a checkpoint; the key identifies the matrices |
//! | `<fingerprint>-<key>-<adapter>.<precision>` | the same, merged with an adapter |
//! | the same with `.json` | the locations of checkpoint and adapter when the weights were converted, and the family |
//! | `<fingerprint>-<device>-<precision>.batches` | a token budget: [`BatchMeasurement`] |
//! | `unfinished-*` | weights that are being written |
//!
//! Everything in it may be deleted at any time; what is missing is made again. A process that loads weights holds a
//! shared lock on their file, and [`CachedWeights::remove`] leaves locked files alone.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::models::Family;
use crate::options::Precision;

/// Prefix of the names of files that are being written.
const UNFINISHED: &str = "unfinished-";

/// Extension of files with measurements.
pub(crate) const BATCHES_EXTENSION: &str = "batches";

/// A writer never pauses for this long, so an unfinished file that has not changed for longer is abandoned.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// A folder of converted weights and measured token budgets.
#[derive(Debug, Clone)]
pub struct WeightsCache {
    folder: PathBuf,
}

/// A file of weights, converted from one checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CachedWeights {
    /// The file.
    pub file: PathBuf,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// The precision of the weights.
    pub precision: Precision,
    /// The [fingerprint](crate::Model::fingerprint) of the checkpoint without an adapter.
    pub fingerprint: String,
    /// The checkpoint's location when it was converted, if known.
    pub checkpoint: Option<PathBuf>,
    /// The checkpoint's family, if known.
    pub family: Option<Family>,
    /// The location of the adapter that they are merged with, when they were, if there is one.
    pub adapter: Option<PathBuf>,
}

/// The file of one measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchMeasurement {
    /// The file.
    pub file: PathBuf,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// The [fingerprint](crate::Model::fingerprint) of the checkpoint without an adapter.
    pub fingerprint: String,
}

/// The checkpoint that weights are converted from.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// Of the checkpoint alone.
    pub(crate) fingerprint: &'a str,
    pub(crate) adapter: Option<AdapterOrigin<'a>>,
    pub(crate) checkpoint: &'a Path,
    pub(crate) family: Family,
}

/// The adapter that weights are merged with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdapterOrigin<'a> {
    /// Identifies its content.
    pub(crate) content: &'a str,
    pub(crate) folder: &'a Path,
}

/// The record beside the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WeightsRecord {
    checkpoint: Option<PathBuf>,
    family: Option<String>,
    adapter: Option<PathBuf>,
}

impl WeightsCache {
    /// The cache in `folder`, or in `RERANK_CACHE`, or in `rerank` in the user's cache folder. It need not exist.
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`] if neither the caller, nor the variable, nor the system names one.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        Ok(Self { folder: folder.map_or_else(default_folder, |folder| Ok(folder.to_owned()))? })
    }

    /// The cache's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All converted weights, sorted by file name.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn weights(&self) -> Result<Vec<CachedWeights>> {
        let mut weights: Vec<CachedWeights> = self.files()?.into_iter().filter_map(CachedWeights::read).collect();
        weights.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(weights)
    }

    /// The weights that were converted from this checkpoint, or from a copy of it.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the checkpoint cannot be read, [`Error::Checkpoint`] or [`Error::Model`] if it is
    /// not a checkpoint.
    pub fn weights_of(&self, checkpoint: &Path) -> Result<Vec<CachedWeights>> {
        of_checkpoint(self.weights()?, checkpoint, |weights| &weights.fingerprint)
    }

    /// All measured token budgets, sorted by file name.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn measurements(&self) -> Result<Vec<BatchMeasurement>> {
        let mut measurements: Vec<_> = self.files()?.iter().filter_map(|file| BatchMeasurement::of(file)).collect();
        measurements.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(measurements)
    }

    /// The token budgets that were measured for this checkpoint, or for a copy of it.
    ///
    /// # Errors
    /// Those of [`Self::weights_of`].
    pub fn measurements_of(&self, checkpoint: &Path) -> Result<Vec<BatchMeasurement>> {
        of_checkpoint(self.measurements()?, checkpoint, |measurement| &measurement.fingerprint)
    }

    /// Unfinished files that a killed process left behind, with their sizes in bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn abandoned(&self) -> Result<Vec<(PathBuf, u64)>> {
        let now = SystemTime::now();
        let abandoned = |file: PathBuf| {
            let meta = file_name(&file).starts_with(UNFINISHED).then(|| std::fs::metadata(&file).ok())??;
            let age = now.duration_since(meta.modified().ok()?).ok()?;
            (age > ABANDONED_AFTER).then_some((file, meta.len()))
        };
        Ok(self.files()?.into_iter().filter_map(abandoned).collect())
    }

    /// The file for weights of a checkpoint; `key` distinguishes those of the same checkpoint, adapter and precision.
    pub(crate) fn file(&self, origin: &Origin<'_>, key: &str, precision: Precision) -> PathBuf {
        let adapter = origin.adapter.map(|adapter| format!("-{}", adapter.content)).unwrap_or_default();
        self.folder.join(format!("{}-{key}{adapter}.{precision}", origin.fingerprint))
    }

    /// Creates the folder, and an unfinished file in it.
    pub(crate) fn begin(&self) -> Result<tempfile::NamedTempFile> {
        let fail = |source| Error::io(&self.folder, source);
        std::fs::create_dir_all(&self.folder).map_err(fail)?;
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder).map_err(fail)
    }

    /// Moves complete weights into place, with a record of their origin beside them. The record comes first, so that
    /// visible weights always have one.
    pub(crate) fn finish(&self, weights: tempfile::NamedTempFile, file: &Path, origin: &Origin<'_>) -> Result<()> {
        let resolved = |path: &Path| Some(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let record = WeightsRecord {
            checkpoint: resolved(origin.checkpoint),
            family: Some(origin.family.name().to_owned()),
            adapter: origin.adapter.and_then(|adapter| resolved(adapter.folder)),
        };
        let place = record_file(file);
        let beside = self.begin()?;
        serde_json::to_writer(&beside, &record).map_err(|error| Error::io(&place, error.into()))?;
        beside.persist(&place).map_err(|error| Error::io(&place, error.error))?;
        weights.persist(file).map_err(|error| Error::io(file, error.error))?;
        Ok(())
    }

    /// The files in the folder; none if it does not exist.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let fail = |source| Error::io(&self.folder, source);
        match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries.map(|entry| Ok(entry.map_err(fail)?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(fail(error)),
        }
    }
}

impl BatchMeasurement {
    /// Reads a file of the cache, if it is a measurement.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        if file.extension()? != BATCHES_EXTENSION {
            return None;
        }
        let (fingerprint, _) = file.file_stem()?.to_str()?.split_once('-')?;
        let size_bytes = std::fs::metadata(file).ok()?.len();
        Some(Self { file: file.to_owned(), size_bytes, fingerprint: fingerprint.to_owned() })
    }
}

impl CachedWeights {
    /// Reads a file of the cache, if it holds weights.
    fn read(file: PathBuf) -> Option<Self> {
        let precision = Precision::from_name(file.extension()?.to_str()?)?;
        let (fingerprint, _) = file.file_stem()?.to_str()?.split_once('-')?;
        let fingerprint = fingerprint.to_owned();
        let size_bytes = std::fs::metadata(&file).ok()?.len();
        // Earlier versions wrote no record.
        let record = std::fs::read(record_file(&file)).ok();
        let record: WeightsRecord = record.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let family = record.family.as_deref().and_then(Family::from_name);
        let WeightsRecord { checkpoint, adapter, .. } = record;
        Some(Self { file, size_bytes, precision, fingerprint, checkpoint, family, adapter })
    }

    /// Removes the weights. Returns `false` and leaves them if a process is loading them. A process that has already
    /// loaded them keeps them.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be removed.
    pub fn remove(&self) -> Result<bool> {
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.file, error)),
            _ => Ok(()),
        };
        let lock = match File::open(&self.file) {
            Ok(file) => match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(false),
                // On a file system without locks nobody holds one.
                Ok(()) | Err(TryLockError::Error(_)) => Some(file),
            },
            Err(_) => None,
        };
        gone(std::fs::remove_file(&self.file))?;
        gone(std::fs::remove_file(record_file(&self.file)))?;
        drop(lock);
        Ok(true)
    }
}

/// Opens weights of this size for loading. Nobody removes them until the file is dropped. `None` if there are none, or
/// if their size differs, which means that this program did not write them.
pub(crate) fn hold(weights: &Path, size_bytes: u64) -> Option<File> {
    let file = File::open(weights).ok()?;
    if let Err(error) = file.lock_shared() {
        tracing::debug!(file = %weights.display(), %error, "weights that cannot be locked may be removed while they load");
    }
    // By path, since the file may have been removed before it was locked.
    std::fs::metadata(weights).is_ok_and(|found| found.len() == size_bytes).then_some(file)
}

/// The items of `found` with this checkpoint's fingerprint.
fn of_checkpoint<T>(mut found: Vec<T>, checkpoint: &Path, fingerprint_of: fn(&T) -> &str) -> Result<Vec<T>> {
    // A fingerprint is costly, so compute it only if there is something to compare it with.
    if !found.is_empty() {
        let fingerprint = Checkpoint::open(checkpoint)?.fingerprint()?;
        found.retain(|found| fingerprint_of(found) == fingerprint);
    }
    Ok(found)
}

fn record_file(weights: &Path) -> PathBuf {
    weights.with_extension("json")
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// `RERANK_CACHE`, or `rerank` in the user's cache folder.
fn default_folder() -> Result<PathBuf> {
    let variable = std::env::var_os("RERANK_CACHE").filter(|value| !value.is_empty());
    folder_of(variable.map(PathBuf::from), dirs::cache_dir())
}

fn folder_of(variable: Option<PathBuf>, user: Option<PathBuf>) -> Result<PathBuf> {
    variable.or_else(|| user.map(|folder| folder.join("rerank"))).ok_or(Error::NoCacheFolder)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A cache with weights of `fingerprint` that were made from a checkpoint in `/models/mine`.
    fn cache_of(fingerprint: &str) -> (tempfile::TempDir, WeightsCache, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let cache = WeightsCache::open(Some(&folder.path().join("cache"))).unwrap();
        assert_eq!(cache.weights().unwrap(), [], "a folder that does not exist has no weights");
        let origin =
            Origin { fingerprint, adapter: None, checkpoint: Path::new("/models/mine"), family: Family::MiniCpm };
        let file = cache.file(&origin, "0123abcd", Precision::Int8);
        let mut weights = cache.begin().unwrap();
        weights.write_all(b"weights").unwrap();
        cache.finish(weights, &file, &origin).unwrap();
        (folder, cache, file)
    }

    #[test]
    fn the_variable_comes_before_the_users_folder() {
        let folder =
            |variable: Option<&str>, user: Option<&str>| folder_of(variable.map(Into::into), user.map(Into::into));
        assert_eq!(folder(Some("mine"), Some("/home/me/.cache")).unwrap(), Path::new("mine"));
        assert_eq!(folder(None, Some("/home/me/.cache")).unwrap(), Path::new("/home/me/.cache/rerank"));
        let error = folder(None, None).unwrap_err().to_string();
        assert!(error.starts_with("there is no cache folder: ") && error.contains("set RERANK_CACHE"), "{error}");
    }

    #[test]
    fn weights_are_known_by_their_checkpoint() {
        let (_folder, cache, file) = cache_of("fedc");
        std::fs::write(cache.folder().join("fedc-00000000.int8"), "older").unwrap();
        std::fs::write(cache.folder().join("notes.txt"), "somebody's").unwrap();
        let weights = cache.weights().unwrap();
        let expected = CachedWeights {
            file,
            size_bytes: 7,
            precision: Precision::Int8,
            fingerprint: "fedc".to_owned(),
            checkpoint: Some("/models/mine".into()),
            family: Some(Family::MiniCpm),
            adapter: None,
        };
        assert_eq!(weights.len(), 2, "{weights:?}");
        assert_eq!(weights[1], expected);
        assert_eq!((weights[0].size_bytes, &weights[0].checkpoint, weights[0].family), (5, &None, None));
        let adapter = Some(AdapterOrigin { content: "ab12", folder: Path::new("/adapters/mine") });
        let adapted =
            Origin { fingerprint: "fedc", adapter, checkpoint: Path::new("/models/mine"), family: Family::MiniCpm };
        let file = cache.file(&adapted, "0123abcd", Precision::Fp16);
        cache.finish(cache.begin().unwrap(), &file, &adapted).unwrap();
        let weights = cache.weights().unwrap().into_iter().find(|weights| weights.file == file).unwrap();
        assert_eq!(weights.adapter.as_deref(), Some(Path::new("/adapters/mine")));
        assert_eq!((weights.fingerprint.as_str(), weights.precision), ("fedc", Precision::Fp16));
    }

    #[test]
    fn weights_that_are_being_loaded_stay() {
        let (_folder, cache, file) = cache_of("fedc");
        let weights = cache.weights().unwrap().remove(0);
        assert!(hold(&file, 6).is_none(), "another size");
        let held = hold(&file, 7).unwrap();
        assert!(!weights.remove().unwrap());
        assert!(file.exists());
        drop(held);
        assert!(weights.remove().unwrap());
        assert_eq!(std::fs::read_dir(cache.folder()).unwrap().count(), 0, "the record goes with them");
        assert!(hold(&file, 7).is_none());
        assert!(weights.remove().unwrap(), "what is gone is gone");
    }

    #[test]
    fn only_what_was_left_long_ago_is_abandoned() {
        let (_folder, cache, _) = cache_of("fedc");
        let (old, fresh) = (cache.begin().unwrap(), cache.begin().unwrap());
        let hours_ago = |hours| SystemTime::now() - Duration::from_hours(hours);
        old.as_file().set_modified(hours_ago(2)).unwrap();
        fresh.as_file().set_modified(SystemTime::now() - Duration::from_mins(50)).unwrap();
        let file = std::fs::File::options().write(true).open(&cache.weights().unwrap()[0].file).unwrap();
        file.set_modified(hours_ago(1000)).unwrap();
        assert_eq!(cache.abandoned().unwrap(), [(old.path().to_owned(), 0)]);
    }
}
