//! Everything the program prints goes through here: data to standard output, everything else to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// How much to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verbosity {
    Quiet,
    Normal,
    Verbose(u8),
}

/// Prints the program's output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    verbosity: Verbosity,
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
            // The program's own error reports failures of the hub or a cluster.
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

    /// Whether progress may be a bar: on a terminal, unless log lines would tear it.
    pub(super) fn draws_bars(self) -> bool {
        self.verbosity == Verbosity::Normal && std::io::stderr().is_terminal()
    }

    /// A printer of only data and errors.
    #[cfg(feature = "cluster")]
    pub(crate) fn silent() -> Self {
        Self { verbosity: Verbosity::Quiet }
    }

    /// Whether only data and errors are printed.
    pub(crate) fn is_quiet(self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Prints a line of data.
    #[expect(clippy::unused_self, reason = "callers need a printer to print")]
    pub(crate) fn data(self, line: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout().lock(), "{line}")
    }

    /// Prints a line about the work, unless quiet.
    pub(crate) fn note(self, line: &str) {
        if self.verbosity != Verbosity::Quiet {
            write_error_line(line);
        }
    }

    /// Prints the reason for a failure in one line.
    #[expect(clippy::unused_self, reason = "callers need a printer to print")]
    pub(crate) fn error(self, error: &anyhow::Error) {
        write_error_line(&format!("error: {}", one_line(error)));
    }
}

/// Whether colours are allowed: <https://no-color.org>.
pub(crate) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether the program failed because the reader of its output is gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Ignores failures: if standard error is closed, there is nowhere to report them.
fn write_error_line(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// The chain of causes, outermost first, in one line. A cause that is already quoted is left out.
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
}
