//! `rerank completions`: prints what makes a shell complete commands and options.

use std::io::Write;

use anyhow::Result;
use clap::Command;

use crate::args::CompletionsArgs;

/// Runs the subcommand.
pub(crate) fn run(args: &CompletionsArgs, cli: &mut Command) -> Result<()> {
    // Generated before it is printed: the generator panics when nobody reads its output.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, cli, "rerank", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
