//! A query that a cluster runs, seen from the client.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::{TryStreamExt, stream};

use super::address::ClusterAddress;
use super::codec::RerankCodec;
use super::failure::failure_cause;

/// Submits a plan to a scheduler when executed, and streams the rows back from the executors.
#[derive(Debug, Clone)]
pub(super) struct ClusterQueryExec {
    address: ClusterAddress,
    codec: Arc<RerankCodec>,
    plan: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl ClusterQueryExec {
    pub(super) fn new(address: ClusterAddress, codec: Arc<RerankCodec>, plan: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(plan.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { address, codec, plan, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ClusterQueryExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "ClusterQueryExec: {}", self.address),
            DisplayFormatType::TreeRender => writeln!(f, "{}", self.address),
        }
    }
}

impl ExecutionPlan for ClusterQueryExec {
    fn name(&self) -> &'static str {
        "ClusterQueryExec"
    }

    fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// None: the operators of the plan run elsewhere.
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Self { address, codec, plan, .. } = self.clone();
        let running = async move {
            let config = context.session_config().clone();
            let ballista = config.ballista_config();
            let rows = execute_physical_plan::<PhysicalPlanNode>(
                address.endpoint(),
                &ballista,
                plan,
                codec.as_ref(),
                context.session_id(),
                config,
            );
            rows.await.map_err(|error| readable(&address, &error))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(running).try_flatten())))
    }
}

fn readable(address: &ClusterAddress, error: &DataFusionError) -> DataFusionError {
    let message = error.strip_backtrace();
    if message.contains("GrpcConnectionError") || message.contains("tonic::transport::Error") {
        let cause = failure_cause(&message);
        return DataFusionError::Execution(format!("the scheduler {address} cannot be reached: {cause}"));
    }
    DataFusionError::Execution(failure_cause(&message))
}
