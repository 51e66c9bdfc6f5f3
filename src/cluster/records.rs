//! How the processes of a cluster read and write the records of a job.

use std::collections::HashSet;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use object_store::path::Path;

use crate::job::{DONE, FAILED, FileMarker, Ledger, Marker, Unit, UnitFailure};
use crate::storage::{Location, Lock};

impl Ledger {
    /// Joins a job that another process has begun. Other runs see that this process is working, and leave its
    /// unfinished files alone.
    pub(super) fn join(&mut self, unit: &Unit) -> Result<()> {
        self.expect_failures([unit.id.clone()]);
        let Some(job) = self.record("job.json").local_path() else { return Ok(()) };
        let (lock, _) = Lock::new(&job).with_context(|| {
            format!("{} cannot be opened; all machines must see OUTPUT at the same path", job.display())
        })?;
        self.hold(lock);
        Ok(())
    }

    /// The marker of a unit of this input; `None` if the unit is not done.
    pub(super) async fn marker(&self, unit: &Unit, input: &str) -> Result<Option<Marker>> {
        let Some(bytes) = self.unit_record(DONE, &unit.id).read().await? else { return Ok(None) };
        let Ok(marker) = serde_json::from_slice::<Marker>(&bytes) else { return Ok(None) };
        let size_bytes = self.data_file(unit, input).file_size_bytes().await?;
        Ok((size_bytes == Some(marker.size_bytes)).then_some(marker))
    }

    /// Whether the file of several units is complete; `first` is the first of them.
    pub(super) async fn is_copied(&self, first: &Unit, input: &str) -> Result<bool> {
        let Some(bytes) = self.file_record(first).read().await? else { return Ok(false) };
        let Ok(marker) = serde_json::from_slice::<FileMarker>(&bytes) else { return Ok(false) };
        Ok(self.pieced_file(first, input).file_size_bytes().await? == Some(marker.size_bytes))
    }

    /// Deletes the failure records that earlier runs left for these units.
    pub(super) async fn forget_failures<'a>(&mut self, units: impl IntoIterator<Item = &'a Unit>) -> Result<()> {
        for unit in units {
            self.forget_failure(&unit.id).await?;
        }
        Ok(())
    }

    /// The recorded failure of one of these units, if there is any.
    pub(super) async fn failure<'a>(&self, units: impl IntoIterator<Item = &'a Unit>) -> Result<Option<UnitFailure>> {
        let listed: HashSet<Path> = list(&self.record(FAILED)).await?.into_iter().collect();
        for unit in units {
            let file = self.unit_record(FAILED, &unit.id);
            if listed.contains(&file.path)
                && let Some(bytes) = file.read().await?
                && let Ok(failure) = serde_json::from_slice(&bytes)
            {
                return Ok(Some(failure));
            }
        }
        Ok(None)
    }

    /// The ids of the units that have markers.
    pub(super) async fn marked(&self) -> Result<HashSet<String>> {
        let id = |path: &Path| path.filename()?.strip_suffix(".json").map(str::to_owned);
        Ok(list(&self.record(DONE)).await?.iter().filter_map(id).collect())
    }

    /// The file that names the cluster's job for this one.
    pub(super) fn cluster_record(&self) -> Location {
        self.record("cluster.json")
    }
}

async fn list(folder: &Location) -> Result<Vec<Path>> {
    let listed = folder.store.list(Some(&folder.path)).map_ok(|meta| meta.location);
    listed.try_collect().await.with_context(|| format!("cannot list {folder}"))
}
