//! What scoring cost.

use std::ops::{AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counters of one or more scored windows; they can be added.
///
/// In JSON, times are in seconds, and a missing counter is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ScoreStats {
    /// Rows given, NULLs included.
    pub rows: u64,
    /// Rows with both a query and a passage.
    pub pairs: u64,
    /// Pairs that repeat another of their window and were not scored again.
    pub duplicates: u64,
    /// Pairs whose query or passage was cut.
    pub truncated: u64,
    /// Pairs that could not be scored because of their own content or length.
    #[serde(rename = "failed_pairs")]
    pub errors: u64,
    /// Tokens run on the device, without padding.
    pub tokens: u64,
    /// Padding tokens run on the device.
    pub padding_tokens: u64,
    /// Device batches.
    pub batches: u64,
    /// Wall time from texts to cut batches.
    #[serde(rename = "tokenize_seconds", serialize_with = "to_seconds", deserialize_with = "from_seconds")]
    pub tokenize_time: Duration,
    /// Time the device ran; the mean of several devices, so it never exceeds wall time.
    #[serde(rename = "device_seconds", serialize_with = "to_seconds", deserialize_with = "from_seconds")]
    pub device_time: Duration,
}

impl ScoreStats {
    /// Percentage of the tokens run on the device that were padding; 0 if nothing ran.
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

impl Sub for ScoreStats {
    type Output = Self;

    /// What was counted since `before`, an earlier reading of the same counters; never below 0.
    fn sub(self, before: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(before.rows),
            pairs: self.pairs.saturating_sub(before.pairs),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
            truncated: self.truncated.saturating_sub(before.truncated),
            errors: self.errors.saturating_sub(before.errors),
            tokens: self.tokens.saturating_sub(before.tokens),
            padding_tokens: self.padding_tokens.saturating_sub(before.padding_tokens),
            batches: self.batches.saturating_sub(before.batches),
            tokenize_time: self.tokenize_time.saturating_sub(before.tokenize_time),
            device_time: self.device_time.saturating_sub(before.device_time),
        }
    }
}

fn to_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn from_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every counter differs from the others.
    fn stats() -> ScoreStats {
        ScoreStats {
            rows: 1,
            pairs: 2,
            duplicates: 3,
            truncated: 4,
            errors: 5,
            tokens: 6,
            padding_tokens: 7,
            batches: 8,
            tokenize_time: Duration::from_millis(1500),
            device_time: Duration::from_millis(250),
        }
    }

    #[test]
    fn subtraction_takes_back_an_addition() {
        let mut sum = stats();
        sum += stats();
        assert_eq!(sum - stats(), stats());
        assert_eq!(stats() - sum, ScoreStats::default());
    }

    #[test]
    fn json_is_read_back_and_missing_counters_are_zero() {
        let json = serde_json::to_value(stats()).unwrap();
        assert_eq!((&json["failed_pairs"], &json["tokenize_seconds"]), (&5.into(), &1.5.into()));
        assert_eq!(serde_json::from_value::<ScoreStats>(json).unwrap(), stats());
        let rows = ScoreStats { rows: 9, ..ScoreStats::default() };
        assert_eq!(serde_json::from_str::<ScoreStats>(r#"{"rows": 9}"#).unwrap(), rows);
    }
}
