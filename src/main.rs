//! `rerank`: scores query-passage pairs in Parquet files with BGE rerankers.

mod args;
mod arrow_file;
mod arrow_output;
mod commands;
mod dry_run;
mod histogram;
mod html;
mod hub;
mod input;
mod job;
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

use clap::Parser;

use crate::args::Cli;
use crate::printer::Printer;
use crate::stop::Stopped;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(cli.quiet, cli.verbose);
    printer.start_log();
    match commands::run(cli.command, printer) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads standard output has seen enough of it.
        Err(error) if printer::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            stop::exit_now(error.downcast_ref().map_or(1, Stopped::exit_code))
        }
    }
}
