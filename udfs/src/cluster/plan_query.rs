//! Plans queries on the client, for a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::planner::scans_only_information_schema;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::address::ClusterAddress;
use super::codec::RerankCodec;
use super::query_exec::ClusterQueryExec;

/// Plans as a session of its own would, and puts the plan into a [`ClusterQueryExec`].
///
/// Ballista's own planner sends the logical plan and lets the scheduler make the physical one, with rules of its own
/// in place of the session's: calls would not run in their operator, and their options would travel as settings.
#[derive(Debug)]
pub(super) struct PlanQuery {
    address: ClusterAddress,
    codec: Arc<RerankCodec>,
}

impl PlanQuery {
    pub(super) fn new(address: ClusterAddress, codec: Arc<RerankCodec>) -> Self {
        Self { address, codec }
    }

    fn on_cluster(&self, plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(ClusterQueryExec::new(self.address.clone(), Arc::clone(&self.codec), plan))
    }
}

#[async_trait]
impl QueryPlanner for PlanQuery {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = DefaultPhysicalPlanner::default().create_physical_plan(logical_plan, session).await?;
        Ok(match (logical_plan, plan.children().as_slice()) {
            (LogicalPlan::Explain(_) | LogicalPlan::EmptyRelation(_), _) => plan,
            (LogicalPlan::Analyze(_), [analyzed]) => {
                let analyzed = self.on_cluster(Arc::clone(analyzed));
                let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                plan.replace_children(vec![analyzed], recompute)?
            }
            // They describe this session, which no other process has.
            _ if scans_only_information_schema(logical_plan)? => plan,
            _ => self.on_cluster(plan),
        })
    }
}
