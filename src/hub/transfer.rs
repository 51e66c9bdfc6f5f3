//! Progress of a download, in bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration};

use crate::terminal::{Count, Printer, ProgressView, per_second};

/// Counts the bytes of files that are downloaded concurrently and shows the progress.
#[derive(Debug)]
pub(crate) struct Transfer {
    view: ProgressView,
    all_bytes: u64,
    /// Bytes in the cache, whether downloaded now or before.
    present: AtomicU64,
    /// Bytes received since the start.
    received: AtomicU64,
    start: Instant,
}

impl Transfer {
    /// Starts at 0 of `all_bytes`.
    pub(crate) fn start(printer: Printer, all_bytes: u64) -> Self {
        Self {
            view: ProgressView::start(printer, all_bytes, Count::Bytes),
            all_bytes,
            present: AtomicU64::new(0),
            received: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Counts received bytes.
    pub(super) fn add(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.keep(bytes);
    }

    /// Counts bytes that the cache already had: from an earlier run or another revision.
    pub(super) fn keep(&self, bytes: u64) {
        self.present.fetch_add(bytes, Ordering::Relaxed);
        self.show();
    }

    /// Subtracts discarded bytes.
    pub(super) fn lose(&self, bytes: u64) {
        self.present.fetch_sub(bytes, Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        self.view.update(self.present.load(Ordering::Relaxed), || self.rate());
    }

    /// Prints a progress line if there is no progress bar.
    pub(crate) fn line(&self) {
        let (present, all) = (HumanBytes(self.present.load(Ordering::Relaxed)), HumanBytes(self.all_bytes));
        self.view.line(|| format!("{present}/{all}  {}", self.rate()));
    }

    /// `120.00 MiB in 3.0 s, 40.00 MiB/s`
    pub(crate) fn summary(&self) -> String {
        let (received, elapsed) = (self.received.load(Ordering::Relaxed), self.start.elapsed());
        let rate = HumanBytes(per_second(received, elapsed) as u64);
        format!("{} in {:.1} s, {rate}/s", HumanBytes(received), elapsed.as_secs_f64())
    }

    fn rate(&self) -> String {
        let left = self.all_bytes.saturating_sub(self.present.load(Ordering::Relaxed));
        rate(self.received.load(Ordering::Relaxed), left, self.start.elapsed())
    }
}

/// `2 minutes left, 40.00 MiB/s`
fn rate(received: u64, left: u64, elapsed: Duration) -> String {
    let rate = per_second(received, elapsed);
    let shown = format!("{}/s", HumanBytes(rate as u64));
    if rate > 0.0 {
        format!("{} left, {shown}", HumanDuration(Duration::from_secs((left as f64 / rate) as u64)))
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_received_bytes_only() {
        let ten = Duration::from_secs(10);
        assert_eq!(rate(0, 1 << 30, ten), "0 B/s");
        assert_eq!(rate(100 << 20, 1 << 30, ten), "2 minutes left, 10.00 MiB/s");
        let transfer = Transfer::start(Printer::new(true, 0), 100);
        transfer.keep(50);
        transfer.add(30);
        transfer.lose(10);
        assert_eq!(transfer.present.load(Ordering::Relaxed), 70);
        assert!(transfer.summary().starts_with("30 B in "), "{}", transfer.summary());
    }
}
