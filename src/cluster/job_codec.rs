//! The operator of a job on its way to executors.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_rerank::RerankCodec;

use super::messages::JobMessage;
use super::score_units_exec::ScoreUnitsExec;
use super::unit_work::UnitWork;
use crate::printer::one_line;

/// What the bytes of the operator begin with; those of other operators do not.
const MAGIC: &[u8] = b"rerank-units\0";

/// Writes and reads [`ScoreUnitsExec`], and leaves other operators to the library's codec.
#[derive(Debug)]
pub(crate) struct JobCodec {
    rerank: RerankCodec,
    /// How an executor does units.
    work: Option<UnitWork>,
}

impl JobCodec {
    /// For clients and schedulers.
    pub(crate) fn new(rerank: RerankCodec) -> Self {
        Self { rerank, work: None }
    }

    /// For executors.
    pub(crate) fn for_executor(rerank: RerankCodec, work: UnitWork) -> Self {
        Self { rerank, work: Some(work) }
    }
}

impl PhysicalExtensionCodec for JobCodec {
    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(job) = buffer.strip_prefix(MAGIC) else {
            return self.rerank.try_decode(buffer, inputs, context, converter);
        };
        let job = JobMessage::parse(job).map_err(|error| DataFusionError::Plan(one_line(&error)))?;
        let [input] = inputs else {
            return Err(DataFusionError::Internal(format!("ScoreUnitsExec has one input, not {}", inputs.len())));
        };
        Ok(Arc::new(ScoreUnitsExec::new(job, Arc::clone(input), self.work.clone())))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(operator) = node.downcast_ref::<ScoreUnitsExec>() else {
            return self.rerank.try_encode(node, buffer, converter);
        };
        buffer.extend_from_slice(MAGIC);
        let job = operator.job().to_text().map_err(|error| DataFusionError::Internal(one_line(&error)))?;
        buffer.extend_from_slice(job.as_bytes());
        Ok(())
    }
}
