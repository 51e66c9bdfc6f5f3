//! What a run did and cost.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion_rerank::Reranker;
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::histogram::Histogram;
use super::tally::Totals;
use super::tally::{Tally, add_reason};
use crate::job::Marker;
use crate::terminal::{busy_percent, human_count, human_rate, per_second};

/// The account of a run that succeeded.
#[derive(Debug)]
pub(crate) struct Report {
    /// Units written by this run; each is a file.
    pub(crate) files: usize,
    /// What this run counted.
    pub(crate) totals: Totals,
    /// Time to load the model.
    pub(crate) load: Duration,
    /// What the runs before this one had done.
    pub(crate) before: Before,
}

/// The units of a job that earlier runs committed.
#[derive(Debug, Default)]
pub(crate) struct Before {
    units: usize,
    rows: u64,
    seconds: f64,
    errors: BTreeMap<String, u64>,
    histograms: Option<(Histogram, Histogram)>,
}

impl Before {
    /// Adds up markers.
    pub(crate) fn new<'a>(markers: impl IntoIterator<Item = &'a Marker>) -> Self {
        let mut before = Self::default();
        for marker in markers {
            before.units += 1;
            before.rows += marker.rows;
            before.seconds += marker.seconds;
            for (reason, count) in &marker.errors {
                add_reason(&mut before.errors, reason, *count);
            }
            match &mut before.histograms {
                None => before.histograms = Some((marker.score_histogram.clone(), marker.token_histogram.clone())),
                Some((scores, tokens)) => {
                    scores.merge(&marker.score_histogram);
                    tokens.merge(&marker.token_histogram);
                }
            }
        }
        before
    }
}

impl Report {
    /// Lines for the terminal: two, and one for each reason of failed rows.
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
                human_count(stats.rows, "row"),
                human_count(self.files as u64, "file"),
                human_count(stats.duplicates, "duplicate"),
                HumanCount(stats.truncated),
                human_count(stats.errors, "error"),
                self.load.as_secs_f64(),
            ),
        ];
        lines.extend(errors.iter().map(|(reason, count)| format!("{}: {reason}", human_count(*count, "error"))));
        if self.before.units > 0 {
            lines.push(format!(
                "{} with {} had been committed before",
                human_count(self.before.units as u64, "unit"),
                human_count(self.before.rows, "row"),
            ));
        }
        lines
    }

    /// Scores and tokens of all units of the job.
    pub(crate) fn histograms(&self) -> (Histogram, Histogram) {
        let Tally { scores, tokens, .. } = &self.totals.tally;
        let (mut scores, mut tokens) = (scores.clone(), tokens.clone());
        if let Some((scores_before, tokens_before)) = &self.before.histograms {
            scores.merge(scores_before);
            tokens.merge(tokens_before);
        }
        (scores, tokens)
    }

    /// Everything, for programs. Times are in seconds. Counts and rates are those of this run, `job` and the
    /// histograms are of all its units.
    pub(crate) fn to_json(&self, model: &Reranker) -> Value {
        let Totals { tally, wall, .. } = &self.totals;
        let stats = &tally.stats;
        let engine = model.engine_options();
        let mut errors = tally.errors.clone();
        for (reason, count) in &self.before.errors {
            add_reason(&mut errors, reason, *count);
        }
        let (scores, tokens) = self.histograms();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": model.location(),
            "family": model.family().name(),
            "options": model.options().to_json(),
            "device": engine.devices.to_string(),
            "precision": model.precision().name(),
            "threads": engine.threads,
            "batch_tokens": model.model().batch_tokens(),
            "window_rows": model.window_rows(),
            "files": self.files,
            "rows": stats.rows,
            "pairs": stats.pairs,
            "duplicates": stats.duplicates,
            "truncated": stats.truncated,
            "errors": stats.errors,
            "errors_by_reason": tally.errors,
            "tokens": stats.tokens,
            "padding_tokens": stats.padding_tokens,
            "padding_percent": stats.padding_percent(),
            "batches": stats.batches,
            "pairs_per_second": per_second(stats.pairs, *wall),
            "tokens_per_second": per_second(stats.tokens, *wall),
            "load_seconds": self.load.as_secs_f64(),
            "wall_seconds": wall.as_secs_f64(),
            "tokenize_seconds": stats.tokenize_time.as_secs_f64(),
            "device_seconds": stats.device_time.as_secs_f64(),
            "device_busy_percent": busy_percent(stats.device_time, *wall),
            "throughput": self.throughput().map(|(start, end, rate)| json!({
                "start_seconds": start, "end_seconds": end, "pairs_per_second": rate,
            })).collect::<Vec<_>>(),
            "job": {
                "units": self.before.units + self.files,
                "units_before": self.before.units,
                "rows": self.before.rows + stats.rows,
                "seconds": self.before.seconds + wall.as_secs_f64(),
                "errors_by_reason": errors,
            },
            "score_histogram": histogram_json(&scores),
            "token_histogram": histogram_json(&tokens),
        })
    }

    /// Pairs per second over the time of the run: from, to, rate.
    pub(crate) fn throughput(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let wall = self.totals.wall.as_secs_f64();
        self.totals.timeline.bins().map(move |bin| {
            // The last bin ends with the run.
            let end = bin.end.min(wall).max(bin.start + f64::EPSILON);
            (bin.start, end, bin.count as f64 / (end - bin.start).max(1e-3))
        })
    }
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
        let totals = Totals { tally, timeline, wall: Duration::from_millis(4500) };
        Report { files: 1, totals, load: Duration::from_millis(1500), before: Before::default() }
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
        report.before.units = 2;
        report.before.rows = 5000;
        assert_eq!(report.lines()[3], "2 units with 5,000 rows had been committed before");
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
