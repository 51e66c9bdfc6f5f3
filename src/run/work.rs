//! The remaining work of a job.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::Result;

use super::plan::{Content, Plan, Task};
use super::scored_copy::ScoredCopy;
use crate::files::{Destination, Target, refuse_existing, refuse_input};
use crate::job::{Job, Ledger, Marker, Scoring, Unit};
use crate::storage::{Claim, Location, Replaces};
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
        let mut copies = Vec::new();
        let (ledger, claim, committed, tasks) = match target {
            Target::File(file, kind) => {
                let overwrite = job.permissions.overwrite;
                let claim = if dry_run { None } else { claim(file, overwrite, stop).await? };
                let destination = Destination {
                    location: file.clone(),
                    staging: claim.as_ref().map(Claim::staging).cloned(),
                    replaces: if overwrite { Replaces::Any } else { Replaces::Nothing },
                };
                let task = |unit: &Unit| {
                    let is_copy =
                        matches!(job.scoring, Scoring::Columns(_)) && inputs.files[unit.input].is_spliced(*kind);
                    Task {
                        unit: unit.clone(),
                        name: String::new(),
                        destination: destination.clone(),
                        content: if is_copy { Content::Copy } else { Content::Rows },
                    }
                };
                (None, claim, HashMap::new(), manifest.units.iter().map(task).collect())
            }
            Target::Directory(output) => {
                let mut ledger = Ledger::new(output.clone());
                // Refuse outputs that the next run would read before creating anything.
                for unit in &manifest.units {
                    refuse_input(&ledger.data_file(unit, manifest.input_name(unit)), inputs)?;
                }
                for first in manifest.pieced_files().filter_map(|units| units.first()) {
                    refuse_input(&ledger.pieced_file(first, manifest.input_name(first)), inputs)?;
                }
                let progress = if dry_run {
                    ledger.look(manifest, job.permissions).await?
                } else {
                    ledger.begin(manifest, job.permissions).await?
                };
                if let Scoring::Columns(columns) = &job.scoring {
                    let missing = manifest.pieced_files().filter(|units| !progress.files.contains_key(&units[0].id));
                    copies.extend(missing.map(|units| {
                        let input = inputs.files[units[0].input].clone();
                        ScoredCopy::new(&ledger, input, units, columns.clone(), job.format.compression)
                    }));
                }
                let left = manifest.units.iter().filter(|unit| !progress.committed.contains_key(&unit.id));
                let splices = |unit: &Unit| manifest.settings.splices(manifest.input_name(unit));
                let tasks = left.map(|unit| ledger.task(unit, manifest.input_name(unit), splices(unit))).collect();
                (Some(ledger), None, progress.committed, tasks)
            }
        };
        let plan = Plan {
            inputs: inputs.files.clone(),
            tasks,
            scoring: job.scoring.clone(),
            copies,
            format: job.format,
            on_error: job.on_error,
        };
        Ok(Self { ledger, claim, plan: Arc::new(plan), committed })
    }
}

impl Ledger {
    /// The task of a unit of this job. `splices` says whether output files are copies of this input.
    pub(crate) fn task(&self, unit: &Unit, input: &str, splices: bool) -> Task {
        let destination = Destination {
            location: self.data_file(unit, input),
            staging: self.staging_file(&unit.id),
            replaces: Replaces::Any,
        };
        let content = match (unit.piece, splices) {
            (Some(_), _) => Content::Scores,
            (None, true) => Content::Copy,
            (None, false) => Content::Rows,
        };
        Task { unit: unit.clone(), name: unit.data_name(input), destination, content }
    }
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
