//! A job that the executors of a cluster run.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Result, bail};
use datafusion_rerank::cluster::{ClusterAddress, PlannedModel};

use super::client::Cluster;
use super::messages::JobMessage;
use crate::files::Target;
use crate::job::{Job, Ledger, Scoring};
use crate::model::session;
use crate::report::Totals;
use crate::run::{Plan, Progress, with_advice};
use crate::storage::Location;
use crate::terminal::{Printer, Stopped};

/// A job, and the cluster that runs it.
#[derive(Debug)]
pub(crate) struct ClusterJob {
    cluster: Cluster,
    output: Location,
}

impl ClusterJob {
    /// Connects to the scheduler. Cancels what a killed client had submitted.
    ///
    /// # Errors
    /// If OUTPUT is a file, or the scheduler cannot be reached.
    pub(crate) async fn connect(address: &ClusterAddress, job: &Job) -> Result<Self> {
        let Target::Directory(output) = &job.target else {
            bail!("--cluster is for jobs, whose OUTPUT is a directory: its units are what executors share");
        };
        let mut cluster = Cluster::connect(address).await?;
        cluster.cancel_orphan(&Ledger::new(output.clone())).await?;
        Ok(Self { cluster, output: output.clone() })
    }

    /// Runs the remaining units of the job. Also returns the longest time that an executor took to load the model.
    pub(crate) async fn run(
        mut self,
        job: &Job,
        plan: &Plan,
        ledger: &mut Ledger,
        printer: Printer,
        stop: Pin<&mut impl Future<Output = Stopped>>,
    ) -> Result<(Totals, Duration)> {
        let model = PlannedModel::of(&job.model_name, &job.reranker)?;
        let (session, input) = match &job.scoring {
            Scoring::Query(query) => (session::session_settings(&query.settings()), Some(query.input())),
            Scoring::Columns(_) => (BTreeMap::new(), None),
        };
        let fingerprints = job.manifest.models.iter().map(|model| model.fingerprint.clone()).collect();
        let settings = job.manifest.settings.clone();
        let message = JobMessage::new(&self.output, model.to_json(), fingerprints, settings, session, input.as_deref());
        let mut progress = Progress::start(printer, plan.extent());
        match self.cluster.run(&message, plan, ledger, &mut progress, stop).await {
            Ok(load) => Ok((progress.totals(), load)),
            Err(error) if error.is::<Stopped>() => Err(with_advice(error, ledger, job)),
            Err(error) => {
                let (done, all) = (ledger.commits(), job.manifest.units.len());
                Err(error.context(format!("{done} of {all} units are committed")))
            }
        }
    }
}
