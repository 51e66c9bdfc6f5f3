//! What the operator counts.

use std::time::Duration;

use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time};

use crate::engine::ScoreStats;

// Names of metrics, as `EXPLAIN ANALYZE` shows them and [`stats`] reads them back.
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

/// What was counted over all partitions; rows are left at 0.
pub(super) fn stats(metrics: &ExecutionPlanMetricsSet) -> ScoreStats {
    let metrics = metrics.clone_inner();
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

/// The counters of a partition.
pub(super) struct PartitionMetrics {
    pairs: Count,
    scored_pairs: Count,
    duplicates: Count,
    truncated: Count,
    tokens: Count,
    padding_tokens: Count,
    device_batches: Count,
    tokenize_time: Time,
    device_time: Time,
    /// From submitting a window to having its scores.
    pub(super) wait_time: Time,
}

impl PartitionMetrics {
    pub(super) fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
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

    /// Adds what one call counted in one window.
    pub(super) fn add(&self, stats: &ScoreStats) {
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
