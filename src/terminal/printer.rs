//! Everything the program prints goes through here: data to standard output, everything else to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use tracing_subscriber::EnvFilter;

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verbosity {
    Quiet,
    Normal,
    Verbose(u8),
}

/// Where output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    verbosity: Verbosity,
}

/// How progress is shown.
#[derive(Debug)]
pub(crate) enum ProgressStyle {
    /// Not at all.
    Silent,
    /// A line now and then.
    Lines,
    /// A bar that is drawn over.
    Bar(ProgressDrawTarget),
}

/// What a bar counts, as its template says it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Bytes,
    Rows,
}

/// A bar up to `all`, with the count beside it and a message below it.
pub(crate) fn bar(target: ProgressDrawTarget, all: u64, count: Count) -> ProgressBar {
    let template = match count {
        Count::Bytes => "{wide_bar} {binary_bytes}/{binary_total_bytes}\n{wide_msg}",
        Count::Rows => "{wide_bar} {human_pos}/{human_len} rows\n{wide_msg}",
    };
    // The second line is cut where the terminal ends; one line would be torn in two.
    let style = BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar());
    ProgressBar::with_draw_target(Some(all), target).with_style(style)
}

impl Printer {
    pub(crate) fn new(quiet: bool, verbose: u8) -> Self {
        let verbosity = match (quiet, verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, n) => Verbosity::Verbose(n),
        };
        Self { verbosity }
    }

    /// Sends the log to standard error: warnings, or more with `--verbose` or `RUST_LOG`.
    pub(crate) fn start_log(self) {
        let default = match self.verbosity {
            // What fails at the hub or on a cluster is told by the program's own error.
            Verbosity::Quiet => "error,hf_hub=off,ballista_core::execution_plans=off",
            Verbosity::Normal => "warn,hf_hub=off,ballista_core::execution_plans=off",
            Verbosity::Verbose(1) => "warn,rerank=info,datafusion_rerank=info",
            Verbosity::Verbose(_) => "info,rerank=debug,datafusion_rerank=debug",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && colours())
            .init();
    }

    /// How progress is to be shown. A bar would be torn apart by log lines.
    pub(crate) fn progress_style(self) -> ProgressStyle {
        match self.verbosity {
            Verbosity::Quiet => ProgressStyle::Silent,
            Verbosity::Normal if std::io::stderr().is_terminal() => ProgressStyle::Bar(ProgressDrawTarget::stderr()),
            Verbosity::Normal | Verbosity::Verbose(_) => ProgressStyle::Lines,
        }
    }

    /// One that prints data and errors only.
    #[cfg(feature = "cluster")]
    pub(crate) fn silent() -> Self {
        Self { verbosity: Verbosity::Quiet }
    }

    /// Whether only data and errors are wanted.
    #[cfg(feature = "shell")]
    pub(crate) fn is_quiet(self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Prints a line of data.
    #[expect(clippy::unused_self, reason = "output is printed by whoever holds the printer")]
    pub(crate) fn data(self, line: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout().lock(), "{line}")
    }

    /// Prints a line about what is going on.
    pub(crate) fn note(self, line: &str) {
        if self.verbosity != Verbosity::Quiet {
            write_error_line(line);
        }
    }

    /// Prints why the program fails, in one line.
    #[expect(clippy::unused_self, reason = "output is printed by whoever holds the printer")]
    pub(crate) fn error(self, error: &anyhow::Error) {
        write_error_line(&format!("error: {}", one_line(error)));
    }
}

/// Whether terminals may be sent colours: <https://no-color.org>.
pub(crate) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether the program failed because nobody reads its output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// If standard error is closed there is nobody left to tell.
fn write_error_line(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// The causes from the outermost to the root; a cause that the message before it quotes already is left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn errors_are_one_line_without_repetition() {
        let error = anyhow!("no such\n  file").context("x.parquet: no such file").context("cannot read");
        assert_eq!(one_line(&error), "cannot read: x.parquet: no such file");
        assert_eq!(one_line(&anyhow!("a").context("b")), "b: a");
    }

    #[test]
    fn quiet_shows_no_progress() {
        assert!(matches!(Printer::new(true, 0).progress_style(), ProgressStyle::Silent));
        assert!(matches!(Printer::new(false, 1).progress_style(), ProgressStyle::Lines));
    }
}
