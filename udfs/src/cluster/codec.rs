//! The operator on its way to other processes.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;

use super::executor_models::ExecutorModels;
use super::message::{CallMessage, OperatorMessage};
use super::planned_model::PlannedModel;
use crate::functions::{RerankFunctions, planning};
use crate::plan::{CallModel, KnownFunctions, RerankCall, RerankExec};

/// What the bytes of the operator begin with; those of Ballista's operators do not.
const MAGIC: &[u8] = b"rerank\0";

/// Version of what follows, raised by every change that an older program would misread.
pub(super) const VERSION: u32 = 1;

/// The remedy where programs do not understand each other.
pub(super) const MIXED_VERSIONS: &str = "run one version of this program on client, scheduler and executors";

/// Writes and reads `RerankExec`, and leaves Ballista's own operators to Ballista's codec.
///
/// Models are named, not opened: a scheduler needs none. Executors open them as [`Self::for_executor`] says, when the
/// operator runs.
#[derive(Debug)]
pub struct RerankCodec {
    functions: KnownFunctions,
    models: Option<ExecutorModels>,
    ballista: BallistaPhysicalExtensionCodec,
}

impl RerankCodec {
    /// For clients and schedulers. The session's functions must be these.
    pub fn new(functions: &RerankFunctions) -> Self {
        Self { functions: functions.known(), models: None, ballista: BallistaPhysicalExtensionCodec::default() }
    }

    /// For executors, which open models of plans in this way. Their functions must be these.
    pub fn for_executor(functions: &RerankFunctions, models: ExecutorModels) -> Self {
        Self { models: Some(models), ..Self::new(functions) }
    }

    fn decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let message = OperatorMessage::decode(bytes).map_err(|error| unreadable(&error))?;
        if message.version != VERSION {
            return Err(DataFusionError::Plan(format!(
                "the plan has a rerank operator of version {}, this program knows version {VERSION}; {MIXED_VERSIONS}",
                message.version
            )));
        }
        let [input] = inputs else {
            return Err(DataFusionError::Internal(format!("RerankExec has one input, not {}", inputs.len())));
        };
        let schema = input.schema();
        let context = PhysicalPlanDecodeContext::new(context, self);
        let call = |message: CallMessage| {
            let function =
                PhysicalExprNode::decode(message.function.as_slice()).map_err(|error| unreadable(&error))?;
            let function = converter.proto_to_physical_expr(&function, &schema, &context)?;
            let model = serde_json::from_str(&message.model).map_err(|error| unreadable(&error))?;
            let model = PlannedModel::from_json(&model).map_err(|error| planning(&error))?;
            let model = match &self.models {
                Some(models) => model.opened_by(models.clone()),
                None => model,
            };
            let Some(call) = function.downcast_ref::<ScalarFunctionExpr>() else {
                return Err(DataFusionError::Plan(format!("{function} of a rerank operator is no call; {MIXED_VERSIONS}")));
            };
            let (Some(known), [query, passage, ..]) = (self.functions.find(call.fun()), call.args()) else {
                return Err(DataFusionError::Plan(format!("{function} is no call of a rerank function; {MIXED_VERSIONS}")));
            };
            Ok(RerankCall {
                query: Arc::clone(query),
                passage: Arc::clone(passage),
                make_column: known.make_column,
                model: CallModel::Planned(model),
                expression: Arc::new(AsyncFuncExpr::try_new(message.column, Arc::clone(&function), &schema)?),
            })
        };
        let calls = message.calls.into_iter().map(call).collect::<Result<_>>()?;
        Ok(Arc::new(RerankExec::try_new(calls, Arc::clone(input))?))
    }

    fn encode(
        &self,
        operator: &RerankExec,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let call = |call: &RerankCall| {
            let model = match &call.model {
                CallModel::Open { name, reranker } => PlannedModel::of(name, reranker)?,
                CallModel::Planned(planned) => planned.clone(),
            };
            Ok(CallMessage {
                column: call.expression.name().to_owned(),
                function: converter.physical_expr_to_proto(&call.expression.func, self)?.encode_to_vec(),
                model: model.to_json().to_string(),
            })
        };
        let calls = operator.calls().iter().map(call).collect::<Result<_>>()?;
        buffer.extend_from_slice(MAGIC);
        OperatorMessage { version: VERSION, calls }
            .encode(buffer)
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

fn unreadable(error: &dyn std::error::Error) -> DataFusionError {
    DataFusionError::Plan(format!("a rerank operator cannot be read: {error}; {MIXED_VERSIONS}"))
}

impl PhysicalExtensionCodec for RerankCodec {
    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match buffer.strip_prefix(MAGIC) {
            Some(bytes) => self.decode(bytes, inputs, context, converter),
            None => self.ballista.try_decode(buffer, inputs, context, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match node.downcast_ref::<RerankExec>() {
            Some(operator) => self.encode(operator, buffer, converter),
            None => self.ballista.try_encode(node, buffer, converter),
        }
    }
}
