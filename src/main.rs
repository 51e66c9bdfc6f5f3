//! `rerank`: scores query-passage pairs in Parquet files with BGE rerankers.

mod args;
mod arrow_file;
mod arrow_output;
mod bundled;
mod commands;
mod dry_run;
mod histogram;
mod html;
mod hub;
mod input;
mod job;
mod json_lines;
mod layout;
mod ledger;
mod location;
mod lock;
mod manifest;
mod marker;
mod object_file;
mod output;
mod pipeline;
mod printer;
mod progress;
mod query;
mod reader;
mod report;
mod settings;
mod source;
mod status;
mod stop;
mod store;
mod table;
mod tally;
mod units;
mod upload;
mod window;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::printer::Printer;
use crate::settings::Settings;
use crate::stop::Stopped;

fn main() -> ExitCode {
    // What is wrong with the command line is said, with clap's own status, before any file is read.
    let matches = Cli::command().get_matches();
    let printer = Printer::new(matches.get_flag("quiet"), matches.get_count("verbose"));
    printer.start_log();
    let file = matches.get_one::<std::path::PathBuf>("config");
    match with_settings(file.map(std::path::PathBuf::as_path))
        .and_then(|(cli, command, settings)| commands::run(cli.command, command, settings.as_ref(), printer))
    {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads standard output has seen enough of it.
        Err(error) if printer::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            stop::exit_now(error.downcast_ref().map_or(1, Stopped::exit_code))
        }
    }
}

/// The command line with the defaults of the settings, if there are any: parsed, and its definition.
fn with_settings(file: Option<&std::path::Path>) -> Result<(Cli, clap::Command, Option<Settings>)> {
    let settings = Settings::find(file)?;
    let command = match &settings {
        Some(settings) => settings.apply(Cli::command())?,
        None => Cli::command(),
    };
    let parsed = command.clone().try_get_matches().and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    // It was right without them.
    let cli = parsed.map_err(|error| match &settings {
        Some(settings) => anyhow!("settings {}: {}", settings.file.display(), settings::first_paragraph(&error)),
        None => error.into(),
    })?;
    Ok((cli, command, settings))
}
