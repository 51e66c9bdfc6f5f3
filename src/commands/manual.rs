//! `rerank manual`: writes manual pages.

use anyhow::{Context, Result};
use clap::Command;

use crate::args::ManualArgs;

/// Writes a page for each command, nested ones included.
pub(crate) fn run(args: &ManualArgs, cli: Command) -> Result<()> {
    let write = || {
        std::fs::create_dir_all(&args.folder)?;
        clap_mangen::generate_to(cli, &args.folder)
    };
    write().with_context(|| format!("manual pages cannot be written to {}", args.folder.display()))
}
