//! `rerank`: scores query-passage pairs in Parquet files with BGE rerankers.

mod args;
#[cfg(feature = "cluster")]
mod cluster;
mod commands;
mod files;
mod hub;
mod job;
mod model;
mod report;
mod run;
mod settings;
mod storage;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::settings::SettingsFile;
use crate::terminal::{Printer, Stopped, printer, stop};

/// Set to `1` before the library is opened, it disables ONNX Runtime's telemetry.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

fn main() -> ExitCode {
    forbid_telemetry();
    datafusion_rerank::allow_onnxruntime_search();
    // Usage errors are reported, with clap's own exit status, before any file is read.
    let matches = definition().get_matches();
    let printer = Printer::new(matches.get_flag("quiet"), matches.get_count("verbose"));
    printer.start_log();
    match with_settings(matches)
        .and_then(|(cli, command, settings)| commands::run(cli.command, command, settings.as_ref(), printer))
    {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has closed it on purpose.
        Err(error) if printer::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            stop::exit_now(error.downcast_ref().map_or(1, Stopped::exit_code))
        }
    }
}

/// Newer ONNX Runtimes send telemetry to their vendor, and queue it in a database in the user's cache folder, which is
/// created and flushed to disk at every start. The library turns events off once an environment exists, which is too
/// late for that.
fn forbid_telemetry() {
    if std::env::var_os(NO_TELEMETRY).is_none() {
        // SAFETY: this is the only thread, so nothing reads the environment concurrently.
        unsafe { std::env::set_var(NO_TELEMETRY, "1") };
    }
}

/// The definition of the command line.
fn definition() -> clap::Command {
    settings::with_negations(Cli::command())
}

/// The parsed command line and its definition. The settings of a file, if there is one, are its defaults.
fn with_settings(mut matches: ArgMatches) -> Result<(Cli, clap::Command, Option<SettingsFile>)> {
    let Some(settings) = SettingsFile::find(matches.get_one::<PathBuf>("config").map(PathBuf::as_path))? else {
        // What is wrong here is wrong usage.
        let cli = Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
        return Ok((cli, definition(), None));
    };
    let command = settings.apply(definition())?;
    let parsed = command.clone().try_get_matches().and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    // The command line was valid without the settings.
    let cli = parsed
        .map_err(|error| anyhow!("settings {}: {}", settings.path.display(), settings::first_paragraph(&error)))?;
    Ok((cli, command, Some(settings)))
}
