//! The physical operator.

use std::collections::HashMap;
use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::common::Statistics;
use datafusion::common::stats::{ColumnStatistics, Precision};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::gather_windows::{GatherWindows, ReservedWindow};
use super::metrics::{PartitionMetrics, stats};
use super::query_scores::QueryScores;
use super::rerank_call::RerankCall;
use super::score_windows::ScoreWindows;
use crate::engine::ScoreStats;
use crate::sql::config::RerankConfig;
use crate::window::WindowCutter;
use crate::window_stream::score_windows;

/// Appends one score column per call to its input. Identical calls run once.
///
/// Rows are scored in windows of at most `rerank.window_rows`, two of which are in flight per partition while the next
/// is read. They come out in the order they came in, in batches of at most `datafusion.execution.batch_size` rows. The
/// memory pool accounts for the rows of the windows in flight and of the one that is read. Dropping the stream stops
/// the work within one device batch.
///
/// Windows follow the input. The first is about one device batch, and each of the next at most four times larger, so
/// that the first rows of a large query come early. While the models are busy, rows become large windows. While the
/// input has no more, the rows that wait are scored as soon as no model has anything to do, or once the first has
/// waited for `rerank.max_delay` and they would not wait in a queue instead: an input that never ends is scored as it
/// comes. With `rerank.max_delay = 'off'` all windows but the last are full, and the same rows in the same order have
/// the same scores to the last bit; otherwise they are the same up to rounding.
///
/// Metrics of a partition, summed over its calls: `pairs` (rows with query and passage), `scored_pairs` (without
/// repetitions, and without pairs whose score is in the query's cache: `rerank.score_cache`), `duplicates`,
/// `truncated`, `tokens` and `padding_tokens` run on the device, `device_batches`, `tokenize_time`, `device_time`, and
/// `wait_time` from submitting a window to having its scores.
#[derive(Debug, Clone)]
pub(crate) struct RerankExec {
    calls: Vec<RerankCall>,
    /// For each call, the first identical one.
    firsts: Vec<usize>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    scores: QueryScores,
}

impl RerankExec {
    /// `scores` is shared by the operators of a plan.
    pub(crate) fn try_new(calls: Vec<RerankCall>, input: Arc<dyn ExecutionPlan>, scores: QueryScores) -> Result<Self> {
        let input_schema = input.schema();
        let mut fields: Vec<FieldRef> = input_schema.fields().iter().map(Arc::clone).collect();
        for call in &calls {
            fields.push(call.expression.return_field(&input_schema)?);
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, input_schema.metadata().clone()));
        // The input's columns keep their places, so their known properties still hold.
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
        Ok(Self {
            calls,
            firsts,
            input,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            scores,
        })
    }
}

impl RerankExec {
    pub(crate) fn calls(&self) -> &[RerankCall] {
        &self.calls
    }

    /// What the calls have counted so far, over all partitions; rows are left at 0.
    pub(crate) fn stats(&self) -> ScoreStats {
        stats(&self.metrics)
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
            ChildrenPropertiesMode::Recompute => {
                Ok(Arc::new(Self::try_new(self.calls.clone(), input, self.scores.clone())?))
            }
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// Partitions share the device, so more of them gain nothing.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    /// A limit is pushed below, so no row is scored in vain.
    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// Filters on the input's columns are pushed below, those on scores stay above. So do those on columns of a name
    /// that the input has twice, since filters are passed on by name.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let input = self.input.schema();
        let mut names = HashMap::new();
        for field in input.fields() {
            *names.entry(field.name()).or_insert(0) += 1;
        }
        let unique = input.fields().iter().enumerate().filter(|(_, field)| names[field.name()] == 1);
        let unique = unique.map(|(index, _)| index).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&parent_filters, unique, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
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
        let window_rows = self.calls.iter().map(|call| call.model.window_rows()).min().unwrap_or(1);
        let cutter = WindowCutter::new(window_rows).with_piece_rows(context.session_config().batch_size());
        let memory = MemoryConsumer::new(format!("RerankExec[{partition}]")).register(context.memory_pool());
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let metrics = PartitionMetrics::new(&self.metrics, partition);
        let capacity = RerankConfig::of(context.session_config().options()).score_cache;
        let cache = self.scores.open(capacity, context.memory_pool());
        let scoring = ScoreWindows::open(self.calls.clone(), self.firsts.clone(), self.schema(), metrics, cache);
        let output = BaselineMetrics::new(&self.metrics, partition);
        let windows = async move {
            let scoring = Arc::new(scoring.await?);
            let following = scoring.following();
            let growth = following.as_ref().map(|following| following.growth);
            let windows = GatherWindows::new(cutter.growing(growth), memory);
            let score = move |window| {
                let scoring = Arc::clone(&scoring);
                async move { scoring.score(window).await }
            };
            Ok::<_, DataFusionError>(score_windows(input, windows, following, score))
        };
        let batches = stream::once(windows)
            .try_flatten()
            .map_ok(|ReservedWindow { pieces, memory }| {
                // The memory is released with the last batch.
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
