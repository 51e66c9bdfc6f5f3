//! Counts and distributions of scored rows. They can be added up.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use datafusion_rerank::{ScoreStats, Scores};
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// The most reasons counted separately. A reason that quotes its row differs from row to row.
const MAX_REASONS: usize = 50;

/// The reason that counts those beyond [`MAX_REASONS`].
const OTHER_REASONS: &str = "other reasons";

/// Initial bin width of the score histogram, fine enough for sigmoids as well as logits.
const SCORE_WIDTH: f64 = 1.0 / 64.0;

/// Initial bin width of the token histogram.
const TOKENS_WIDTH: f64 = 1.0;

/// Counts of one or more scored windows. In JSON, the library's counters stand beside the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// The library's counters. Rows are those read; errors include scores that are not a number.
    #[serde(flatten)]
    pub(crate) stats: ScoreStats,
    /// Rows written. `None` means as many as were read: the records of earlier versions lack this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_written: Option<u64>,
    /// Failed rows by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Scores; with several cutoff layers, those of the first.
    #[serde(rename = "score_histogram")]
    pub(crate) scores: Histogram,
    /// Tokens of the pairs: query and passage with their instructions, without special tokens and prompt.
    #[serde(rename = "token_histogram")]
    pub(crate) tokens: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            stats: ScoreStats::default(),
            rows_written: Some(0),
            errors: BTreeMap::new(),
            scores: Histogram::new(SCORE_WIDTH),
            tokens: Histogram::new(TOKENS_WIDTH),
        }
    }
}

impl Tally {
    /// The library's counters, without reasons and distributions.
    pub(crate) fn of(stats: ScoreStats) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Counts a window: `column` is its score column, `errors` its failed rows.
    pub(crate) fn new(scores: &Scores, column: &dyn Array, errors: &[(usize, String)]) -> Self {
        let mut tally = Self::of(scores.stats());
        // The engine counts rows that it could not run. Scores that are not a number are only found here.
        tally.stats.errors = errors.len() as u64;
        for (_, reason) in errors {
            tally.add_reason(reason, 1);
        }
        for tokens in scores.pair_tokens().flatten() {
            tally.tokens.add(f64::from(tokens), 1);
        }
        if let Some(values) = column.as_primitive_opt::<Float32Type>() {
            values.iter().flatten().for_each(|score| tally.scores.add(f64::from(score), 1));
        } else if let Some(lists) = column.as_list_opt::<i32>() {
            for list in lists.iter().flatten() {
                if let Some(score) = list.as_primitive_opt::<Float32Type>().and_then(|list| list.iter().next()?) {
                    tally.scores.add(f64::from(score), 1);
                }
            }
        }
        tally
    }

    /// Rows written. A query may write fewer or more than it reads.
    pub(crate) fn rows_written(&self) -> u64 {
        self.rows_written.unwrap_or(self.stats.rows)
    }

    pub(crate) fn add_written(&mut self, rows: u64) {
        self.rows_written = Some(self.rows_written() + rows);
    }

    /// Adds the counts of another tally.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add_written(other.rows_written());
        self.stats += other.stats;
        for (reason, count) in &other.errors {
            self.add_reason(reason, *count);
        }
        self.scores.merge(&other.scores);
        self.tokens.merge(&other.tokens);
    }

    fn add_reason(&mut self, reason: &str, count: u64) {
        add_reason(&mut self.errors, reason, count);
    }
}

/// The totals of a run.
#[derive(Debug)]
pub(crate) struct Totals {
    /// Counts and distributions.
    pub(crate) tally: Tally,
    /// Output files that were written.
    pub(crate) files: usize,
    /// Pairs by completion time, in seconds since the start.
    pub(crate) timeline: Histogram,
    /// Elapsed time.
    pub(crate) wall: Duration,
}

/// Counts failed rows under their reason, or under [`OTHER_REASONS`] if there are many reasons already.
pub(crate) fn add_reason(errors: &mut BTreeMap<String, u64>, reason: &str, count: u64) {
    let reason = if errors.len() < MAX_REASONS || errors.contains_key(reason) { reason } else { OTHER_REASONS };
    *errors.entry(reason.to_owned()).or_default() += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        let mut tally = Tally::default();
        for row in 0..1000 {
            tally.add_reason(&format!("row {row}"), 1);
        }
        tally.add_reason("row 3", 1);
        assert_eq!(tally.errors.len(), MAX_REASONS + 1);
        assert_eq!(tally.errors["row 3"], 2);
        assert_eq!(tally.errors[OTHER_REASONS], 1000 - MAX_REASONS as u64);
    }

    #[test]
    fn tallies_add_up() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.add_reason("a", 1);
        two.add_reason("a", 2);
        two.add_reason("b", 1);
        two.stats.rows = 5;
        two.scores.add(-3.0, 1);
        one.merge(&two);
        assert_eq!(one.errors, BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 1)]));
        assert_eq!(one.stats.rows, 5);
        assert_eq!(one.scores, two.scores);
    }
}
