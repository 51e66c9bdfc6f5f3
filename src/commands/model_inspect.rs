//! `rerank model inspect`: describes a checkpoint, and accounts for everything in it.

use std::path::Path;

use anyhow::{Context, Result};
use datafusion_rerank::{CheckpointPart, Reranker};
use indicatif::HumanBytes;

use crate::args::InspectArgs;
use crate::model::{account, open};
use crate::terminal::Printer;

/// The length in tokens of the pair for which the work is computed.
const PAIR_TOKENS: usize = 512;

/// Runs the subcommand. Opening the model checks its configuration, its tokenizer and the headers of its weights.
pub(crate) fn run(args: &InspectArgs, printer: Printer) -> Result<()> {
    let reranker = open::open_for_graph(&args.model, args.device, &args.options)?;
    let family = reranker.family();
    printer.data(&format!("location\t{}", reranker.location().display()))?;
    printer.data(&format!("family\t{family}\t({})", family.hub_id()))?;
    printer.data(&format!("options\t{}", family.options().join(", ")))?;
    for line in facts(&reranker) {
        printer.data(&line)?;
    }
    let parts = reranker.model().account();
    for part in parts.iter().filter(|part| part.name.is_none()) {
        printer.data(&file_line(&reranker, part)?)?;
    }
    for line in account::lines(&parts) {
        printer.data(&line)?;
    }
    Ok(())
}

/// A file of the checkpoint or of its adapter, its size, and what became of it.
fn file_line(reranker: &Reranker, part: &CheckpointPart) -> Result<String> {
    let adapter = reranker.options().adapter.as_deref().map(Path::new).filter(|_| part.of_adapter);
    let file = adapter.unwrap_or(reranker.location()).join(&part.file);
    // Follows links: the Hugging Face cache consists of them.
    let meta = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let fate = account::fate(part.ignored.as_deref());
    // Two files may have one name.
    let what = if part.of_adapter { "adapter file" } else { "file" };
    Ok(format!("{what}\t{}\t{}\t{fate}", part.file, HumanBytes(meta.len())))
}

/// Size, shape and work. Empty for an ONNX export, where only the graph knows them.
fn facts(reranker: &Reranker) -> Vec<String> {
    let Some(shape) = reranker.model().shape() else { return Vec::new() };
    let parameters = reranker.model().parameters();
    let stored: Vec<&str> = parameters.keys().copied().collect();
    let parameters: u64 = parameters.values().sum();
    let gigabytes = |bytes: u64| (parameters * bytes) as f64 / 1e9;
    let mut facts = vec![
        format!("parameters\t{parameters}\t({:.2}B, stored as {})", parameters as f64 / 1e9, stored.join(", ")),
        format!("weights\t{:.2} GB in fp32\t{:.2} GB in fp16 or bf16", gigabytes(4), gigabytes(2)),
        format!(
            "layers\t{} of width {}, MLP {}, {} heads of {} ({} for keys and values)",
            shape.layers, shape.hidden, shape.intermediate, shape.heads, shape.head_dim, shape.kv_heads
        ),
        format!("vocabulary\t{}", shape.vocabulary),
        match shape.max_tokens {
            Some(tokens) => format!("longest pair\t{tokens} tokens"),
            None => "longest pair\tbounded by memory only".to_owned(),
        },
    ];
    if let Some((first, last, step)) = shape.exits {
        let step = if step == 1 { String::new() } else { format!(" in steps of {step}") };
        facts.push(format!("cutoff layers\t{first} to {last}{step}"));
    }
    facts.extend(memory(reranker));
    if let Some(flops) = reranker.model().pair_flops(PAIR_TOKENS) {
        let per_token = flops / PAIR_TOKENS as f64 / 1e9;
        facts.push(format!(
            "work\t{per_token:.3} GFLOP per token of a pair of {PAIR_TOKENS}, options {}",
            reranker.options().to_json()
        ));
    }
    facts
}

/// What the model takes on a GPU, and whether that is free on each of its devices.
fn memory(reranker: &Reranker) -> Option<String> {
    let model = reranker.model();
    let bytes = model.gpu_bytes()?;
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let devices = &reranker.engine_options().devices;
    let precision = if devices.is_cpu() { "16 bits".to_owned() } else { model.precision().to_string() };
    let estimate = format!(
        "memory\t{:.1} GB on a GPU in {precision} (estimate): weights {:.1}, batches of {} tokens {:.1}, the rest is CUDA's",
        gigabytes(bytes.total()),
        gigabytes(bytes.weights),
        bytes.batch_tokens,
        gigabytes(bytes.batch),
    );
    if let Err(error) = model.check_devices() {
        return Some(format!("{estimate}\t{error}"));
    }
    let verdicts = devices.iter().filter_map(|device| {
        let memory = device.memory()?;
        let verdict = if bytes.total() <= memory.free_bytes { "fits" } else { "does not fit" };
        Some(format!("\t{verdict} on {device}: {memory}"))
    });
    Some(std::iter::once(estimate).chain(verdicts).collect())
}
