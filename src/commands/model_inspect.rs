//! `rerank model inspect`: says what a checkpoint is.

use anyhow::{Context, Result};
use datafusion_rerank::EngineOptions;
use indicatif::HumanBytes;

use crate::args::InspectArgs;
use crate::job;
use crate::printer::Printer;

/// Runs the subcommand. Opening the model checks its configuration, its tokenizer and the headers of its weights.
pub(crate) fn run(args: &InspectArgs, printer: Printer) -> Result<()> {
    let reranker = job::open(&args.model, &EngineOptions::default())?;
    let family = reranker.family();
    printer.data(&format!("location\t{}", reranker.location().display()))?;
    printer.data(&format!("family\t{family}\t({})", family.hub_id()))?;
    printer.data(&format!("options\t{}", family.options().join(", ")))?;
    for (name, bytes) in files(reranker.location())? {
        printer.data(&format!("file\t{name}\t{}", HumanBytes(bytes)))?;
    }
    Ok(())
}

/// The files of a directory and their sizes in bytes, by name.
fn files(folder: &std::path::Path) -> Result<Vec<(String, u64)>> {
    let list = || {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Follows links: the Hugging Face cache is made of them.
            let meta = std::fs::metadata(entry.path())?;
            if meta.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), meta.len()));
            }
        }
        files.sort();
        Ok::<_, std::io::Error>(files)
    };
    list().with_context(|| format!("cannot list {}", folder.display()))
}
