//! Estimates the work and the time of a run. Writes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::ArrayRef;
use datafusion_rerank::Reranker;
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use tokio::runtime::Handle;

use super::plan::Plan;
use super::progress::Extent;
use crate::files::{Columns, Rows};
use crate::job::{Query, Scoring};
use crate::terminal::{human_count, human_rate, per_second};

/// The number of units to sample, evenly spaced.
const UNITS_SAMPLED: usize = 8;

/// The number of first rows to sample from each unit.
const ROWS_OF_A_UNIT: usize = 1024;

/// How long to measure the model, approximately.
const BURST: Duration = Duration::from_secs(3);

/// Rows of the first chunk. Each following chunk is twice as large, so a slow model is not busy for minutes.
const FIRST_CHUNK_ROWS: usize = 4;

/// The lines that a dry run prints. `all_units` is the number of units of the job.
pub(crate) async fn estimate(plan: Arc<Plan>, all_units: usize, reranker: &Reranker) -> Result<Vec<String>> {
    match &plan.scoring {
        Scoring::Query(query) => query_lines(&plan, query, all_units).await,
        Scoring::Columns(columns) => {
            let columns = columns.clone();
            Ok(Estimate::new(plan, columns, all_units, reranker).await?.lines())
        }
    }
}

/// The estimate for a run.
#[derive(Debug)]
struct Estimate {
    units: usize,
    all_units: usize,
    extent: Extent,
    /// Tokens of each sampled row that would be run, sorted.
    lengths: Vec<u32>,
    rows_sampled: usize,
    speed: Option<Speed>,
}

/// The measured speed of the model.
#[derive(Debug, Clone, Copy)]
struct Speed {
    tokens: u64,
    time: Duration,
}

impl Estimate {
    /// Samples the units of the plan and measures the model.
    async fn new(plan: Arc<Plan>, columns: Columns, all_units: usize, reranker: &Reranker) -> Result<Self> {
        let (units, extent) = (plan.tasks.len(), plan.extent());
        let runtime = Handle::current();
        let sampling = tokio::task::spawn_blocking(move || sample(&plan, &columns, &runtime));
        let samples = sampling.await.context("the inputs could not be sampled")??;
        let mut lengths = Vec::new();
        let mut rows_sampled = 0;
        for (queries, passages) in &samples {
            rows_sampled += queries.len();
            lengths.extend(reranker.token_counts(queries, passages)?.into_iter().flatten());
        }
        lengths.sort_unstable();
        let speed = measure(reranker, &samples).await?;
        Ok(Self { units, all_units, extent, lengths, rows_sampled, speed })
    }

    /// Lines of a name, a tab and a value.
    fn lines(&self) -> Vec<String> {
        let mut lines = extent_lines(self.units, self.all_units, self.extent);
        if let Some(longest) = self.lengths.last() {
            lines.push(format!(
                "tokens\t{:.0} a row, half of the rows have at most {}, 95 % at most {}, the longest {longest} ({} sampled)",
                self.tokens_per_row(),
                self.quantile(0.5),
                self.quantile(0.95),
                human_count(self.rows_sampled as u64, "row"),
            ));
        }
        if let (Some(speed), Some(time)) = (self.speed, self.time()) {
            let tokens_per_second = per_second(speed.tokens, speed.time);
            lines.push(format!(
                "rate\t{} rows/s, {} tokens/s, measured for {:.1} s",
                human_rate(tokens_per_second / self.tokens_per_row()),
                human_rate(tokens_per_second),
                speed.time.as_secs_f64(),
            ));
            lines.push(format!("time\tabout {}", HumanDuration(time)));
        }
        lines
    }

    /// Mean tokens per row to score, including rows that are not run.
    fn tokens_per_row(&self) -> f64 {
        let tokens: u64 = self.lengths.iter().map(|&tokens| u64::from(tokens)).sum();
        tokens as f64 / self.rows_sampled.max(1) as f64
    }

    /// The length that this share of the sampled rows does not exceed.
    fn quantile(&self, share: f64) -> u32 {
        let index = (self.lengths.len() as f64 * share).ceil() as usize;
        self.lengths.get(index.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The time for all rows; `None` if nothing could be measured.
    fn time(&self) -> Option<Duration> {
        let Speed { tokens, time } = self.speed?;
        let seconds = self.extent.rows as f64 * self.tokens_per_row() / per_second(tokens, time);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What a query would read, and its plan. The time depends on the number of rows that the query scores, which is not
/// known in advance.
async fn query_lines(plan: &Plan, query: &Query, all_units: usize) -> Result<Vec<String>> {
    let mut lines = extent_lines(plan.tasks.len(), all_units, plan.extent());
    lines.extend(query.explain().await?.into_iter().map(|line| format!("plan\t{line}")));
    Ok(lines)
}

fn extent_lines(units: usize, all_units: usize, extent: Extent) -> Vec<String> {
    vec![
        format!("units\t{} of {} to do", HumanCount(units as u64), HumanCount(all_units as u64)),
        format!("rows\t{} to do, {}", HumanCount(extent.rows), HumanBytes(extent.bytes as u64)),
    ]
}

/// Queries and passages of the first rows of some units. Blocks.
fn sample(plan: &Plan, columns: &Columns, runtime: &Handle) -> Result<Vec<(ArrayRef, ArrayRef)>> {
    let tasks: Vec<_> = plan.tasks.iter().filter(|task| task.unit.rows > 0).collect();
    let mut samples = Vec::new();
    for task in spaced(tasks.len(), UNITS_SAMPLED).map(|index| tasks[index]) {
        let input = &plan.inputs[task.unit.input];
        let source = Rows::open(input, columns, plan.format.kind, runtime)?;
        let layout = source.layout();
        let mut rows = 0;
        for batch in source.read(task.unit.groups.clone(), task.unit.first_row, ROWS_OF_A_UNIT)? {
            let batch = batch.with_context(|| format!("cannot read {}", input.location))?;
            let batch = batch.slice(0, batch.num_rows().min(ROWS_OF_A_UNIT - rows));
            rows += batch.num_rows();
            samples.push((Arc::clone(batch.column(layout.query)), Arc::clone(batch.column(layout.passage))));
            if rows == ROWS_OF_A_UNIT {
                break;
            }
        }
    }
    Ok(samples)
}

/// Up to `count` of the first `length` numbers, evenly spaced.
fn spaced(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(length);
    (0..count).map(move |index| index * length / count)
}

/// Scores growing chunks of the samples until the time is up. Returns the speed of the last and largest chunk: the
/// first one warms up the device.
async fn measure(reranker: &Reranker, samples: &[(ArrayRef, ArrayRef)]) -> Result<Option<Speed>> {
    let loaded = reranker.clone();
    tokio::task::spawn_blocking(move || loaded.load()).await.context("the model could not be loaded")??;
    let start = Instant::now();
    let (mut rows, mut speed) = (FIRST_CHUNK_ROWS, None);
    loop {
        let chunk = first_rows(samples, rows);
        let count: usize = chunk.iter().map(|(queries, _)| queries.len()).sum();
        let begin = Instant::now();
        let stats = reranker.score_pieces_async(chunk).await?.stats();
        if stats.tokens > 0 {
            speed = Some(Speed { tokens: stats.tokens, time: begin.elapsed() });
        }
        // The next chunk takes twice as long.
        if count < rows || start.elapsed() + 2 * begin.elapsed() > BURST {
            return Ok(speed);
        }
        rows = (2 * rows).min(reranker.window_rows().max(FIRST_CHUNK_ROWS));
    }
}

/// This many rows, taken evenly from the samples so that all of them count.
fn first_rows(samples: &[(ArrayRef, ArrayRef)], rows: usize) -> Vec<(ArrayRef, ArrayRef)> {
    let share = rows.div_ceil(samples.len().max(1));
    let mut left = rows;
    let mut taken = Vec::new();
    for (queries, passages) in samples {
        let length = share.min(queries.len()).min(left);
        left -= length;
        taken.push((queries.slice(0, length), passages.slice(0, length)));
    }
    taken
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringArray};

    use super::*;

    fn estimate() -> Estimate {
        Estimate {
            units: 3,
            all_units: 4,
            extent: Extent { rows: 36_000, bytes: 2048.0 },
            lengths: vec![10, 20, 30, 60],
            rows_sampled: 6,
            speed: Some(Speed { tokens: 400, time: Duration::from_secs(2) }),
        }
    }

    #[test]
    fn lines_say_what_to_expect() {
        assert_eq!(
            estimate().lines(),
            [
                "units\t3 of 4 to do",
                "rows\t36,000 to do, 2.00 KiB",
                "tokens\t20 a row, half of the rows have at most 20, 95 % at most 60, the longest 60 (6 rows sampled)",
                "rate\t10 rows/s, 200 tokens/s, measured for 2.0 s",
                "time\tabout 60 minutes",
            ]
        );
    }

    #[test]
    fn nothing_to_do_takes_no_measurement() {
        let nothing = Estimate { lengths: vec![], rows_sampled: 0, speed: None, ..estimate() };
        assert_eq!(nothing.lines().len(), 2);
    }

    #[test]
    fn samples_are_spread_over_the_units() {
        assert_eq!(spaced(100, 4).collect::<Vec<_>>(), [0, 25, 50, 75]);
        assert_eq!(spaced(3, 8).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spaced(0, 8).count(), 0);
    }

    #[test]
    fn rows_are_taken_from_all_samples() {
        let column = |rows: usize| Arc::new(StringArray::from(vec!["x"; rows])) as ArrayRef;
        let samples: Vec<_> = [5, 1, 5].map(|rows| (column(rows), column(rows))).into();
        let taken = |rows| first_rows(&samples, rows).iter().map(|(queries, _)| queries.len()).collect::<Vec<_>>();
        assert_eq!(taken(6), [2, 1, 2]);
        assert_eq!(taken(4), [2, 1, 1]);
        assert_eq!(taken(100), [5, 1, 5]);
        assert!(first_rows(&[], 4).is_empty());
    }
}
