//! Plans queries on the client for a cluster.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::planner::scans_only_information_schema;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::address::ClusterAddress;
use super::codec::RerankCodec;
use super::query_exec::ClusterQueryExec;

/// Plans as the session itself would, and wraps the plan in a [`ClusterQueryExec`].
///
/// Ballista's own planner sends the logical plan and lets the scheduler make the physical one, with the scheduler's
/// rules instead of the session's: calls would not run in their operator, and their options would travel as settings.
#[derive(Debug)]
pub(super) struct PlanQuery {
    address: ClusterAddress,
    codec: Arc<RerankCodec>,
}

impl PlanQuery {
    pub(super) fn new(address: ClusterAddress, codec: Arc<RerankCodec>) -> Self {
        Self { address, codec }
    }

    fn on_cluster(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = keep_limits(Arc::clone(plan))?;
        Ok(Arc::new(ClusterQueryExec::new(self.address.clone(), Arc::clone(&self.codec), plan)))
    }
}

/// Ballista drops the limit of an in-memory table when it assigns partitions to a task, so the limit becomes an
/// operator above the table.
fn keep_limits(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let kept = plan.transform_up(|plan| {
        let in_memory = plan.downcast_ref::<DataSourceExec>().is_some_and(|scan| {
            let source: &dyn Any = scan.data_source().as_ref();
            source.is::<MemorySourceConfig>()
        });
        Ok(match (plan.fetch(), in_memory.then(|| plan.with_fetch(None)).flatten()) {
            (Some(rows), Some(unlimited)) => {
                Transformed::yes(Arc::new(LocalLimitExec::new(unlimited, rows)) as Arc<dyn ExecutionPlan>)
            }
            _ => Transformed::no(plan),
        })
    })?;
    Ok(kept.data)
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
            // This process writes results: to its own files, or to a table of this session.
            (_, [input]) if matches!(logical_plan, LogicalPlan::Analyze(_)) || plan.is::<DataSinkExec>() => {
                let input = self.on_cluster(input)?;
                Arc::clone(&plan).replace_children(vec![input], recompute())?
            }
            // Tables that describe this session, which no other process has.
            _ if scans_only_information_schema(logical_plan)? => plan,
            _ => self.on_cluster(&plan)?,
        })
    }
}

fn recompute() -> ReplaceChildrenOptions {
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute)
}
