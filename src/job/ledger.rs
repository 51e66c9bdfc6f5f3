//! The records of a resumable job, in `_rerank` below its output directory.
//!
//! ```text
//! OUTPUT/
//!   part-00000-6b1e0c52f7a9d384.parquet     a unit's rows with their scores, or those of several units
//!   _rerank/job.json                        the definition of the job; written before any work
//!   _rerank/units/6b1e0c52f7a9d384.json     the unit is done: written after its data file appeared
//!   _rerank/scores/6b1e0c52f7a9d384         the data file of one of several units: its scores
//!   _rerank/files/6b1e0c52f7a9d384.json     the file of several units is complete: written after it appeared
//!   _rerank/failed/6b1e0c52f7a9d384.json    why a run ended at this unit
//!   _rerank/begin.lock                      locked while a run begins, on local disks
//!   _rerank/tmp/                            data files being written, on local disks
//! ```
//!
//! Programs that read directories of Parquet files, this one included, skip names that begin with `_`. A killed process
//! leaves at most a file below `tmp`, or a data file without its marker: the next run deletes the one and overwrites
//! the other with the same content. For the same reason, several processes may work on one job: they repeat each
//! other's work, and the later one replaces a file with an identical one.
//!
//! On local disks, a run holds a shared lock on `job.json` while it works. A run that starts the job over needs
//! exclusive locks on both `job.json` and `begin.lock`, so no other run begins between the deletion of the old job and
//! the start of the new one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::PutMode;
use object_store::path::Path;
use serde::Serialize;

use super::manifest::{Manifest, now};
use super::marker::{FileMarker, Marker, UnitFailure};
use super::unit::{RECORDS, Unit};
use crate::files::FileFormat;
use crate::storage::{Location, Lock, Others, is_unfinished, list, remove_unfinished, write_small, writer_id};

/// The folder of the records of units that are done.
pub(crate) const DONE: &str = "units";

/// The folder of the records of units at which runs ended.
pub(crate) const FAILED: &str = "failed";

/// The folder of the records of files of several units that are complete.
const FILES: &str = "files";

/// Small files read or deleted concurrently.
const FILES_AT_ONCE: usize = 32;

/// How long a failed run tries to record the reason.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// The records of a job.
#[derive(Debug)]
pub(crate) struct Ledger {
    output: Location,
    /// Failures recorded by earlier runs.
    failed: HashSet<String>,
    /// The number of units that are done.
    commits: usize,
    /// Held from [`Self::begin`] on, on local disks.
    lock: Option<Lock>,
    /// Part of the names of the files that this process writes.
    writer: String,
}

/// Permissions to change existing files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Permissions {
    /// Delete an existing job and start over.
    pub(crate) restart: bool,
    /// Begin in a directory that holds other files.
    pub(crate) overwrite: bool,
}

/// The recorded progress of a job.
#[derive(Debug, Default)]
pub(crate) struct JobProgress {
    /// Markers of the units that are done, by id.
    pub(crate) committed: HashMap<String, Marker>,
    /// Failures of units that are not done, by id.
    pub(crate) failed: HashMap<String, UnitFailure>,
    /// The files of several units that are complete, by the id of their first unit.
    pub(crate) files: HashMap<String, FileMarker>,
}

/// Sizes of the files below OUTPUT.
type Listing = HashMap<Path, u64>;

impl Ledger {
    /// The records of the job with this output directory. They need not exist.
    pub(crate) fn new(output: Location) -> Self {
        Self { output, failed: HashSet::new(), commits: 0, lock: None, writer: writer_id() }
    }

    /// Whether a file is, or may become, a record or data file of a job with this output directory.
    pub(crate) fn owns(output: &Location, file: &Location) -> bool {
        if file.relative_to(&output.below(RECORDS).resolved()).is_some() {
            return true;
        }
        // The data files depend on the inputs, including those of earlier runs.
        file.relative_to(output).is_some_and(|name| name.is_empty() || FileFormat::of(&name).is_some())
    }

    /// The path of a unit's data file.
    pub(crate) fn data_file(&self, unit: &Unit, input: &str) -> Location {
        self.output.below(&unit.data_name(input))
    }

    /// The path of the file of several units; `first` is the first of them.
    pub(crate) fn pieced_file(&self, first: &Unit, input: &str) -> Location {
        self.output.below(&first.output_name(input))
    }

    /// The path of the record that the file of several units is complete.
    pub(crate) fn file_record(&self, first: &Unit) -> Location {
        self.unit_record(FILES, &first.id)
    }

    /// Where the data file is written until it is complete, if not at its path. `object_store` writes local files
    /// beside their path, where readers of the directory would find them.
    pub(crate) fn staging_file(&self, unit: &str) -> Option<Location> {
        self.output.local_path()?;
        // Two concurrent processes must not write the same file.
        Some(self.record(&format!("tmp/{unit}-{}.unfinished", self.writer)))
    }

    /// Begins or resumes the job. Returns its recorded progress.
    ///
    /// # Errors
    /// If the directory holds another job or other files and may not be changed, if it cannot be written, or if another
    /// process is starting the job over.
    pub(crate) async fn begin(&mut self, manifest: &Manifest, permissions: Permissions) -> Result<JobProgress> {
        let existing = self.manifest().await?;
        if existing.is_none() {
            // Nothing is created in a directory that belongs to something else.
            self.check(manifest, None, permissions, &self.list().await?)?;
        }
        let gate = self.enter(permissions.restart)?;
        let existing = if gate.is_some() { self.manifest().await? } else { existing };
        let mut listing = self.list().await?;
        let begins = match &existing {
            Some(old) if permissions.restart => {
                self.delete(old, &listing).await?;
                listing = self.list().await?;
                true
            }
            existing => {
                self.check(manifest, existing.as_ref(), permissions, &listing)?;
                existing.is_none()
            }
        };
        if begins && !self.create(manifest).await? {
            // Another process may have begun a job meanwhile.
            self.check(manifest, self.manifest().await?.as_ref(), permissions, &listing)?;
        }
        self.sweep()?;
        let progress = self.progress_of(manifest, &listing).await?;
        self.expect_failures(progress.failed.keys().cloned());
        self.add_commits(progress.committed.len());
        drop(gate);
        Ok(progress)
    }

    /// Like [`Self::begin`], but changes nothing.
    pub(crate) async fn look(&self, manifest: &Manifest, permissions: Permissions) -> Result<JobProgress> {
        let listing = self.list().await?;
        let existing = self.manifest().await?;
        if existing.is_some() && permissions.restart {
            return Ok(JobProgress::default());
        }
        self.check(manifest, existing.as_ref(), permissions, &listing)?;
        self.progress_of(manifest, &listing).await
    }

    /// Reads `job.json`; `None` if it does not exist.
    pub(crate) async fn manifest(&self) -> Result<Option<Manifest>> {
        let file = self.record("job.json");
        let Some(bytes) = file.read().await? else { return Ok(None) };
        let manifest = serde_json::from_slice(&bytes).with_context(|| {
            format!("{file} is not this program's; name another OUTPUT, or delete the directory it is in to start over")
        })?;
        Ok(Some(manifest))
    }

    /// The recorded progress of a job. Changes nothing.
    pub(crate) async fn progress(&self, manifest: &Manifest) -> Result<JobProgress> {
        self.progress_of(manifest, &self.list().await?).await
    }

    /// Records that a unit is done.
    pub(crate) async fn commit(&mut self, marker: &Marker) -> Result<()> {
        write_small(&self.unit_record(DONE, &marker.unit), json(marker)?).await?;
        self.add_commits(1);
        self.forget_failure(&marker.unit).await
    }

    /// The number of units that are done.
    pub(crate) fn commits(&self) -> usize {
        self.commits
    }

    /// Adds to the number of units that are done.
    pub(crate) fn add_commits(&mut self, units: usize) {
        self.commits += units;
    }

    /// Sets which units may have failure records.
    pub(crate) fn expect_failures(&mut self, units: impl IntoIterator<Item = String>) {
        self.failed.extend(units);
    }

    /// Deletes the record of why an earlier run ended at a unit, if one is expected.
    pub(crate) async fn forget_failure(&mut self, unit: &str) -> Result<()> {
        if self.failed.remove(unit) {
            self.unit_record(FAILED, unit).remove().await?;
        }
        Ok(())
    }

    /// Records the reason why the run ends at a unit of this input. A failure to write the record is only logged: there
    /// is already an error to report.
    pub(crate) async fn fail(&self, unit: &Unit, input: &str, reason: String) {
        let failure =
            UnitFailure { unit: unit.id.clone(), input: input.to_owned(), number: unit.number, reason, at: now() };
        let write = async { write_small(&self.unit_record(FAILED, &unit.id), json(&failure)?).await };
        // The store itself may be failing, and writes would be retried for minutes.
        match tokio::time::timeout(FAILURE_TIMEOUT, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the failure could not be recorded"),
            Err(_) => tracing::debug!("the failure could not be recorded in time"),
        }
    }

    /// The path of a record.
    pub(crate) fn record(&self, name: &str) -> Location {
        self.output.below(&format!("{RECORDS}/{name}"))
    }

    /// The path of a unit's record of the kind [`DONE`] or [`FAILED`].
    pub(crate) fn unit_record(&self, kind: &str, unit: &str) -> Location {
        self.record(&format!("{kind}/{unit}.json"))
    }

    async fn list(&self) -> Result<Listing> {
        let files = list(&self.output, |_| true).await.context("cannot look at OUTPUT")?;
        Ok(files.into_iter().map(|meta| (meta.location, meta.size)).collect())
    }

    /// Checks that the job may resume or begin, given the existing files.
    fn check(
        &self,
        manifest: &Manifest,
        existing: Option<&Manifest>,
        permissions: Permissions,
        listing: &Listing,
    ) -> Result<()> {
        let output = &self.output;
        if let Some(existing) = existing {
            if let Some(difference) = existing.difference(manifest) {
                bail!(
                    "OUTPUT {output} holds the output of another job: {difference}; pass --restart to delete that job's files and start over, or name another OUTPUT"
                );
            }
            return Ok(());
        }
        if permissions.overwrite {
            return Ok(());
        }
        let visible = |path: &&Path| {
            let name = output.with_path((*path).clone()).relative_to(output).unwrap_or_default();
            !name.is_empty() && !name.split('/').any(|part| part.starts_with(['.', '_']))
        };
        // The smallest name, so that the message does not change from run to run.
        if let Some(path) = listing.keys().filter(visible).min() {
            bail!(
                "OUTPUT {output} has files of something else in it ({}); name an empty directory, or pass --overwrite to write beside them",
                output.with_path(path.clone())
            );
        }
        Ok(())
    }

    /// Writes `job.json`. Returns whether this process created it.
    async fn create(&self, manifest: &Manifest) -> Result<bool> {
        let file = self.record("job.json");
        match file.store.put_opts(&file.path, json(manifest)?.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            // Another process created it, or an earlier attempt of this request did.
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // The store has no conditional writes. Two processes that begin one job write the same content.
            Err(object_store::Error::NotImplemented { .. }) => {
                write_small(&file, json(manifest)?).await?;
                Ok(true)
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {file}")),
        }
    }

    /// Blocks other runs from beginning: all of them if this run starts the job over, otherwise only those that start
    /// it over. Returns `None` in stores without locks.
    fn enter(&self, restart: bool) -> Result<Option<Lock>> {
        let Some(path) = self.record("begin.lock").local_path() else { return Ok(None) };
        let (gate, others) = Lock::gate(&path, restart).with_context(|| format!("cannot write {}", path.display()))?;
        match (others, restart) {
            (Others::AtWork, true) => Err(self.at_work()),
            (Others::AtWork, false) => bail!(
                "OUTPUT {}: another process is starting this job over; wait until it has, then run the command again",
                self.output
            ),
            (Others::None | Others::Unknown, _) => Ok(Some(gate)),
        }
    }

    fn at_work(&self) -> anyhow::Error {
        anyhow!("OUTPUT {}: another process is at work on this job; stop it before --restart", self.output)
    }

    /// Shows other processes that this one is working, until the ledger is dropped.
    pub(crate) fn hold(&mut self, lock: Lock) {
        lock.share();
        self.lock = Some(lock);
    }

    /// Deletes the files of killed runs, unless another process is working. In object stores, unfinished uploads are
    /// invisible; a lifecycle rule of the bucket deletes them.
    pub(crate) fn sweep(&mut self) -> Result<()> {
        self.lock = None;
        let (Some(job), Some(folder)) = (self.record("job.json").local_path(), self.record("").local_path()) else {
            return Ok(());
        };
        let (lock, others) = Lock::new(&job).with_context(|| format!("cannot write {}", job.display()))?;
        if others == Others::AtWork {
            tracing::warn!("another process is at work on this job");
        } else {
            remove_unfinished(&folder.join("tmp"), |_| true);
            for kind in [DONE, FAILED, FILES, ""] {
                remove_unfinished(&folder.join(kind), is_unfinished);
            }
        }
        self.hold(lock);
        Ok(())
    }

    async fn progress_of(&self, manifest: &Manifest, listing: &Listing) -> Result<JobProgress> {
        let files = self.files_of(manifest, listing).await?;
        let complete = manifest.pieced_files().filter(|units| files.contains_key(&units[0].id));
        let complete: HashSet<&String> = complete.flatten().map(|unit| &unit.id).collect();
        let committed = self.read_all(&manifest.units, listing, DONE).await?;
        let committed: HashMap<String, Marker> = manifest
            .units
            .iter()
            .zip(committed)
            .filter_map(|(unit, marker): (_, Option<Marker>)| {
                let marker = marker?;
                let size_bytes = listing.get(&self.data_file(unit, manifest.input_name(unit)).path);
                let is_done = size_bytes == Some(&marker.size_bytes) || complete.contains(&unit.id);
                is_done.then(|| (unit.id.clone(), marker))
            })
            .collect();
        let failed = self.read_all(&manifest.units, listing, FAILED).await?;
        let failed = manifest
            .units
            .iter()
            .zip(failed)
            .filter_map(|(unit, failure)| Some((unit.id.clone(), failure?)))
            .filter(|(unit, _)| !committed.contains_key(unit))
            .collect();
        Ok(JobProgress { committed, failed, files })
    }

    /// The files of several units that are complete.
    async fn files_of(&self, manifest: &Manifest, listing: &Listing) -> Result<HashMap<String, FileMarker>> {
        let firsts: Vec<&Unit> = manifest.pieced_files().filter_map(|units| units.first()).collect();
        let found: Vec<Option<FileMarker>> = self.read_all(firsts.iter().copied(), listing, FILES).await?;
        let complete = firsts.into_iter().zip(found).filter_map(|(first, marker)| {
            let marker = marker?;
            let size_bytes = listing.get(&self.pieced_file(first, manifest.input_name(first)).path);
            (size_bytes == Some(&marker.size_bytes)).then(|| (first.id.clone(), marker))
        });
        Ok(complete.collect())
    }

    /// Reads all records of one kind; `None` for units without one. A damaged record counts as missing.
    async fn read_all<T: serde::de::DeserializeOwned>(
        &self,
        units: impl IntoIterator<Item = &Unit>,
        listing: &Listing,
        kind: &str,
    ) -> Result<Vec<Option<T>>> {
        let read = |unit: &Unit| {
            let file = self.unit_record(kind, &unit.id);
            let exists = listing.contains_key(&file.path);
            async move {
                let bytes = if exists { file.read().await? } else { None };
                Ok::<_, anyhow::Error>(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
            }
        };
        // Before the first request, so that no borrowed iterator is held across it.
        let reading: Vec<_> = units.into_iter().map(read).collect();
        stream::iter(reading).buffered(FILES_AT_ONCE).try_collect().await
    }

    /// Deletes a job's data files and records, and nothing else.
    async fn delete(&self, manifest: &Manifest, listing: &Listing) -> Result<()> {
        let job = self.record("job.json");
        let lock = match job.local_path() {
            Some(path) => Some(Lock::new(&path).with_context(|| format!("cannot write {}", path.display()))?),
            None => None,
        };
        if let Some((_, Others::AtWork)) = lock {
            return Err(self.at_work());
        }
        let files = manifest.units.iter().flat_map(|unit| {
            let data = self.data_file(unit, manifest.input_name(unit));
            [self.unit_record(DONE, &unit.id), self.unit_record(FAILED, &unit.id), data]
        });
        let firsts = manifest.pieced_files().filter_map(|units| units.first());
        let pieced =
            firsts.flat_map(|first| [self.file_record(first), self.pieced_file(first, manifest.input_name(first))]);
        let files = files.chain(pieced);
        let existing: Vec<Location> = files.filter(|file| listing.contains_key(&file.path)).collect();
        let removals = existing.iter().map(Location::remove);
        stream::iter(removals).buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await?;
        // Last: without it, nobody could tell which job the other files belong to.
        job.remove().await?;
        drop(lock);
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value).context("a record is not JSON")?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
