//! What scoring cost.

use std::ops::AddAssign;
use std::time::Duration;

/// Counters of one or more scored windows; they add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScoreStats {
    /// Rows given, NULLs included.
    pub rows: u64,
    /// Rows with both a query and a passage.
    pub pairs: u64,
    /// Pairs that repeat another of their window and were not scored again.
    pub duplicates: u64,
    /// Pairs of which the query or the passage was cut.
    pub truncated: u64,
    /// Pairs that could not be scored, by their own fault.
    pub errors: u64,
    /// Real tokens run on the device.
    pub tokens: u64,
    /// Tokens run on the device that were padding.
    pub padding_tokens: u64,
    /// Device batches.
    pub batches: u64,
    /// Wall time from texts to cut batches.
    pub tokenize_time: Duration,
    /// Time the device ran; of several devices the mean, so that a wall clock's worth is all there can be.
    pub device_time: Duration,
}

impl ScoreStats {
    /// Share of the tokens run on the device that were padding, in percent; 0 if nothing ran.
    pub fn padding_percent(&self) -> f64 {
        let all = self.tokens + self.padding_tokens;
        if all == 0 { 0.0 } else { 100.0 * self.padding_tokens as f64 / all as f64 }
    }
}

impl AddAssign for ScoreStats {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.pairs += other.pairs;
        self.duplicates += other.duplicates;
        self.truncated += other.truncated;
        self.errors += other.errors;
        self.tokens += other.tokens;
        self.padding_tokens += other.padding_tokens;
        self.batches += other.batches;
        self.tokenize_time += other.tokenize_time;
        self.device_time += other.device_time;
    }
}
