//! The remaining work of a job.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Result;

use super::plan::{Plan, Task};
use crate::files::{Target, refuse_existing, refuse_input};
use crate::job::{Job, Ledger, Marker, Unit};
use crate::storage::{Claim, Location};
use crate::terminal::Stopped;

/// The remaining work of a job.
#[derive(Debug)]
pub(crate) struct Work {
    /// The records of the job; `None` if a single file is written.
    pub(crate) ledger: Option<Ledger>,
    /// The right to write a single local file. Dropping it removes unfinished files.
    pub(crate) claim: Option<Claim>,
    /// The remaining units.
    pub(crate) plan: Arc<Plan>,
    /// The markers of units that earlier runs committed, by unit id.
    pub(crate) committed: HashMap<String, Marker>,
}

impl Work {
    /// Begins or resumes the job. A dry run only reads its records.
    ///
    /// # Errors
    /// If the output would be read as input, OUTPUT holds something else, or another process is writing it.
    pub(crate) async fn begin(job: &Job, dry_run: bool, stop: Pin<&mut impl Future<Output = Stopped>>) -> Result<Self> {
        let Job { inputs, target, manifest, .. } = job;
        let (ledger, claim, committed, tasks) = match target {
            Target::File(file, _) => {
                let claim = if dry_run { None } else { claim(file, job.permissions.overwrite, stop).await? };
                let staging = claim.as_ref().map(Claim::staging);
                let tasks = manifest.units.iter().map(|unit| task(unit, file.clone(), staging.cloned())).collect();
                (None, claim, HashMap::new(), tasks)
            }
            Target::Directory(output) => {
                let mut ledger = Ledger::new(output.clone());
                let data_file = |ledger: &Ledger, unit| ledger.data_file(unit, manifest.input_name(unit));
                // Refuse outputs that the next run would read before creating anything.
                for unit in &manifest.units {
                    refuse_input(&data_file(&ledger, unit), inputs)?;
                }
                let progress = if dry_run {
                    ledger.look(manifest, job.permissions).await?
                } else {
                    ledger.begin(manifest, job.permissions).await?
                };
                let left = manifest.units.iter().filter(|unit| !progress.committed.contains_key(&unit.id));
                let tasks =
                    left.map(|unit| task(unit, data_file(&ledger, unit), ledger.staging_file(&unit.id))).collect();
                (Some(ledger), None, progress.committed, tasks)
            }
        };
        let plan = Plan {
            inputs: inputs.files.clone(),
            tasks,
            scoring: job.scoring.clone(),
            format: job.format,
            on_error: job.on_error,
        };
        Ok(Self { ledger, claim, plan: Arc::new(plan), committed })
    }
}

fn task(unit: &Unit, output: Location, staging: Option<Location>) -> Task {
    Task { unit: unit.clone(), output, staging }
}

/// Claims the file if it is on a local disk.
async fn claim(
    file: &Location,
    overwrite: bool,
    stop: Pin<&mut impl Future<Output = Stopped>>,
) -> Result<Option<Claim>> {
    // From here on, signals are caught. Before, they ended the process, and there was nothing to remove.
    if let Poll::Ready(stopped) = futures::poll!(stop) {
        return Err(stopped.into());
    }
    let claim = Claim::new(file)?;
    // Another process may have finished the file since the first check.
    refuse_existing(file, overwrite).await?;
    Ok(claim)
}
