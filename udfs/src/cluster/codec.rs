//! Encodes the operator for other processes.

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

use super::message::{CallMessage, OperatorMessage, VERSION};
use crate::remote::{ExecutorModels, MIXED_VERSIONS, PlannedModel};
use crate::sql::{CallModel, KnownFunctions, QueryScores, RerankCall, RerankExec, RerankFunctions, planning};

/// Prefix of the operator's bytes. Those of Ballista's operators begin otherwise.
const MAGIC: &[u8] = b"rerank\0";

/// Encodes and decodes `RerankExec`, and leaves Ballista's own operators to Ballista's codec.
///
/// Models are named, not opened: a scheduler needs none. Executors open them when the operator runs, as
/// [`Self::for_executor`] says.
#[derive(Debug)]
pub struct RerankCodec {
    functions: KnownFunctions,
    models: Option<ExecutorModels>,
    ballista: BallistaPhysicalExtensionCodec,
}

impl RerankCodec {
    /// For clients and schedulers. The session must use these functions.
    pub fn new(functions: &RerankFunctions) -> Self {
        Self { functions: functions.known(), models: None, ballista: BallistaPhysicalExtensionCodec::default() }
    }

    /// For executors, which open the models of plans with `models`. The session must use these functions.
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
            let function = PhysicalExprNode::decode(message.function.as_slice()).map_err(|error| unreadable(&error))?;
            let expression = converter.proto_to_physical_expr(&function, &schema, &context)?;
            let model = serde_json::from_str(&message.model).map_err(|error| unreadable(&error))?;
            let planned = PlannedModel::from_json(&model).map_err(|error| planning(&error))?;
            let model = CallModel::Planned { planned, models: self.models.clone() };
            let Some(call) = expression.downcast_ref::<ScalarFunctionExpr>() else {
                return Err(DataFusionError::Plan(format!(
                    "{expression} of a rerank operator is no call; {MIXED_VERSIONS}"
                )));
            };
            let (Some(function), [query, passage, ..]) = (self.functions.find(call.fun()), call.args()) else {
                return Err(DataFusionError::Plan(format!(
                    "{expression} is no call of a rerank function; {MIXED_VERSIONS}"
                )));
            };
            Ok(RerankCall {
                query: Arc::clone(query),
                passage: Arc::clone(passage),
                kind: function.kind(),
                model,
                expression: Arc::new(AsyncFuncExpr::try_new(message.column, Arc::clone(&expression), &schema)?),
            })
        };
        let calls = message.calls.into_iter().map(call).collect::<Result<_>>()?;
        Ok(Arc::new(RerankExec::try_new(calls, Arc::clone(input), QueryScores::default())?))
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
                CallModel::Planned { planned, .. } => planned.clone(),
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;
    use datafusion_proto::physical_plan::AsExecutionPlan;
    use datafusion_proto::protobuf::PhysicalPlanNode;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::{RerankClusterExt, function_registry, scheduler_session};
    use crate::engine::EngineOptions;
    use crate::models::Family;
    use crate::options::{OPTION_NAMES, ScoreOptions};
    use crate::registry::ModelRegistry;
    use crate::{RerankConfig, Reranker};

    /// A value for every option, each one that the tiny checkpoints can honour.
    fn values() -> Value {
        json!({
            "precision": "int8", "normalize": true, "max_length": 64, "query_max_length": 16,
            "query_instruction": "q: ", "query_instruction_format": "<{}>{}",
            "passage_instruction": "p: ", "passage_instruction_format": "{}|{}",
            "prompt": "Is it?", "cutoff_layers": [5, 8], "compress_ratio": 2, "compress_layers": [3],
            "heads": "by_layer", "attention_softcap": true, "adapter": "",
        })
    }

    /// An adapter of the family's tiny checkpoint.
    fn adapter(family: Family) -> PathBuf {
        let name = match family {
            Family::M3 => "m3_query_value",
            Family::Gemma => "gemma_q_v",
            Family::MiniCpm => "minicpm_one_head",
            Family::Gemma2 => "gemma2_rslora",
        };
        std::path::absolute(checkpoint("adapters").join(name)).unwrap()
    }

    fn checkpoint(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
    }

    fn models() -> ModelRegistry {
        let models = ModelRegistry::default().with_hub_cache("no-such-folder");
        for (family, name) in [
            ("m3", "tiny-xlmr-reranker"),
            ("gemma", "tiny-gemma-reranker"),
            ("minicpm", "tiny-minicpm-layerwise-reranker"),
            ("gemma2", "tiny-gemma2-lightweight-reranker"),
        ] {
            models.register(family, checkpoint(name));
        }
        models
    }

    /// The client's plan of a query, before it is encoded.
    async fn plan(functions: &RerankFunctions, settings: RerankConfig, sql: &str) -> Arc<dyn ExecutionPlan> {
        let ctx = SessionContext::new();
        functions.register(&ctx).unwrap();
        ctx.state_ref().write().config_mut().options_mut().extensions.insert(settings);
        ctx.sql("CREATE TABLE t AS SELECT 'a' AS q, 'b' AS p").await.unwrap().collect().await.unwrap();
        ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
    }

    fn encode(codec: &RerankCodec, plan: Arc<dyn ExecutionPlan>) -> PhysicalPlanNode {
        PhysicalPlanNode::try_from_physical_plan(plan, codec).unwrap()
    }

    fn decode(
        codec: &RerankCodec,
        functions: &RerankFunctions,
        plan: &PhysicalPlanNode,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let state = scheduler_session(super::super::cluster_config(), Arc::default(), functions);
        plan.try_into_physical_plan(&state.task_ctx(), codec)
    }

    fn call(plan: &Arc<dyn ExecutionPlan>) -> RerankCall {
        if let Some(operator) = plan.downcast_ref::<RerankExec>() {
            return operator.calls()[0].clone();
        }
        call(plan.children()[0])
    }

    fn client(call: &RerankCall) -> Reranker {
        match &call.model {
            CallModel::Open { reranker, .. } => reranker.clone(),
            CallModel::Planned { .. } => panic!("the client has its models open"),
        }
    }

    /// Sends a plan from client to scheduler to executor. Returns the executor's model.
    async fn executors_model(
        functions: &RerankFunctions,
        plan: Arc<dyn ExecutionPlan>,
        engine: EngineOptions,
    ) -> Result<Reranker> {
        // Different functions over different names, as in another process.
        let (scheduler, executor) = (RerankFunctions::default(), RerankFunctions::new(models()));
        let message = encode(&RerankCodec::new(functions), plan);
        let codec = RerankCodec::new(&scheduler);
        let message = encode(&codec, decode(&codec, &scheduler, &message)?);
        let models = ExecutorModels::new("test:1", models(), engine, 4);
        let plan = decode(&RerankCodec::for_executor(&executor, models), &executor, &message)?;
        let model = call(&plan).model;
        assert!(matches!(model, CallModel::Planned { .. }), "the plan came from another process");
        model.open().await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_option_of_every_family_arrives() {
        let functions = RerankFunctions::new(models());
        let mut values = values();
        assert_eq!(values.as_object().unwrap().len(), OPTION_NAMES.len());
        let mut tried = std::collections::BTreeSet::new();
        for family in Family::ALL {
            values["adapter"] = json!(adapter(*family));
            for option in family.options() {
                // Set by the call, and by the session, which takes one cutoff layer only.
                let options = json!({ *option: values[*option] });
                let by_call = format!("SELECT rerank(q, p, '{family}', '{options}') AS s FROM t");
                let mut settings = RerankConfig { model: family.name().to_owned(), ..Default::default() };
                let one = if *option == "cutoff_layers" { json!(5) } else { values[*option].clone() };
                settings.options.set(option, &one).unwrap();
                let queries =
                    [(by_call, RerankConfig::default()), ("SELECT rerank(q, p) AS s FROM t".to_owned(), settings)];
                for (sql, settings) in queries {
                    let plan = plan(&functions, settings, &sql).await;
                    let expected = client(&call(&plan));
                    let arrived = executors_model(&functions, plan, EngineOptions::default()).await.unwrap();
                    let precision = Some(expected.precision());
                    let expected_options = ScoreOptions { precision, ..expected.options().clone() };
                    assert_eq!(arrived.options(), &expected_options, "{family} {option}");
                    assert!(arrived.options().to_json().get(option).is_some(), "{family} {option}");
                    assert_eq!(arrived.location(), expected.location());
                    tried.insert(*option);
                }
            }
        }
        assert_eq!(tried.len(), OPTION_NAMES.len(), "{tried:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn windows_and_batches_are_those_of_the_client_and_the_rest_of_the_executor() {
        let functions = RerankFunctions::new(models());
        let max_delay = Some(std::time::Duration::from_millis(77));
        let mut settings = RerankConfig { window_rows: 77, max_delay, ..Default::default() };
        settings.engine.batch_tokens = Some(99);
        settings.engine.threads = Some(3);
        let plan = plan(&functions, settings, "SELECT rerank(q, p) FROM t").await;
        let engine = EngineOptions { threads: Some(1), batch_tokens: Some(5), ..Default::default() };
        let arrived = executors_model(&functions, plan, engine).await.unwrap();
        assert_eq!((arrived.window_rows(), arrived.max_delay()), (77, max_delay));
        assert_eq!(arrived.engine_options().batch_tokens, Some(99));
        assert_eq!(arrived.engine_options().threads, Some(1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_keep_their_columns_and_types() {
        let functions = RerankFunctions::new(models());
        let sql = "SELECT rerank(q, p, 'minicpm', {'cutoff_layers': [5, 8]}) AS a, rerank_details(q, p) AS d, rerank_gemma(p, q) AS g FROM t";
        let plan = plan(&functions, RerankConfig::default(), sql).await;
        let codec = RerankCodec::new(&functions);
        let message = encode(&codec, Arc::clone(&plan));
        let copy = decode(&codec, &functions, &message).unwrap();
        assert_eq!(copy.schema(), plan.schema());
        let text = |plan: &Arc<dyn ExecutionPlan>| {
            let text = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
            // The two state the precision differently, and only one states the device.
            let apart = [", device=cpu, precision=fp32", ",\"precision\":\"fp32\"", "\"precision\":\"fp32\""];
            apart.into_iter().fold(text, |text, part| text.replace(part, ""))
        };
        assert_eq!(text(&copy), text(&plan));
        assert_eq!(encode(&codec, copy), message);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_versions_and_other_checkpoints_are_refused() {
        let functions = RerankFunctions::new(models());
        let codec = RerankCodec::new(&functions);
        let planned = plan(&functions, RerankConfig::default(), "SELECT rerank(q, p) FROM t").await;
        let mut operator = Arc::clone(&planned);
        while !operator.is::<RerankExec>() {
            operator = Arc::clone(operator.children()[0]);
        }
        let mut bytes = Vec::new();
        let converter = datafusion_proto::physical_plan::DefaultPhysicalProtoConverter {};
        codec.try_encode(Arc::clone(&operator), &mut bytes, &converter).unwrap();
        let mut message = OperatorMessage::decode(bytes.strip_prefix(MAGIC).unwrap()).unwrap();
        message.version = 2;
        let newer = [MAGIC, &message.encode_to_vec()].concat();
        let input = [Arc::clone(operator.children()[0])];
        let context = SessionStateBuilder::new_with_default_features().build().task_ctx();
        let error = codec.try_decode(&newer, &input, &context, &converter).unwrap_err().to_string();
        assert!(
            error.contains("a rerank operator of version 2, this program knows version 1; run one version"),
            "{error}"
        );
        let damaged = [MAGIC, b"\xff\xff"].concat();
        let error = codec.try_decode(&damaged, &input, &context, &converter).unwrap_err().to_string();
        assert!(error.contains("a rerank operator cannot be read"), "{error}");

        let executor = |models| ExecutorModels::new("gpu7:50051", models, EngineOptions::default(), 1);
        // The executor has another checkpoint by this name, or none at all.
        let CallModel::Open { reranker, .. } = call(&planned).model else { panic!("open") };
        let planned = PlannedModel::of("m3", &reranker).unwrap();
        let mut moved = planned.to_json();
        moved["location"] = json!("/no/such/folder");
        let moved = PlannedModel::from_json(&moved).unwrap();
        let other = models();
        other.register("m3", checkpoint("tiny-gemma-reranker"));
        let open = async |planned, models| {
            let model = CallModel::Planned { planned, models: Some(models) };
            model.open().await
        };
        let error = open(moved, executor(other)).await.unwrap_err().to_string();
        assert!(
            error.contains("executor gpu7:50051: model 'm3': ") && error.contains("is another checkpoint"),
            "{error}"
        );
        let mut nowhere = planned.to_json();
        nowhere["name"] = json!("mine");
        nowhere["location"] = json!("/no/such/folder");
        let nowhere = PlannedModel::from_json(&nowhere).unwrap();
        let error = open(nowhere, executor(models())).await.unwrap_err().to_string();
        assert!(
            error.contains("executor gpu7:50051: model 'mine': ")
                && error.ends_with("nor is there the directory /no/such/folder of where the query was planned"),
            "{error}"
        );
        // Where the name is unknown, the client's location is used.
        let mut elsewhere = planned.to_json();
        elsewhere["name"] = json!("mine");
        let elsewhere = PlannedModel::from_json(&elsewhere).unwrap();
        assert!(executor(models()).open(&elsewhere).is_ok());
        let mut unknown = planned.to_json();
        unknown["more"] = json!(1);
        let error = PlannedModel::from_json(&unknown).unwrap_err().to_string();
        assert!(error.contains("unknown field `more`") && error.contains("run one version"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_session_plans_with_the_operator_and_keeps_what_it_has() {
        let ctx = SessionContext::new();
        ctx.sql("CREATE TABLE t AS SELECT 'a' AS q, 'b' AS p").await.unwrap().collect().await.unwrap();
        let id = ctx.session_id();
        let ctx = ctx.on_cluster(&"df://127.0.0.1:1".parse().unwrap(), &RerankFunctions::new(models())).unwrap();
        assert_eq!(ctx.session_id(), id);
        let frame = ctx.sql("SELECT rerank(q, p, 'm3') AS s FROM t").await.unwrap();
        let error = frame.collect().await.unwrap_err().to_string();
        assert!(error.contains("the scheduler df://127.0.0.1:1 cannot be reached"), "{error}");
        assert!(function_registry(&RerankFunctions::default()).scalar_functions.contains_key("rerank_gemma2"));
    }
}
