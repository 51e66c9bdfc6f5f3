//! The progress of a run, in rows.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration};

use crate::job::Unit;
use crate::report::{Histogram, Tally, Totals};
use crate::terminal::{Count, Printer, ProgressView, busy_percent, human_rate, per_second};

/// Counts the rows of a run and shows its progress.
pub(crate) struct Progress {
    view: ProgressView,
    all: Extent,
    done: Extent,
    start: Instant,
    tally: Tally,
    files: usize,
    timeline: Histogram,
}

/// An amount of input.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Extent {
    pub(crate) rows: u64,
    /// Bytes of the rows in the input.
    pub(crate) bytes: f64,
}

impl Extent {
    /// The extent of all rows of some units.
    pub(crate) fn of<'a>(units: impl IntoIterator<Item = &'a Unit>) -> Self {
        units.into_iter().fold(Self::default(), |sum, unit| Self {
            rows: sum.rows + unit.rows,
            bytes: sum.bytes + unit.bytes as f64,
        })
    }

    /// The extent of some rows of a unit.
    fn part(rows: u64, unit: &Unit) -> Self {
        Self { rows, bytes: unit.bytes as f64 * rows as f64 / unit.rows.max(1) as f64 }
    }
}

impl Progress {
    /// Starts at zero of `all`.
    pub(crate) fn start(printer: Printer, all: Extent) -> Self {
        Self {
            view: ProgressView::start(printer, all.rows, Count::Rows),
            all,
            done: Extent::default(),
            start: Instant::now(),
            tally: Tally::default(),
            files: 0,
            timeline: Histogram::new(1.0),
        }
    }

    /// Counts an output file that is complete.
    pub(crate) fn add_file(&mut self) {
        self.files += 1;
    }

    /// Adds scored rows of a unit.
    pub(crate) fn add(&mut self, tally: &Tally, unit: &Unit) {
        self.tally.merge(tally);
        self.timeline.add(self.start.elapsed().as_secs_f64(), tally.stats.pairs);
        let part = Extent::part(tally.stats.rows, unit);
        self.done = Extent { rows: self.done.rows + part.rows, bytes: self.done.bytes + part.bytes };
        self.view.update(self.done.rows, || self.rates());
    }

    /// Prints a progress line if there is no progress bar.
    pub(crate) fn line(&self) {
        let (done, all) = (HumanCount(self.done.rows), HumanCount(self.all.rows));
        self.view.line(|| format!("{done}/{all} rows  {}", self.rates()));
    }

    /// The totals so far.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            tally: self.tally.clone(),
            files: self.files,
            timeline: self.timeline.clone(),
            wall: self.start.elapsed(),
        }
    }

    fn rates(&self) -> String {
        rates(&self.tally, self.done, self.all, self.start.elapsed())
    }
}

/// `2 minutes left, 812 pairs/s, 93,001 tokens/s, 3.1 % padding, device busy 98 %, 1.2 GiB of 3.4 GiB`
fn rates(tally: &Tally, done: Extent, all: Extent, elapsed: Duration) -> String {
    let stats = &tally.stats;
    let rates = format!(
        "{} pairs/s, {} tokens/s, {:.1} % padding, device busy {:.0} %, {} of {}",
        human_rate(per_second(stats.pairs, elapsed)),
        human_rate(per_second(stats.tokens, elapsed)),
        stats.padding_percent(),
        busy_percent(stats.device_time, elapsed),
        HumanBytes(done.bytes as u64),
        HumanBytes(all.bytes as u64),
    );
    match time_left(done.rows, all.rows, elapsed) {
        Some(left) => format!("{} left, {rates}", HumanDuration(left)),
        None => rates,
    }
}

/// The time for the remaining rows at the rate so far; `None` before the first row is done.
fn time_left(done: u64, rows: u64, elapsed: Duration) -> Option<Duration> {
    (done > 0).then(|| elapsed.mul_f64(rows.saturating_sub(done) as f64 / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_readable() {
        let ten = Duration::from_secs(10);
        let all = Extent { rows: 100, bytes: 4096.0 };
        assert_eq!(
            rates(&Tally::default(), Extent::default(), all, ten),
            "0.00 pairs/s, 0.00 tokens/s, 0.0 % padding, device busy 0 %, 0 B of 4.00 KiB"
        );
        let mut tally = Tally::default();
        tally.stats.pairs = 25;
        tally.stats.tokens = 30_000;
        tally.stats.padding_tokens = 10_000;
        tally.stats.device_time = Duration::from_secs(9);
        assert_eq!(
            rates(&tally, Extent { rows: 25, bytes: 1024.0 }, all, ten),
            "30 seconds left, 2.50 pairs/s, 3,000 tokens/s, 25.0 % padding, device busy 90 %, 1.00 KiB of 4.00 KiB"
        );
        assert_eq!(time_left(100, 100, ten), Some(Duration::ZERO));
    }

    #[test]
    fn rows_take_their_share_of_a_units_bytes() {
        let unit = Unit { groups: 0..1, rows: 10, bytes: 1000, ..Unit::default() };
        assert_eq!(Extent::part(4, &unit), Extent { rows: 4, bytes: 400.0 });
        assert_eq!(Extent::part(0, &Unit { rows: 0, ..unit.clone() }), Extent { rows: 0, bytes: 0.0 });
        assert_eq!(Extent::of([&unit, &unit]), Extent { rows: 20, bytes: 2000.0 });
    }
}
