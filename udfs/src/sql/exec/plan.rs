//! Models and counters of the scoring operators in a physical plan.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

use super::call_model::CallModel;
use super::rerank_exec::RerankExec;
use crate::engine::ScoreStats;
use crate::reranker::Reranker;

/// The models that a plan scores with, one for each call, open and with the options in force. A plan from another
/// process has none: its models are opened when it runs.
pub fn plan_models(plan: &Arc<dyn ExecutionPlan>) -> Vec<Reranker> {
    let mut models = Vec::new();
    visit(plan, &mut |operator| {
        models.extend(operator.calls().iter().filter_map(|call| match &call.model {
            CallModel::Open { reranker, .. } => Some(reranker.clone()),
            #[cfg(feature = "cluster")]
            CallModel::Planned { .. } => None,
        }));
    });
    models
}

/// The counters of a plan's scoring operators over all partitions, while it runs or afterwards. `rows` is 0: how many
/// rows an operator reads is up to the plan.
pub fn plan_stats(plan: &Arc<dyn ExecutionPlan>) -> ScoreStats {
    let mut stats = ScoreStats::default();
    visit(plan, &mut |operator| stats += operator.stats());
    stats
}

fn visit(plan: &Arc<dyn ExecutionPlan>, each: &mut impl FnMut(&RerankExec)) {
    if let Some(operator) = plan.downcast_ref::<RerankExec>() {
        each(operator);
    }
    for child in plan.children() {
        visit(child, each);
    }
}
