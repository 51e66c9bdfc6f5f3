//! Serializes the operator of a job for executors.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_rerank::cluster::RerankCodec;

use super::messages::JobMessage;
use super::score_units_exec::ScoreUnitsExec;
use super::unit_work::UnitWork;
use crate::terminal::one_line;

/// The prefix of the serialized operator; those of other operators differ.
const MAGIC: &[u8] = b"rerank-units\0";

/// Serializes [`ScoreUnitsExec`], and leaves other operators to the library's codec.
#[derive(Debug)]
pub(crate) struct JobCodec {
    rerank: RerankCodec,
    /// What an executor needs to run units.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::physical_plan::ExecutionPlanProperties;
    use datafusion::prelude::SessionContext;
    use datafusion_proto::physical_plan::AsExecutionPlan;
    use datafusion_proto::protobuf::PhysicalPlanNode;
    use datafusion_rerank::RerankFunctions;
    use serde_json::json;

    use super::super::messages::{UnitMessage, Work};
    use super::*;
    use crate::files::{InputFile, InputIdentity};
    use crate::job::{JobSettings, Unit};
    use crate::storage::Location;

    #[tokio::test]
    async fn a_jobs_plan_arrives_with_a_partition_for_each_unit() {
        let settings = JobSettings {
            options: json!({"max_length": 64, "prompt": "?"}),
            sql: None,
            query: "q".into(),
            passage: "p".into(),
            score: "s".into(),
            on_error: "null".into(),
            unit_rows: 10,
            compression: "zstd".into(),
            row_group_rows: 7,
        };
        let location = Location::parse("/data/a.parquet").unwrap();
        let identity = InputIdentity { name: "a.parquet".into(), size_bytes: 5, version: "v".into() };
        let file = InputFile { location, identity };
        let unit = |number: usize| Unit { id: format!("{number:016x}"), number, rows: 10, ..Unit::default() };
        let messages: Vec<UnitMessage> =
            (0..5).map(|number| UnitMessage::new(&unit(number), Work::Score, &file)).collect();
        let output = Location::parse("s3://bucket/out").unwrap();
        let session = BTreeMap::from([("rerank.window_rows".to_owned(), "7".to_owned())]);
        let job = JobMessage::new(&output, json!({"name": "m3"}), vec!["f".into()], settings, session, None);

        let codec = JobCodec::new(RerankCodec::new(&RerankFunctions::default()));
        let plan = Arc::new(ScoreUnitsExec::of_units(job.clone(), &messages).unwrap());
        let message = PhysicalPlanNode::try_from_physical_plan(plan, &codec).unwrap();
        let context = SessionContext::new().task_ctx();
        let copy = message.try_into_physical_plan(&context, &codec).unwrap();
        assert_eq!(copy.downcast_ref::<ScoreUnitsExec>().unwrap().job(), &job);
        assert_eq!(copy.output_partitioning().partition_count(), messages.len());
        assert_eq!(PhysicalPlanNode::try_from_physical_plan(Arc::clone(&copy), &codec).unwrap(), message);
        // The plan is forwarded here, not run.
        let error = copy.execute(0, context).err().unwrap().to_string();
        assert!(error.contains("a job runs on executors only"), "{error}");
    }
}
