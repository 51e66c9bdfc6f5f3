//! The physical operator.

use std::fmt::{self, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::Statistics;
use datafusion::common::stats::{ColumnStatistics, Precision};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput, Time,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::future::try_join_all;
use futures::stream::{self, Fuse};
use futures::{StreamExt, TryStreamExt};

use super::call_model::CallModel;
use crate::engine::ScoreStats;
use crate::reranker::Reranker;
use crate::sql::function::{MakeColumn, check_planned, column};

/// Windows of one partition that are under way at once: while one runs, the next is tokenized.
const WINDOWS_IN_FLIGHT: usize = 2;

// Names of metrics, as `EXPLAIN ANALYZE` shows them and [`RerankExec::stats`] reads them back.
const PAIRS: &str = "pairs";
const SCORED_PAIRS: &str = "scored_pairs";
const DUPLICATES: &str = "duplicates";
const TRUNCATED: &str = "truncated";
const TOKENS: &str = "tokens";
const PADDING_TOKENS: &str = "padding_tokens";
const DEVICE_BATCHES: &str = "device_batches";
const TOKENIZE_TIME: &str = "tokenize_time";
const DEVICE_TIME: &str = "device_time";
const WAIT_TIME: &str = "wait_time";

/// One score column.
#[derive(Debug, Clone)]
pub(crate) struct RerankCall {
    /// The call as DataFusion planned it, with the name of its column.
    pub(crate) expression: Arc<AsyncFuncExpr>,
    pub(crate) query: Arc<dyn PhysicalExpr>,
    pub(crate) passage: Arc<dyn PhysicalExpr>,
    /// The model with the options in force when the query was planned.
    pub(crate) model: CallModel,
    pub(crate) make_column: MakeColumn,
}

/// Appends one score column per call to its input. Calls that are the same run once.
///
/// Rows are gathered into windows of `rerank.window_rows`, of which two are under way per partition; they come out in
/// the order they came in, in batches of at most `datafusion.execution.batch_size` rows. The rows of the windows under
/// way are accounted in the memory pool. Dropping the stream stops the work within one device batch.
///
/// Metrics of a partition, summed over its calls: `pairs` (rows with query and passage), `scored_pairs` (without
/// repetitions within a window), `duplicates`, `truncated`, `tokens` and `padding_tokens` run on the device,
/// `device_batches`, `tokenize_time`, `device_time`, and `wait_time` from handing a window to the engine to having its
/// scores.
#[derive(Debug, Clone)]
pub(crate) struct RerankExec {
    calls: Vec<RerankCall>,
    /// Per call the first one that is the same.
    firsts: Vec<usize>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RerankExec {
    pub(crate) fn try_new(calls: Vec<RerankCall>, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let input_schema = input.schema();
        let mut fields: Vec<FieldRef> = input_schema.fields().iter().map(Arc::clone).collect();
        for call in &calls {
            fields.push(call.expression.return_field(&input_schema)?);
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, input_schema.metadata().clone()));
        // The input's columns keep their places, so what is known of them still holds.
        let mut equivalences = EquivalenceProperties::new(schema);
        equivalences.add_equivalence_group(input.equivalence_properties().eq_group().clone())?;
        equivalences.add_orderings(input.equivalence_properties().oeq_class().iter().cloned());
        let properties = PlanProperties::new(
            equivalences,
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let same = |call: &RerankCall| {
            calls.iter().position(|first| first.expression.func.as_ref() == call.expression.func.as_ref())
        };
        let firsts = calls.iter().enumerate().map(|(place, call)| same(call).unwrap_or(place)).collect();
        Ok(Self { calls, firsts, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl RerankExec {
    pub(crate) fn calls(&self) -> &[RerankCall] {
        &self.calls
    }

    /// What the calls have counted so far, over all partitions; rows are left at 0.
    pub(crate) fn stats(&self) -> ScoreStats {
        let metrics = self.metrics.clone_inner();
        let count = |name| metrics.sum_by_name(name).map_or(0, |value| value.as_usize() as u64);
        let time = |name| Duration::from_nanos(count(name));
        ScoreStats {
            pairs: count(PAIRS),
            duplicates: count(DUPLICATES),
            truncated: count(TRUNCATED),
            tokens: count(TOKENS),
            padding_tokens: count(PADDING_TOKENS),
            batches: count(DEVICE_BATCHES),
            tokenize_time: time(TOKENIZE_TIME),
            device_time: time(DEVICE_TIME),
            ..ScoreStats::default()
        }
    }

    /// `[call AS column, column], model=.., options=.., device=.., precision=..`
    fn describe(&self, place: usize) -> String {
        let RerankCall { expression, model, .. } = &self.calls[place];
        let columns = self.calls.iter().zip(&self.firsts).filter(|(_, first)| **first == place);
        let columns: Vec<&str> = columns.map(|(call, _)| call.expression.name()).collect();
        format!("[{} AS {}], {model}", expression.func, columns.join(", "))
    }
}

impl DisplayAs for RerankExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let first = |(place, first): (usize, &usize)| (place == *first).then(|| self.describe(place));
        let calls: Vec<String> = self.firsts.iter().enumerate().filter_map(first).collect();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "RerankExec: {}", calls.join("; ")),
            DisplayFormatType::TreeRender => calls.iter().try_for_each(|call| writeln!(f, "{call}")),
        }
    }
}

impl ExecutionPlan for RerankExec {
    fn name(&self) -> &'static str {
        "RerankExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let expressions = self.calls.iter().map(|call| Arc::clone(&call.expression) as Arc<dyn PhysicalExpr>);
        datafusion::physical_plan::apply_expression_roots(expressions, f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return Err(DataFusionError::Internal("RerankExec has one input".to_owned()));
        };
        match options.children_properties {
            ChildrenPropertiesMode::Keep => {
                Ok(Arc::new(Self { input, metrics: ExecutionPlanMetricsSet::new(), ..Self::clone(&self) }))
            }
            ChildrenPropertiesMode::Recompute => Ok(Arc::new(Self::try_new(self.calls.clone(), input)?)),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// Partitions share the device: more of them gain nothing.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    /// A limit goes below, so no row is scored in vain.
    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// Filters on the input's columns go below, those on scores stay above.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(parent_filters, &self.children())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let [input] = input_stats else { return Ok(Arc::new(Statistics::new_unknown(&self.schema()))) };
        let mut statistics = input.as_ref().clone();
        statistics.total_byte_size = Precision::Absent;
        statistics.column_statistics.resize_with(self.schema().fields().len(), ColumnStatistics::new_unknown);
        Ok(Arc::new(statistics))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let windows = Gather {
            input: self.input.execute(partition, Arc::clone(&context))?.fuse(),
            rest: None,
            window_rows: self.calls.iter().map(|call| call.model.window_rows()).min().unwrap_or(1),
            batch_rows: context.session_config().batch_size(),
            memory: MemoryConsumer::new(format!("RerankExec[{partition}]")).register(context.memory_pool()),
        };
        let metrics = Metrics::new(&self.metrics, partition);
        let scoring = Scoring::open(self.calls.clone(), self.firsts.clone(), self.schema(), metrics);
        let output = BaselineMetrics::new(&self.metrics, partition);
        let windows = async move {
            let scoring = Arc::new(scoring.await?);
            let scored = stream::try_unfold(windows, Gather::next_window).map(move |window| {
                let scoring = Arc::clone(&scoring);
                async move { scoring.score(window?).await }
            });
            Ok::<_, DataFusionError>(scored.buffered(WINDOWS_IN_FLIGHT))
        };
        let batches = stream::once(windows)
            .try_flatten()
            .map_ok(|Window { pieces, memory }| {
                // The memory is given back with the last batch.
                stream::iter(pieces).map(move |piece| {
                    let _held = &memory;
                    Ok(piece)
                })
            })
            .try_flatten()
            .map_ok(move |batch: RecordBatch| batch.record_output(&output));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Rows that are scored together.
struct Window {
    pieces: Vec<RecordBatch>,
    memory: MemoryReservation,
}

/// Cuts the input into windows.
struct Gather {
    input: Fuse<SendableRecordBatchStream>,
    /// What the last window left of a batch.
    rest: Option<RecordBatch>,
    window_rows: usize,
    batch_rows: usize,
    memory: MemoryReservation,
}

impl Gather {
    async fn next_window(mut self) -> Result<Option<(Window, Self)>> {
        let mut window = Window { pieces: Vec::new(), memory: self.memory.new_empty() };
        let mut missing = self.window_rows;
        while missing > 0 {
            let batch = match self.rest.take() {
                Some(batch) => batch,
                None => match self.input.try_next().await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let rows = batch.num_rows().min(missing).min(self.batch_rows);
            if rows < batch.num_rows() {
                self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
            }
            if rows > 0 {
                let piece = batch.slice(0, rows);
                window.memory.try_grow(bytes(&piece)?).map_err(|error| {
                    error.context("the rows of a window do not fit in memory; set rerank.window_rows lower")
                })?;
                window.pieces.push(piece);
                missing -= rows;
            }
        }
        Ok((!window.pieces.is_empty()).then_some((window, self)))
    }
}

/// What the rows of a batch take, whatever else lies in the buffers they share.
fn bytes(batch: &RecordBatch) -> Result<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

/// What all windows of a partition share.
struct Scoring {
    calls: Vec<RerankCall>,
    /// The model of each call that is its first.
    rerankers: Vec<Option<Reranker>>,
    firsts: Vec<usize>,
    schema: SchemaRef,
    metrics: Metrics,
}

impl Scoring {
    async fn open(calls: Vec<RerankCall>, firsts: Vec<usize>, schema: SchemaRef, metrics: Metrics) -> Result<Self> {
        let mut rerankers = Vec::with_capacity(calls.len());
        for (place, call) in calls.iter().enumerate() {
            rerankers.push(if firsts[place] == place { Some(call.model.open().await?) } else { None });
        }
        Ok(Self { calls, rerankers, firsts, schema, metrics })
    }

    /// The window with its score columns.
    async fn score(&self, Window { pieces, memory }: Window) -> Result<Window> {
        let distinct = self.calls.iter().zip(&self.rerankers).map(async |(call, reranker)| match reranker {
            Some(reranker) => self.score_call(call, reranker, &pieces).await.map(Some),
            None => Ok(None),
        });
        let distinct = try_join_all(distinct).await?;
        let columns: Vec<&ArrayRef> = self.firsts.iter().filter_map(|first| distinct[*first].as_ref()).collect();
        let mut first = 0;
        let scored = pieces.into_iter().map(|piece| {
            let rows = piece.num_rows();
            let mut all = piece.columns().to_vec();
            all.extend(columns.iter().map(|column| column.slice(first, rows)));
            first += rows;
            Ok(RecordBatch::try_new(Arc::clone(&self.schema), all)?)
        });
        Ok(Window { pieces: scored.collect::<Result<_>>()?, memory })
    }

    async fn score_call(&self, call: &RerankCall, reranker: &Reranker, pieces: &[RecordBatch]) -> Result<ArrayRef> {
        let texts = |expression: &Arc<dyn PhysicalExpr>, piece| column(&expression.evaluate(piece)?, piece.num_rows());
        let pairs = pieces.iter().map(|piece| Ok((texts(&call.query, piece)?, texts(&call.passage, piece)?)));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let scores = reranker.score_pieces_async(pairs).await?;
        self.metrics.add(&scores.stats());
        self.metrics.wait_time.add_elapsed(start);
        let column = (call.make_column)(&scores)?;
        let planned = call.expression.return_field(&self.schema)?;
        check_planned(column.data_type(), planned.data_type())?;
        Ok(column)
    }
}

/// The counters of a partition.
struct Metrics {
    pairs: Count,
    scored_pairs: Count,
    duplicates: Count,
    truncated: Count,
    tokens: Count,
    padding_tokens: Count,
    device_batches: Count,
    tokenize_time: Time,
    device_time: Time,
    wait_time: Time,
}

impl Metrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        let time = |name: &'static str| MetricBuilder::new(metrics).subset_time(name, partition);
        Self {
            pairs: counter(PAIRS),
            scored_pairs: counter(SCORED_PAIRS),
            duplicates: counter(DUPLICATES),
            truncated: counter(TRUNCATED),
            tokens: counter(TOKENS),
            padding_tokens: counter(PADDING_TOKENS),
            device_batches: counter(DEVICE_BATCHES),
            tokenize_time: time(TOKENIZE_TIME),
            device_time: time(DEVICE_TIME),
            wait_time: time(WAIT_TIME),
        }
    }

    fn add(&self, stats: &ScoreStats) {
        let count = |counter: &Count, value: u64| counter.add(usize::try_from(value).unwrap_or(usize::MAX));
        count(&self.pairs, stats.pairs);
        count(&self.scored_pairs, stats.pairs - stats.duplicates);
        count(&self.duplicates, stats.duplicates);
        count(&self.truncated, stats.truncated);
        count(&self.tokens, stats.tokens);
        count(&self.padding_tokens, stats.padding_tokens);
        count(&self.device_batches, stats.batches);
        self.tokenize_time.add_duration(stats.tokenize_time);
        self.device_time.add_duration(stats.device_time);
    }
}
