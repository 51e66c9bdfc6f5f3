//! The report of a run: its results and its cost.

use std::time::Duration;

use datafusion_rerank::{Reranker, ScoreStats};
use indicatif::HumanCount;
use serde_json::{Map, Value, json};

use super::histogram::Histogram;
use super::tally::{Tally, Totals};
use crate::terminal::{busy_percent, human_count, human_rate, per_second};

/// The report of a run that succeeded.
#[derive(Debug)]
pub(crate) struct Report {
    /// Units that this run scored.
    pub(crate) units: usize,
    /// The counts of this run.
    pub(crate) totals: Totals,
    /// Time to load the model.
    pub(crate) load: Duration,
    /// The units that earlier runs committed.
    pub(crate) before: Before,
}

/// The units of a job that earlier runs committed.
#[derive(Debug, Default)]
pub(crate) struct Before {
    units: usize,
    seconds: f64,
    tally: Tally,
}

impl Before {
    /// Adds a unit: its counts and its seconds.
    pub(crate) fn add(&mut self, tally: &Tally, seconds: f64) {
        self.units += 1;
        self.seconds += seconds;
        self.tally.merge(tally);
    }
}

impl Report {
    /// The lines for the terminal: two; one more if a query wrote fewer or more rows than it read; and one per reason
    /// of failed rows.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Totals { tally, wall, .. } = &self.totals;
        let Tally { stats, errors, .. } = tally;
        let mut lines = vec![
            format!(
                "scored {} in {:.1} s: {} pairs/s, {} tokens/s, {:.1} % padding, device busy {:.0} %",
                human_count(stats.pairs, "pair"),
                wall.as_secs_f64(),
                human_rate(per_second(stats.pairs, *wall)),
                human_rate(per_second(stats.tokens, *wall)),
                stats.padding_percent(),
                busy_percent(stats.device_time, *wall),
            ),
            format!(
                "{} in {}; {}, {} truncated, {}; model loaded in {:.1} s",
                human_count(tally.rows_written(), "row"),
                human_count(self.totals.files as u64, "file"),
                human_count(stats.duplicates, "duplicate"),
                HumanCount(stats.truncated),
                human_count(stats.errors, "error"),
                self.load.as_secs_f64(),
            ),
        ];
        if tally.rows_written() != stats.rows {
            lines.push(format!("{} read", human_count(stats.rows, "row")));
        }
        lines.extend(errors.iter().map(|(reason, count)| format!("{}: {reason}", human_count(*count, "error"))));
        if self.before.units > 0 {
            lines.push(format!(
                "{} with {} had been committed before",
                human_count(self.before.units as u64, "unit"),
                human_count(self.before.tally.rows_written(), "row"),
            ));
        }
        lines
    }

    /// The counts of all units of the job.
    pub(crate) fn job_tally(&self) -> Tally {
        let mut tally = self.before.tally.clone();
        tally.merge(&self.totals.tally);
        tally
    }

    /// The whole report as JSON. Times are in seconds. Counts and rates cover this run; `job` and the histograms cover
    /// all units of the job.
    pub(crate) fn to_json(&self, model: &Reranker) -> Value {
        let Totals { tally, wall, .. } = &self.totals;
        let stats = &tally.stats;
        let engine = model.engine_options();
        let job = self.job_tally();
        let mut report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": model.location(),
            "family": model.family().name(),
            "options": model.options().to_json(),
            "device": engine.devices.to_string(),
            "precision": model.precision().name(),
            "threads": engine.threads,
            "batch_tokens": model.model().batch_tokens(),
            "window_rows": model.window_rows(),
            "files": self.totals.files,
            "rows_written": tally.rows_written(),
            "errors_by_reason": tally.errors,
            "padding_percent": stats.padding_percent(),
            "pairs_per_second": per_second(stats.pairs, *wall),
            "tokens_per_second": per_second(stats.tokens, *wall),
            "load_seconds": self.load.as_secs_f64(),
            "wall_seconds": wall.as_secs_f64(),
            "device_busy_percent": busy_percent(stats.device_time, *wall),
            "throughput": self.throughput().map(|(start, end, rate)| json!({
                "start_seconds": start, "end_seconds": end, "pairs_per_second": rate,
            })).collect::<Vec<_>>(),
            "job": {
                "units": self.before.units + self.units,
                "units_before": self.before.units,
                "rows": job.stats.rows,
                "rows_written": job.rows_written(),
                "seconds": self.before.seconds + wall.as_secs_f64(),
                "errors_by_reason": job.errors,
            },
            "score_histogram": histogram_json(&job.scores),
            "token_histogram": histogram_json(&job.tokens),
        });
        if let Some(report) = report.as_object_mut() {
            report.extend(counters(stats));
        }
        report
    }

    /// Pairs per second during the run: start, end, rate.
    pub(crate) fn throughput(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let wall = self.totals.wall.as_secs_f64();
        self.totals.timeline.bins().map(move |bin| {
            // The last bin ends with the run.
            let end = bin.end.min(wall).max(bin.start + f64::EPSILON);
            (bin.start, end, bin.count as f64 / (end - bin.start).max(1e-3))
        })
    }
}

/// The library's counters by name; failed pairs are the report's `errors`.
fn counters(stats: &ScoreStats) -> Map<String, Value> {
    // A struct of numbers always serializes to a JSON object.
    let Ok(Value::Object(mut counters)) = serde_json::to_value(stats) else { return Map::new() };
    if let Some(errors) = counters.remove("failed_pairs") {
        counters.insert("errors".to_owned(), errors);
    }
    counters
}

fn histogram_json(histogram: &Histogram) -> Value {
    histogram.bins().map(|bin| json!({"start": bin.start, "end": bin.end, "count": bin.count})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut tally = Tally::default();
        tally.stats.rows = 2000;
        tally.add_written(2000);
        tally.stats.pairs = 1999;
        tally.stats.duplicates = 1;
        tally.stats.truncated = 3;
        tally.stats.errors = 2;
        tally.stats.tokens = 90_000;
        tally.stats.padding_tokens = 10_000;
        tally.stats.device_time = Duration::from_secs(9);
        tally.errors.insert("too odd".into(), 2);
        let mut timeline = Histogram::new(1.0);
        timeline.add(2.5, 100);
        timeline.add(4.1, 40);
        let totals = Totals { tally, files: 1, timeline, wall: Duration::from_millis(4500) };
        Report { units: 1, totals, load: Duration::from_millis(1500), before: Before::default() }
    }

    #[test]
    fn lines_say_it_all() {
        let mut report = report();
        report.totals.wall = Duration::from_secs(10);
        let expected = [
            "scored 1,999 pairs in 10.0 s: 200 pairs/s, 9,000 tokens/s, 10.0 % padding, device busy 90 %",
            "2,000 rows in 1 file; 1 duplicate, 3 truncated, 2 errors; model loaded in 1.5 s",
            "2 errors: too odd",
        ];
        assert_eq!(report.lines(), expected);
        let mut before = Tally::default();
        before.add_written(2500);
        report.before.add(&before, 1.0);
        report.before.add(&before, 1.0);
        assert_eq!(report.lines()[3], "2 units with 5,000 rows had been committed before");
    }

    #[test]
    fn rows_read_are_told_where_a_query_drops_some() {
        let mut report = report();
        report.totals.tally.stats.rows = 3000;
        let lines = report.lines();
        assert!(lines[1].starts_with("2,000 rows in 1 file; "), "{}", lines[1]);
        assert_eq!(lines[2], "3,000 rows read");
    }

    #[test]
    fn counters_have_their_names() {
        let counters = counters(&report().totals.tally.stats);
        let expected = [
            "batches",
            "device_seconds",
            "duplicates",
            "errors",
            "padding_tokens",
            "pairs",
            "rows",
            "tokenize_seconds",
            "tokens",
            "truncated",
        ];
        let mut names: Vec<&str> = counters.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!((&counters["errors"], &counters["device_seconds"]), (&json!(2), &json!(9.0)));
    }

    #[test]
    fn throughput_is_told_for_the_time_it_took() {
        let rates: Vec<_> = report().throughput().collect();
        assert_eq!(rates[..2], [(2.0, 3.0, 100.0), (3.0, 4.0, 0.0)]);
        assert_eq!((rates[2].0, rates[2].1, rates[2].2.round()), (4.0, 4.5, 80.0));
    }

    #[test]
    fn nothing_in_no_time_is_no_rate() {
        assert_eq!(per_second(0, Duration::ZERO), 0.0);
        assert_eq!(human_rate(0.5), "0.50");
        assert_eq!(human_rate(12_345.6), "12,346");
    }
}
