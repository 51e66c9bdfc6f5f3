//! `rerank completions`: prints a completion script for a shell.

use std::io::Write;

use anyhow::Result;
use clap::Command;

use crate::args::CompletionsArgs;

/// Runs the subcommand.
pub(crate) fn run(args: &CompletionsArgs, cli: &mut Command) -> Result<()> {
    // Generated before it is printed: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, cli, "rerank", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
