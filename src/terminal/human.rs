//! Human-readable numbers.

use std::time::Duration;

use indicatif::HumanCount;

/// A count divided by a time; 0 if no time has passed.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// A rate as a whole number or, below 10, with two decimals: a slow model is not shown as 0.
pub(crate) fn human_rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.2}") } else { HumanCount(rate.round() as u64).to_string() }
}

/// `1 row`, `2,000 rows`.
pub(crate) fn human_count(n: u64, one: &str) -> String {
    format!("{} {one}{}", HumanCount(n), if n == 1 { "" } else { "s" })
}

/// The share of `wall` in which the device was busy, in percent.
pub(crate) fn busy_percent(device: Duration, wall: Duration) -> f64 {
    100.0 * per_second(1, wall) * device.as_secs_f64()
}
