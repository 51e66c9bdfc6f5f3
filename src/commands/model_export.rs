//! `rerank model export`: writes a checkpoint as an ONNX directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args::ExportArgs;
use crate::model::{convert_weights, open};
use crate::terminal::Printer;

/// Runs the subcommand.
pub(crate) fn run(args: &ExportArgs, printer: Printer) -> Result<()> {
    let output = Path::new(&args.output);
    if output.exists() {
        bail!("OUT '{}' exists already; remove it or name another directory", output.display());
    }
    let reranker = open::open_for_graph(&args.model, args.device, &args.options)?;
    convert_weights(&reranker, printer)?;
    // Written beside OUT and renamed, so that a failed export leaves no directory that looks complete.
    let unfinished = unfinished(output)?;
    let outcome = reranker.model().export(&unfinished).map_err(anyhow::Error::from).and_then(|()| {
        std::fs::rename(&unfinished, output).with_context(|| format!("cannot make {}", output.display()))
    });
    if outcome.is_err() {
        drop(std::fs::remove_dir_all(&unfinished));
    }
    outcome?;
    printer.note(&format!("exported {} to {}", reranker.location().display(), output.display()));
    Ok(())
}

/// An empty directory beside `output`. Replaces what a killed export left there.
fn unfinished(output: &Path) -> Result<PathBuf> {
    let Some(name) = output.file_name() else {
        bail!("OUT '{}' has no name", output.display());
    };
    let folder = output.with_file_name(format!(".{}.unfinished", name.to_string_lossy()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
