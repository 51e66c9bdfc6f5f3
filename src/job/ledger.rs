//! The records of a resumable job, in `_rerank` below its output directory.
//!
//! ```text
//! OUTPUT/
//!   part-00000-6b1e0c52f7a9d384.parquet     a unit's rows with their scores
//!   _rerank/job.json                        what the job is: written first, before any work
//!   _rerank/units/6b1e0c52f7a9d384.json     the unit is done: written after its data file appeared
//!   _rerank/failed/6b1e0c52f7a9d384.json    why a run ended at this unit
//!   _rerank/tmp/                            data files being written, on local disks
//! ```
//!
//! Names that begin with `_` are skipped by whatever reads directories of Parquet files, this program included. A
//! process that is killed leaves at most a file below `tmp`, or a data file without its marker: the next run deletes
//! the one and overwrites the other with the same content. For the same reason two processes may work on one job: they
//! do the same work twice, and whoever is later replaces a file by its equal.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use serde::Serialize;

use super::manifest::{Manifest, UnitEntry, now};
use super::marker::{Failure, Marker};
use crate::files::FileFormat;
use crate::storage::{Location, Lock, Others, is_unfinished, remove_unfinished, write_small, writer_id};

/// Folder of the records.
const FOLDER: &str = "_rerank";

/// Small files read or deleted at once.
const FILES_AT_ONCE: usize = 32;

/// How long a run that failed tries to record why.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// The records of a job.
#[derive(Debug)]
pub(crate) struct Ledger {
    output: Location,
    /// Failures recorded by earlier runs.
    failed: HashSet<String>,
    /// Units that are done.
    commits: usize,
    /// Held on local disks from [`Self::begin`] on.
    lock: Option<Lock>,
    /// Tells files that are being written from those of others.
    writer: String,
}

/// What may be done to files that exist.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Permissions {
    /// Delete a job that is there already and start over.
    pub(crate) restart: bool,
    /// Begin in a directory with other files in it.
    pub(crate) overwrite: bool,
}

/// What is known of a job's units.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Markers of the units that are done, by id.
    pub(crate) committed: HashMap<String, Marker>,
    /// Failures of units that are not done, by id.
    pub(crate) failed: HashMap<String, Failure>,
}

/// Sizes of the files below OUTPUT.
type Listing = HashMap<Path, u64>;

impl Ledger {
    /// The records of the job with this output directory, if there is one.
    pub(crate) fn new(output: Location) -> Self {
        Self { output, failed: HashSet::new(), commits: 0, lock: None, writer: writer_id() }
    }

    /// Whether a file is, or may become, one of a job with this output directory: a record or a data file.
    pub(crate) fn owns(output: &Location, file: &Location) -> bool {
        if file.relative_to(&output.below(FOLDER).resolved()).is_some() {
            return true;
        }
        // Which data files there are depends on the inputs, and on those of runs before.
        file.relative_to(output).is_some_and(|name| name.is_empty() || FileFormat::of(&name).is_some())
    }

    /// Where a unit's data file appears.
    pub(crate) fn data_file(&self, manifest: &Manifest, unit: &UnitEntry) -> Location {
        self.output.below(&manifest.output_name(unit))
    }

    /// Where it is written until it is complete, if not there: a local file has another name until then, by which
    /// readers of the directory would find it.
    pub(crate) fn staging_file(&self, unit: &str) -> Option<Location> {
        self.output.local_path()?;
        // Two processes at once must not write the same file.
        Some(self.record(&format!("tmp/{unit}-{}.unfinished", self.writer)))
    }

    /// Begins the job, or goes on with it: what is done need not be done again.
    ///
    /// # Errors
    /// If the directory holds another job or other files and may not be changed, or cannot be written.
    pub(crate) async fn begin(&mut self, manifest: &Manifest, permissions: Permissions) -> Result<Progress> {
        let mut listing = self.list().await?;
        let existing = self.manifest().await?;
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
            // Another process began a job meanwhile.
            self.check(manifest, self.manifest().await?.as_ref(), permissions, &listing)?;
        }
        self.sweep()?;
        let progress = self.progress_of(manifest, &listing).await?;
        self.failed = progress.failed.keys().cloned().collect();
        self.commits = progress.committed.len();
        Ok(progress)
    }

    /// Takes part in a job that another process has begun: whoever goes on with it sees that this process is at work,
    /// and leaves its unfinished files alone.
    #[cfg(feature = "cluster")]
    pub(crate) fn join(&mut self, unit: &UnitEntry) -> Result<()> {
        self.failed.insert(unit.id.clone());
        let Some(job) = self.record("job.json").local_path() else { return Ok(()) };
        let (lock, _) = Lock::new(&job).with_context(|| {
            format!("{} cannot be opened; all machines must see OUTPUT at the same path", job.display())
        })?;
        lock.share();
        self.lock = Some(lock);
        Ok(())
    }

    /// The marker of a unit that is done.
    #[cfg(feature = "cluster")]
    pub(crate) async fn marker(&self, manifest: &Manifest, unit: &UnitEntry) -> Result<Option<Marker>> {
        let Some(bytes) = self.unit_record("units", &unit.id).read().await? else { return Ok(None) };
        let Ok(marker) = serde_json::from_slice::<Marker>(&bytes) else { return Ok(None) };
        let size_bytes = self.data_file(manifest, unit).file_size_bytes().await?;
        Ok((size_bytes == Some(marker.size_bytes)).then_some(marker))
    }

    /// Forgets why earlier runs ended at these units.
    #[cfg(feature = "cluster")]
    pub(crate) async fn forget_failures<'a>(&mut self, units: impl IntoIterator<Item = &'a UnitEntry>) -> Result<()> {
        for unit in units {
            if self.failed.remove(&unit.id) {
                remove(&self.unit_record("failed", &unit.id)).await?;
            }
        }
        Ok(())
    }

    /// Why one of these units could not be done, if that was recorded.
    #[cfg(feature = "cluster")]
    pub(crate) async fn failure<'a>(&self, units: impl IntoIterator<Item = &'a UnitEntry>) -> Result<Option<Failure>> {
        let folder = self.record("failed");
        let listed = folder.store.list(Some(&folder.path)).map_ok(|meta| meta.location);
        let listed: HashSet<Path> = listed.try_collect().await.with_context(|| format!("cannot list {folder}"))?;
        for unit in units {
            let file = self.unit_record("failed", &unit.id);
            if listed.contains(&file.path)
                && let Some(bytes) = file.read().await?
                && let Ok(failure) = serde_json::from_slice(&bytes)
            {
                return Ok(Some(failure));
            }
        }
        Ok(None)
    }

    /// The units of which there are markers, by id.
    #[cfg(feature = "cluster")]
    pub(crate) async fn marked(&self) -> Result<HashSet<String>> {
        let folder = self.record("units");
        let listed = folder.store.list(Some(&folder.path)).map_ok(|meta| meta.location);
        let listed: Vec<Path> = listed.try_collect().await.with_context(|| format!("cannot list {folder}"))?;
        let id = |path: &Path| path.filename()?.strip_suffix(".json").map(str::to_owned);
        Ok(listed.iter().filter_map(id).collect())
    }

    /// OUTPUT.
    #[cfg(feature = "cluster")]
    pub(crate) fn output(&self) -> &Location {
        &self.output
    }

    /// Deletes what executors left that were killed.
    #[cfg(feature = "cluster")]
    pub(crate) fn tidy(&mut self) -> Result<()> {
        // This process is at work no more.
        self.lock = None;
        self.sweep()
    }

    /// Counts units that other processes have committed.
    #[cfg(feature = "cluster")]
    pub(crate) fn add_commits(&mut self, units: usize) {
        self.commits += units;
    }

    /// The file that says which job of a cluster works on this one.
    #[cfg(feature = "cluster")]
    pub(crate) fn cluster_record(&self) -> Location {
        self.record("cluster.json")
    }

    /// As [`Self::begin`], without changing anything.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) async fn look(&self, manifest: &Manifest, permissions: Permissions) -> Result<Progress> {
        let listing = self.list().await?;
        let existing = self.manifest().await?;
        if existing.is_some() && permissions.restart {
            return Ok(Progress::default());
        }
        self.check(manifest, existing.as_ref(), permissions, &listing)?;
        self.progress_of(manifest, &listing).await
    }

    /// `job.json`, if there is one.
    pub(crate) async fn manifest(&self) -> Result<Option<Manifest>> {
        let file = self.record("job.json");
        let Some(bytes) = file.read().await? else { return Ok(None) };
        let manifest = serde_json::from_slice(&bytes).with_context(|| {
            format!("{file} is not this program's; name another OUTPUT, or delete the directory it is in to start over")
        })?;
        Ok(Some(manifest))
    }

    /// What is known of the units of a job. Changes nothing.
    pub(crate) async fn progress(&self, manifest: &Manifest) -> Result<Progress> {
        self.progress_of(manifest, &self.list().await?).await
    }

    /// Records that a unit is done.
    pub(crate) async fn commit(&mut self, marker: &Marker) -> Result<()> {
        write_small(&self.unit_record("units", &marker.unit), json(marker)?).await?;
        self.commits += 1;
        if self.failed.remove(&marker.unit) {
            remove(&self.unit_record("failed", &marker.unit)).await?;
        }
        Ok(())
    }

    /// How many units are done.
    pub(crate) fn commits(&self) -> usize {
        self.commits
    }

    /// Records why the run ends at a unit. That this cannot be written either is only logged: there is an error to
    /// report already.
    pub(crate) async fn fail(&self, manifest: &Manifest, unit: &UnitEntry, reason: String) {
        let failure = Failure {
            unit: unit.id.clone(),
            input: manifest.inputs[unit.input].name.clone(),
            number: unit.number,
            reason,
            at: now(),
        };
        let write = async { write_small(&self.unit_record("failed", &unit.id), json(&failure)?).await };
        // The store may be what failed, and would be tried for minutes.
        match tokio::time::timeout(FAILURE_TIMEOUT, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the failure could not be recorded"),
            Err(_) => tracing::debug!("the failure could not be recorded in time"),
        }
    }

    fn record(&self, name: &str) -> Location {
        self.output.below(&format!("{FOLDER}/{name}"))
    }

    fn unit_record(&self, kind: &str, unit: &str) -> Location {
        self.record(&format!("{kind}/{unit}.json"))
    }

    async fn list(&self) -> Result<Listing> {
        let output = &self.output;
        let files = output.store.list(Some(&output.path)).map_ok(|meta| (meta.location, meta.size));
        files.try_collect().await.with_context(|| format!("cannot list OUTPUT {output}"))
    }

    /// Whether the job may go on, or begin, with what is there.
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
        // The least, so that the message does not change from run to run.
        if let Some(path) = listing.keys().filter(visible).min() {
            bail!(
                "OUTPUT {output} has files of something else in it ({}); name an empty directory, or pass --overwrite to write beside them",
                output.with_path(path.clone())
            );
        }
        Ok(())
    }

    /// Writes `job.json`; tells whether this process did.
    async fn create(&self, manifest: &Manifest) -> Result<bool> {
        let file = self.record("job.json");
        match file.store.put_opts(&file.path, json(manifest)?.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            // Or a request that was thought lost, and was not.
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // A store without conditions: two processes that begin one job write the same.
            Err(object_store::Error::NotImplemented { .. }) => {
                write_small(&file, json(manifest)?).await?;
                Ok(true)
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {file}")),
        }
    }

    /// Deletes what killed runs left, unless another process is at work. Other stores show unfinished files to nobody
    /// and are told by a rule of the bucket when to forget them.
    fn sweep(&mut self) -> Result<()> {
        let (Some(job), Some(folder)) = (self.record("job.json").local_path(), self.record("").local_path()) else {
            return Ok(());
        };
        let (lock, others) = Lock::new(&job).with_context(|| format!("cannot write {}", job.display()))?;
        if others == Others::AtWork {
            tracing::warn!("another process is at work on this job");
        } else {
            for (folder, all) in [
                (folder.join("tmp"), true),
                (folder.join("units"), false),
                (folder.join("failed"), false),
                (folder, false),
            ] {
                remove_unfinished(&folder, |name| all || is_unfinished(name));
            }
        }
        lock.share();
        self.lock = Some(lock);
        Ok(())
    }

    async fn progress_of(&self, manifest: &Manifest, listing: &Listing) -> Result<Progress> {
        let committed = self.read_all(manifest, listing, "units").await?;
        let committed: HashMap<String, Marker> = manifest
            .units
            .iter()
            .zip(committed)
            .filter_map(|(unit, marker): (_, Option<Marker>)| {
                let marker = marker?;
                let size_bytes = listing.get(&self.data_file(manifest, unit).path);
                (size_bytes == Some(&marker.size_bytes)).then(|| (unit.id.clone(), marker))
            })
            .collect();
        let failed = self.read_all(manifest, listing, "failed").await?;
        let failed = manifest
            .units
            .iter()
            .zip(failed)
            .filter_map(|(unit, failure)| Some((unit.id.clone(), failure?)))
            .filter(|(unit, _)| !committed.contains_key(unit))
            .collect();
        Ok(Progress { committed, failed })
    }

    /// The records of one kind, `None` for units without one. A record that is damaged is as good as none.
    async fn read_all<T: serde::de::DeserializeOwned>(
        &self,
        manifest: &Manifest,
        listing: &Listing,
        kind: &str,
    ) -> Result<Vec<Option<T>>> {
        let read = |unit: &UnitEntry| {
            let file = self.unit_record(kind, &unit.id);
            let exists = listing.contains_key(&file.path);
            async move {
                let bytes = if exists { file.read().await? } else { None };
                Ok::<_, anyhow::Error>(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
            }
        };
        stream::iter(&manifest.units).map(read).buffered(FILES_AT_ONCE).try_collect().await
    }

    /// Deletes a job's data files and records, and nothing else.
    async fn delete(&self, manifest: &Manifest, listing: &Listing) -> Result<()> {
        let job = self.record("job.json");
        if let Some(path) = job.local_path()
            && Lock::new(&path).with_context(|| format!("cannot write {}", path.display()))?.1 == Others::AtWork
        {
            bail!("OUTPUT {}: another process is at work on this job; stop it before --restart", self.output);
        }
        let files = manifest.units.iter().flat_map(|unit| {
            [self.unit_record("units", &unit.id), self.unit_record("failed", &unit.id), self.data_file(manifest, unit)]
        });
        let existing: Vec<Location> = files.filter(|file| listing.contains_key(&file.path)).collect();
        let removals = existing.iter().map(remove);
        stream::iter(removals).buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await?;
        // Last: without it nobody would know whose the other files are.
        remove(&job).await
    }
}

/// Deletes a file; it is no error if it is gone.
pub(crate) async fn remove(file: &Location) -> Result<()> {
    match file.store.delete(&file.path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot delete {file}")),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value).context("a record is not JSON")?;
    text.push(b'\n');
    Ok(text)
}
