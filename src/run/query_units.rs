//! Runs a query over each unit in turn.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::mpsc;

use super::plan::{Failed, Plan, Scored};
use crate::job::Query;
use crate::report::Tally;

/// Scored batches that may wait for the writer.
const BATCHES_SCORED: usize = 2;

/// Runs the query for each unit of the plan in order. Stops within one device batch when the receiver is dropped.
pub(crate) fn query_units(query: Arc<Query>, plan: Arc<Plan>) -> mpsc::Receiver<Result<Scored, Failed>> {
    let (sender, receiver) = mpsc::channel(BATCHES_SCORED);
    tokio::spawn(async move {
        for task in 0..plan.tasks.len() {
            if let Err(error) = query_unit(&query, &plan, task, &sender).await {
                // The receiver is gone if the run has ended.
                drop(sender.send(Err(Failed { task: Some(task), error })).await);
                return;
            }
            if sender.is_closed() {
                return;
            }
        }
    });
    receiver
}

async fn query_unit(
    query: &Query,
    plan: &Plan,
    task: usize,
    sender: &mpsc::Sender<Result<Scored, Failed>>,
) -> Result<()> {
    let unit = &plan.tasks[task].unit;
    let mut result = query.begin(plan.inputs[unit.input].clone(), unit.clone()).await?;
    let schema = result.schema();
    loop {
        let (batch, stats) = result.next().await?;
        let last = batch.is_none();
        let tally = Tally::of(stats);
        let scored = Scored { task, schema: Arc::clone(&schema), batches: batch.into_iter().collect(), tally, last };
        if sender.send(Ok(scored)).await.is_err() || last {
            return Ok(());
        }
    }
}
