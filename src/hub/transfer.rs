//! How far a download has come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar};

use crate::terminal::per_second;
use crate::terminal::{Count, Printer, ProgressStyle, bar};

/// How often a bar is redrawn while nothing arrives.
const TICK: Duration = Duration::from_millis(200);

/// Progress of several files that are fetched at once, in bytes.
#[derive(Debug)]
pub(crate) struct Transfer {
    printer: Printer,
    view: View,
    all: u64,
    /// What is there, whoever fetched it.
    there: AtomicU64,
    /// What has come over the network since the start.
    fetched: AtomicU64,
    start: Instant,
}

#[derive(Debug)]
enum View {
    Silent,
    Lines,
    Bar(ProgressBar),
}

impl Transfer {
    /// Progress towards this much.
    pub(crate) fn start(printer: Printer, all: u64) -> Self {
        let view = match printer.progress_style() {
            ProgressStyle::Silent => View::Silent,
            ProgressStyle::Lines => View::Lines,
            ProgressStyle::Bar(target) => {
                let bar = bar(target, all, Count::Bytes);
                bar.enable_steady_tick(TICK);
                View::Bar(bar)
            }
        };
        let (there, fetched) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { printer, view, all, there, fetched, start: Instant::now() }
    }

    /// Counts bytes that have arrived.
    pub(super) fn add(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.keep(bytes);
    }

    /// Counts bytes that are there: an earlier run had fetched them, or another revision has them.
    pub(super) fn keep(&self, bytes: u64) {
        self.there.fetch_add(bytes, Ordering::Relaxed);
        self.show();
    }

    /// Takes back bytes that are of no use.
    pub(super) fn lose(&self, bytes: u64) {
        self.there.fetch_sub(bytes, Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        if let View::Bar(bar) = &self.view {
            bar.set_position(self.there.load(Ordering::Relaxed));
            bar.set_message(self.rate());
        }
    }

    /// Prints a line, where no bar says it.
    pub(crate) fn line(&self) {
        if let View::Lines = self.view {
            let (there, all) = (HumanBytes(self.there.load(Ordering::Relaxed)), HumanBytes(self.all));
            self.printer.note(&format!("{there}/{all}  {}", self.rate()));
        }
    }

    /// `120.00 MiB in 3 seconds, 40.00 MiB/s`
    pub(crate) fn summary(&self) -> String {
        let (fetched, elapsed) = (self.fetched.load(Ordering::Relaxed), self.start.elapsed());
        let rate = HumanBytes(per_second(fetched, elapsed) as u64);
        format!("{} in {:.1} s, {rate}/s", HumanBytes(fetched), elapsed.as_secs_f64())
    }

    fn rate(&self) -> String {
        let there = self.there.load(Ordering::Relaxed);
        rate(self.fetched.load(Ordering::Relaxed), self.all.saturating_sub(there), self.start.elapsed())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

/// `2 minutes left, 40.00 MiB/s`
fn rate(fetched: u64, left: u64, elapsed: Duration) -> String {
    let rate = per_second(fetched, elapsed);
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
    fn only_what_is_fetched_now_makes_the_rate() {
        let ten = Duration::from_secs(10);
        assert_eq!(rate(0, 1 << 30, ten), "0 B/s");
        assert_eq!(rate(100 << 20, 1 << 30, ten), "2 minutes left, 10.00 MiB/s");
        let transfer = Transfer::start(Printer::new(true, 0), 100);
        transfer.keep(50);
        transfer.add(30);
        transfer.lose(10);
        assert_eq!(transfer.there.load(Ordering::Relaxed), 70);
        assert!(transfer.summary().starts_with("30 B in "), "{}", transfer.summary());
    }
}
