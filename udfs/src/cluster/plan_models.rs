//! What a plan scores with.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

use crate::reranker::Reranker;
use crate::sql::{CallModel, RerankExec};

/// The opened models of a plan's scoring operators, one for each call.
pub fn plan_models(plan: &Arc<dyn ExecutionPlan>) -> Vec<Reranker> {
    let mut models = Vec::new();
    if let Some(operator) = plan.downcast_ref::<RerankExec>() {
        models.extend(operator.calls().iter().filter_map(|call| match &call.model {
            CallModel::Open { reranker, .. } => Some(reranker.clone()),
            CallModel::Planned(_) => None,
        }));
    }
    for child in plan.children() {
        models.extend(plan_models(child));
    }
    models
}
