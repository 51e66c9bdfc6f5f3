//! Shows progress as a bar, as lines, or not at all.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printer::Printer;

/// Interval of progress lines.
pub(crate) const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Interval at which a bar is redrawn while nothing changes.
const TICK: Duration = Duration::from_millis(200);

/// The unit of a progress bar.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Bytes,
    Rows,
}

/// The visible progress of one piece of work. Dropping it removes the bar.
#[derive(Debug)]
pub(crate) enum ProgressView {
    /// Nothing, with `--quiet`.
    Silent,
    /// A line now and then, if no bar can be drawn.
    Lines(Printer),
    /// A bar, on a terminal.
    Bar(ProgressBar),
}

impl ProgressView {
    /// Starts at 0 of `total`.
    pub(crate) fn start(printer: Printer, total: u64, count: Count) -> Self {
        if printer.is_quiet() {
            Self::Silent
        } else if printer.draws_bars() {
            Self::Bar(bar(total, count))
        } else {
            Self::Lines(printer)
        }
    }

    /// Moves the bar and replaces its message. Lines are left to [`Self::line`].
    pub(crate) fn update(&self, position: u64, message: impl FnOnce() -> String) {
        if let Self::Bar(bar) = self {
            bar.set_position(position);
            bar.set_message(message());
        }
    }

    /// Prints a progress line if there is no progress bar.
    pub(crate) fn line(&self, line: impl FnOnce() -> String) {
        if let Self::Lines(printer) = self {
            printer.note(&line());
        }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// A bar with the count beside it and a message below it.
fn bar(total: u64, count: Count) -> ProgressBar {
    let template = match count {
        Count::Bytes => "{wide_bar} {binary_bytes}/{binary_total_bytes}\n{wide_msg}",
        Count::Rows => "{wide_bar} {human_pos}/{human_len} rows\n{wide_msg}",
    };
    // The message is on a line of its own, which the terminal cuts. Beside the bar it would wrap.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_shows_no_progress() {
        let start = |printer| ProgressView::start(printer, 1, Count::Rows);
        assert!(matches!(start(Printer::new(true, 0)), ProgressView::Silent));
        assert!(matches!(start(Printer::new(false, 1)), ProgressView::Lines(_)));
    }
}
