//! The progress of a job, from its records alone.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use humantime::parse_rfc3339;
use indicatif::{HumanCount, HumanDuration};
use serde_json::{Value, json};

use super::ledger::JobProgress;
use super::manifest::Manifest;
use super::marker::{Marker, UnitFailure};
use crate::report::add_reason;
use crate::terminal::{human_count, human_rate};

/// The rate is computed from this many units, the most recently committed.
const RECENT_UNITS: usize = 20;

/// The most failures to print.
const FAILURES_SHOWN: usize = 5;

/// The state of a job.
#[derive(Debug)]
pub(crate) struct Status {
    input: String,
    model: String,
    created: String,
    units: u64,
    committed: u64,
    /// Output files that are made of several units, and those that are complete.
    files: u64,
    files_done: u64,
    /// Failures of units that are not committed, sorted by input and number.
    failed: Vec<UnitFailure>,
    rows: u64,
    /// Rows that the committed units read.
    rows_committed: u64,
    rows_written: u64,
    tokens: u64,
    truncated: u64,
    errors: BTreeMap<String, u64>,
    /// Time spent on the committed units.
    seconds: f64,
    last_commit: Option<String>,
    rows_per_second: Option<f64>,
}

impl Status {
    /// Computes the state from the records.
    pub(crate) fn new(manifest: &Manifest, progress: &JobProgress) -> Self {
        let mut markers: Vec<&Marker> = progress.committed.values().collect();
        // RFC 3339 timestamps in UTC sort by time.
        markers.sort_by(|a, b| (&a.finished, &a.unit).cmp(&(&b.finished, &b.unit)));
        let mut errors = BTreeMap::new();
        for (reason, count) in markers.iter().flat_map(|marker| &marker.tally.errors) {
            add_reason(&mut errors, reason, *count);
        }
        let sum = |count: fn(&Marker) -> u64| markers.iter().map(|marker| count(marker)).sum::<u64>();
        let mut failed: Vec<UnitFailure> = progress.failed.values().cloned().collect();
        failed.sort_by(|a, b| (&a.input, a.number).cmp(&(&b.input, b.number)));
        Self {
            input: manifest.input.clone(),
            model: manifest.models.first().map(|model| model.location.clone()).unwrap_or_default(),
            created: manifest.created.clone(),
            units: manifest.units.len() as u64,
            committed: markers.len() as u64,
            files: manifest.pieced_files().count() as u64,
            files_done: progress.files.len() as u64,
            failed,
            rows: manifest.rows(),
            rows_committed: sum(|marker| marker.tally.stats.rows),
            rows_written: sum(|marker| marker.tally.rows_written()),
            tokens: sum(|marker| marker.tally.stats.tokens),
            truncated: sum(|marker| marker.tally.stats.truncated),
            errors,
            seconds: markers.iter().map(|marker| marker.seconds).sum(),
            last_commit: markers.last().map(|marker| marker.finished.clone()),
            rows_per_second: recent_rate(&markers),
        }
    }

    fn left(&self) -> u64 {
        self.units - self.committed - self.failed.len() as u64
    }

    /// The time for the remaining rows at the recent rate; `None` before a unit is committed.
    fn time_left(&self) -> Option<Duration> {
        let rows = self.rows.saturating_sub(self.rows_committed);
        let seconds = rows as f64 / self.rows_per_second.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Lines of a name, a tab and a value.
    pub(crate) fn lines(&self, now: SystemTime) -> Vec<String> {
        let failed = self.failed.len() as u64;
        let mut lines = vec![
            format!("job\t{} with {}, since {}", self.input, self.model, self.created),
            format!(
                "units\t{} of {} done, {} left, {} failed",
                HumanCount(self.committed),
                HumanCount(self.units),
                HumanCount(self.left()),
                HumanCount(failed)
            ),
            format!("rows\t{} of {} done", HumanCount(self.rows_committed), HumanCount(self.rows)),
            format!("errors\t{}", HumanCount(self.errors.values().sum())),
        ];
        if self.files > 0 {
            let (done, all) = (HumanCount(self.files_done), human_count(self.files, "file"));
            lines.insert(2, format!("files\t{done} of {all} of several units complete"));
        }
        lines.extend(
            self.errors.iter().map(|(reason, count)| format!("error\t{} with: {reason}", human_count(*count, "row"))),
        );
        if let Some(rate) = self.rows_per_second {
            lines.push(format!("rate\t{} rows/s", human_rate(rate)));
        }
        if let Some(last) = self.last_commit.as_deref() {
            let ago = parse_rfc3339(last).ok().and_then(|last| now.duration_since(last).ok());
            lines.push(format!("last commit\t{} ago, at {last}", HumanDuration(ago.unwrap_or_default())));
        }
        if self.committed < self.units
            && let Some(left) = self.time_left()
        {
            lines.push(format!("time left\t{}, while a run is at work", HumanDuration(left)));
        }
        for failure in self.failed.iter().take(FAILURES_SHOWN) {
            lines.push(format!(
                "failed\tunit {} of {} at {}: {}",
                failure.number, failure.input, failure.at, failure.reason
            ));
        }
        lines
    }

    /// The state as JSON. Times are in seconds.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "input": self.input,
            "model": self.model,
            "created": self.created,
            "units": self.units,
            "units_done": self.committed,
            "units_left": self.left(),
            "units_failed": self.failed.len(),
            "files_of_several_units": self.files,
            "files_of_several_units_done": self.files_done,
            "rows": self.rows,
            "rows_done": self.rows_committed,
            "rows_written": self.rows_written,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "errors_by_reason": self.errors,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
            "seconds_left": self.time_left().map(|left| left.as_secs_f64()),
            "last_commit": self.last_commit,
            "failures": self.failed,
        })
    }
}

/// Rows per second of the most recent markers, which are sorted by time. The time between runs is excluded.
fn recent_rate(markers: &[&Marker]) -> Option<f64> {
    let recent = &markers[markers.len().saturating_sub(RECENT_UNITS)..];
    let seconds = if recent.iter().any(|marker| marker.executor.is_some()) {
        concurrent_seconds(recent)?
    } else {
        recent.iter().map(|marker| marker.seconds).sum()
    };
    let rows: u64 = recent.iter().map(|marker| marker.tally.stats.rows).sum();
    (seconds > 0.0).then(|| rows as f64 / seconds)
}

/// The seconds in which executors ran units concurrently: from the first start to the last end.
fn concurrent_seconds(markers: &[&Marker]) -> Option<f64> {
    let mut span: Option<(f64, f64)> = None;
    for marker in markers {
        let finished = parse_rfc3339(&marker.finished).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        let started = finished - marker.seconds;
        span = Some(span.map_or((started, finished), |(from, to)| (started.min(from), finished.max(to))));
    }
    span.map(|(from, to)| to - from)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{JobSettings, ModelIdentity};
    use super::super::marker::UnitWorker;
    use super::super::unit::cut;
    use super::*;
    use crate::files::{Group, InputIdentity};
    use crate::report::Tally;

    /// A job of 30 units of 100 rows.
    fn manifest() -> Manifest {
        let settings = JobSettings {
            options: json!({}),
            sql: None,
            query: "query".into(),
            passage: "passage".into(),
            score: "score".into(),
            on_error: "null".into(),
            unit_rows: 100,
            compression: "zstd".into(),
            row_group_rows: 100,
        };
        let model = ModelIdentity {
            location: "/m3".into(),
            family: "m3".into(),
            fingerprint: "f".into(),
            adapter: None,
            precision: "fp32".into(),
        };
        let input = InputIdentity { name: "a.parquet".into(), size_bytes: 5, version: "v".into() };
        let units = cut(0, &[Group { rows: 100, bytes: 1 }; 30], 100, true);
        let manifest = Manifest::new("in", vec![model], settings, vec![input], units).unwrap();
        Manifest { created: "2026-01-01T00:00:00Z".into(), ..manifest }
    }

    /// A job whose first `committed` units are done, one per minute and each in `seconds(n)` seconds; the next one
    /// failed.
    fn progress(manifest: &Manifest, committed: usize, seconds: fn(usize) -> f64) -> JobProgress {
        let mut tally = Tally::default();
        tally.stats.rows = 100;
        tally.stats.truncated = 1;
        tally.stats.tokens = 1000;
        tally.errors.insert("odd".to_owned(), 2);
        tally.add_written(60);
        let marker = |number: usize| Marker {
            unit: manifest.units[number].id.clone(),
            input: "a.parquet".into(),
            number,
            output: "x".into(),
            size_bytes: 1,
            etag: None,
            tally: tally.clone(),
            seconds: seconds(number),
            executor: None,
            finished: format!("2026-01-01T00:{number:02}:00Z"),
        };
        let committed = (0..committed).map(marker).map(|marker| (marker.unit.clone(), marker)).collect();
        let unit = &manifest.units[29];
        let failure = UnitFailure {
            unit: unit.id.clone(),
            input: "a.parquet".into(),
            number: 29,
            reason: "cannot read".into(),
            at: "2026-01-01T01:00:00Z".into(),
        };
        JobProgress { committed, failed: [(unit.id.clone(), failure)].into(), ..JobProgress::default() }
    }

    #[test]
    fn lines_say_how_far_it_is() {
        let manifest = manifest();
        let status = Status::new(&manifest, &progress(&manifest, 25, |_| 10.0));
        let now = parse_rfc3339("2026-01-01T00:26:00Z").unwrap();
        assert_eq!(
            status.lines(now),
            [
                "job\tin with /m3, since 2026-01-01T00:00:00Z",
                "units\t25 of 30 done, 4 left, 1 failed",
                "rows\t2,500 of 3,000 done",
                "errors\t50",
                "error\t50 rows with: odd",
                "rate\t10 rows/s",
                "last commit\t2 minutes ago, at 2026-01-01T00:24:00Z",
                "time left\t50 seconds, while a run is at work",
                "failed\tunit 29 of a.parquet at 2026-01-01T01:00:00Z: cannot read",
            ]
        );
        let json = status.to_json();
        assert_eq!(
            (&json["units_done"], &json["units_left"], &json["units_failed"]),
            (&json!(25), &json!(4), &json!(1))
        );
        assert_eq!((&json["rows_per_second"], &json["seconds_left"]), (&json!(10.0), &json!(50.0)));
        assert_eq!(json["errors_by_reason"]["odd"], 50);
        assert_eq!((&json["rows_done"], &json["rows_written"]), (&json!(2500), &json!(1500)));
    }

    #[test]
    fn the_rate_is_that_of_the_last_units() {
        let manifest = manifest();
        let status = Status::new(&manifest, &progress(&manifest, 25, |number| if number < 5 { 1000.0 } else { 5.0 }));
        assert_eq!(status.rows_per_second, Some(20.0));
        assert_eq!(status.seconds, 5100.0);
    }

    #[test]
    fn units_done_at_once_take_the_time_of_them_all() {
        let manifest = manifest();
        let mut progress = progress(&manifest, 20, |_| 120.0);
        for marker in progress.committed.values_mut() {
            marker.executor = Some(UnitWorker { name: "gpu1:50051".into(), load_seconds: 0.0 });
        }
        // One unit per minute, each taking two minutes.
        let seconds = 19.0 * 60.0 + 120.0;
        assert_eq!(Status::new(&manifest, &progress).rows_per_second, Some(2000.0 / seconds));
    }

    #[test]
    fn before_the_first_commit_there_is_no_rate() {
        let manifest = manifest();
        let status = Status::new(&manifest, &JobProgress::default());
        assert_eq!((status.rows_per_second, status.time_left(), status.left()), (None, None, 30));
    }
}
