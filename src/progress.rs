//! How far a run has come.

use std::time::{Duration, Instant};

use datafusion_rerank::ScoreStats;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle as BarStyle};

use crate::printer::{Printer, ProgressStyle};
use crate::report::{human_rate, per_second};

/// How often a line is printed where no bar can be drawn.
pub(crate) const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// How often a bar is redrawn while nothing arrives.
const TICK: Duration = Duration::from_millis(200);

/// Progress shown to whoever waits.
pub(crate) struct Progress {
    printer: Printer,
    view: View,
    rows: u64,
    start: Instant,
    stats: ScoreStats,
}

enum View {
    Silent,
    Lines,
    Bar(ProgressBar),
}

impl Progress {
    /// Progress towards this many rows.
    pub(crate) fn start(printer: Printer, rows: u64) -> Self {
        let view = match printer.progress_style() {
            ProgressStyle::Silent => View::Silent,
            ProgressStyle::Lines => View::Lines,
            ProgressStyle::Bar(target) => {
                let template = "{wide_bar} {human_pos}/{human_len} rows  {msg}";
                let style = BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar());
                let bar = ProgressBar::with_draw_target(Some(rows), target).with_style(style);
                bar.enable_steady_tick(TICK);
                View::Bar(bar)
            }
        };
        Self { printer, view, rows, start: Instant::now(), stats: ScoreStats::default() }
    }

    /// Counts rows that have been scored.
    pub(crate) fn add(&mut self, stats: ScoreStats) {
        self.stats += stats;
        if let View::Bar(bar) = &self.view {
            bar.set_position(self.stats.rows);
            bar.set_message(rates(&self.stats, self.rows, self.start.elapsed()));
        }
    }

    /// Prints a line, where no bar says it.
    pub(crate) fn line(&self) {
        if let View::Lines = self.view {
            let rates = rates(&self.stats, self.rows, self.start.elapsed());
            self.printer.note(&format!("{}/{} rows  {rates}", HumanCount(self.stats.rows), HumanCount(self.rows)));
        }
    }

    /// Ends the display and gives the totals.
    pub(crate) fn finish(self) -> (ScoreStats, Duration) {
        (self.stats, self.start.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

/// `812 pairs/s, 93,001 tokens/s, 3.1 % padding, 2 minutes left`
fn rates(stats: &ScoreStats, rows: u64, elapsed: Duration) -> String {
    let mut text = format!(
        "{} pairs/s, {} tokens/s, {:.1} % padding",
        human_rate(per_second(stats.pairs, elapsed)),
        human_rate(per_second(stats.tokens, elapsed)),
        stats.padding_percent(),
    );
    if let Some(left) = time_left(stats.rows, rows, elapsed) {
        text = format!("{text}, {} left", HumanDuration(left));
    }
    text
}

/// The time the remaining rows will take if they go on as the others did; `None` before there are any.
fn time_left(done: u64, rows: u64, elapsed: Duration) -> Option<Duration> {
    (done > 0).then(|| elapsed.mul_f64(rows.saturating_sub(done) as f64 / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_readable() {
        let mut stats = ScoreStats::default();
        let ten = Duration::from_secs(10);
        assert_eq!(rates(&stats, 100, ten), "0.00 pairs/s, 0.00 tokens/s, 0.0 % padding");
        stats.rows = 25;
        stats.pairs = 25;
        stats.tokens = 30_000;
        stats.padding_tokens = 10_000;
        assert_eq!(rates(&stats, 100, ten), "2.50 pairs/s, 3,000 tokens/s, 25.0 % padding, 30 seconds left");
        assert_eq!(time_left(100, 100, ten), Some(Duration::ZERO));
    }
}
