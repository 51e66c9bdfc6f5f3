//! What a run did and cost.

use std::time::Duration;

use datafusion_rerank::{Reranker, ScoreStats};
use indicatif::HumanCount;
use serde_json::{Value, json};

/// The account of a run that succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    /// Files written.
    pub(crate) files: usize,
    /// What the library counted.
    pub(crate) stats: ScoreStats,
    /// Time to load the model.
    pub(crate) load: Duration,
    /// Time from the first read to the last write; rates refer to it.
    pub(crate) wall: Duration,
}

/// A count divided by a time; 0 if no time has passed.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// A rate for reading: whole numbers, but not "0" for a slow model.
pub(crate) fn human_rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.2}") } else { HumanCount(rate.round() as u64).to_string() }
}

impl Report {
    fn device_busy_percent(&self) -> f64 {
        100.0 * per_second(1, self.wall) * self.stats.device_time.as_secs_f64()
    }

    /// Two lines for the terminal.
    pub(crate) fn lines(&self) -> [String; 2] {
        let stats = &self.stats;
        let count = |n: u64, one: &str| format!("{} {one}{}", HumanCount(n), if n == 1 { "" } else { "s" });
        [
            format!(
                "scored {} in {:.1} s: {} pairs/s, {} tokens/s, {:.1} % padding, device busy {:.0} %",
                count(stats.pairs, "pair"),
                self.wall.as_secs_f64(),
                human_rate(per_second(stats.pairs, self.wall)),
                human_rate(per_second(stats.tokens, self.wall)),
                stats.padding_percent(),
                self.device_busy_percent(),
            ),
            format!(
                "{} in {}; {}, {} truncated, {}; model loaded in {:.1} s",
                count(stats.rows, "row"),
                count(self.files as u64, "file"),
                count(stats.duplicates, "duplicate"),
                HumanCount(stats.truncated),
                count(stats.errors, "error"),
                self.load.as_secs_f64(),
            ),
        ]
    }

    /// Everything, for programs. Times are in seconds.
    pub(crate) fn to_json(self, model: &Reranker) -> Value {
        let stats = &self.stats;
        let engine = model.engine_options();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": model.location(),
            "family": model.family().name(),
            "options": model.options().to_json(),
            "device": engine.device.to_string(),
            "threads": engine.threads,
            "batch_tokens": engine.batch_tokens,
            "window_rows": model.window_rows(),
            "files": self.files,
            "rows": stats.rows,
            "pairs": stats.pairs,
            "duplicates": stats.duplicates,
            "truncated": stats.truncated,
            "errors": stats.errors,
            "tokens": stats.tokens,
            "padding_tokens": stats.padding_tokens,
            "padding_percent": stats.padding_percent(),
            "batches": stats.batches,
            "pairs_per_second": per_second(stats.pairs, self.wall),
            "tokens_per_second": per_second(stats.tokens, self.wall),
            "load_seconds": self.load.as_secs_f64(),
            "wall_seconds": self.wall.as_secs_f64(),
            "tokenize_seconds": stats.tokenize_time.as_secs_f64(),
            "device_seconds": stats.device_time.as_secs_f64(),
            "device_busy_percent": self.device_busy_percent(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_it_all() {
        let mut stats = ScoreStats::default();
        stats.rows = 2000;
        stats.pairs = 1999;
        stats.duplicates = 1;
        stats.truncated = 3;
        stats.tokens = 90_000;
        stats.padding_tokens = 10_000;
        stats.device_time = Duration::from_secs(9);
        let report = Report { files: 1, stats, load: Duration::from_millis(1500), wall: Duration::from_secs(10) };
        assert_eq!(
            report.lines(),
            [
                "scored 1,999 pairs in 10.0 s: 200 pairs/s, 9,000 tokens/s, 10.0 % padding, device busy 90 %",
                "2,000 rows in 1 file; 1 duplicate, 3 truncated, 0 errors; model loaded in 1.5 s",
            ]
        );
    }

    #[test]
    fn nothing_in_no_time_is_no_rate() {
        assert_eq!(per_second(0, Duration::ZERO), 0.0);
        assert_eq!(human_rate(0.5), "0.50");
        assert_eq!(human_rate(12_345.6), "12,346");
    }
}
