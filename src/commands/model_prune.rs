//! `rerank model prune`: removes converted weights and measured batch sizes.

use std::path::Path;

use anyhow::{Context, Result, bail};
use datafusion_rerank::{BatchMeasurement, CachedWeights, ModelRegistry, WeightsCache};
use indicatif::HumanBytes;

use crate::args::PruneArgs;
use crate::hub::HubModel;
use crate::terminal::{Printer, human_count};

/// Runs the subcommand.
pub(crate) fn run(args: &PruneArgs, printer: Printer) -> Result<()> {
    let cache = WeightsCache::open(args.cache.as_deref())?;
    let (weights, measurements, abandoned) = match &args.model {
        Some(model) => {
            let weights = weights_of(&cache, model)?;
            let measurements = measurements_of(&cache, model, &weights)?;
            (weights, measurements, Vec::new())
        }
        None => (cache.weights()?, cache.measurements()?, cache.abandoned()?),
    };
    let mut freed = Freed::default();
    for weights in weights {
        if args.dry_run || weights.remove()? {
            freed.add(weights.size_bytes);
            printer.data(&line(&weights.file, &origin(&weights), weights.size_bytes))?;
        } else {
            printer.note(&format!("{} stays: a process is about to load it", weights.file.display()));
        }
    }
    let measurements = measurements.into_iter().map(|found| (found.file, found.size_bytes, "the speed of batches"));
    let abandoned = abandoned.into_iter().map(|(file, size_bytes)| (file, size_bytes, "never finished"));
    for (file, size_bytes, what) in measurements.chain(abandoned) {
        if !args.dry_run {
            std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        freed.add(size_bytes);
        printer.data(&line(&file, what, size_bytes))?;
    }
    let (files, size) = (human_count(freed.files, "file"), HumanBytes(freed.size_bytes));
    printer.note(&match (freed.files, args.dry_run) {
        (0, _) => format!("nothing to remove in {}", cache.folder().display()),
        (_, true) => format!("would free {size} in {files}; without --dry-run they are removed"),
        (_, false) => format!("freed {size} in {files}; weights are made again when they are needed"),
    });
    Ok(())
}

/// Files that were or would be removed.
#[derive(Default)]
struct Freed {
    files: u64,
    size_bytes: u64,
}

impl Freed {
    fn add(&mut self, size_bytes: u64) {
        self.files += 1;
        self.size_bytes += size_bytes;
    }
}

/// The weights converted from a model: from the checkpoint that its name resolves to and, for a model of the hub, from
/// every revision, including those that the Hugging Face cache no longer has.
fn weights_of(cache: &WeightsCache, model: &str) -> Result<Vec<CachedWeights>> {
    let location = ModelRegistry::default().resolve(model);
    let mut weights = match &location {
        Ok(location) => cache.weights_of(location)?,
        Err(_) => Vec::new(),
    };
    if let Ok(model) = model.parse::<HubModel>() {
        let was_there = |weights: &CachedWeights| weights.checkpoint.as_deref().is_some_and(|path| model.is_at(path));
        let earlier = cache.weights()?.into_iter().filter(was_there);
        weights.extend(earlier.filter(|earlier| !weights.contains(earlier)).collect::<Vec<_>>());
    }
    match location {
        // The name may be misspelt.
        Err(error) if weights.is_empty() => {
            bail!("{error}; and there are no weights of it in {}", cache.folder().display())
        }
        _ => Ok(weights),
    }
}

/// The batch measurements of a model, and of every revision that `weights` were converted from.
fn measurements_of(cache: &WeightsCache, model: &str, weights: &[CachedWeights]) -> Result<Vec<BatchMeasurement>> {
    let mut measurements = match ModelRegistry::default().resolve(model) {
        Ok(location) => cache.measurements_of(&location)?,
        Err(_) => Vec::new(),
    };
    let is_of = |found: &BatchMeasurement| weights.iter().any(|weights| weights.fingerprint == found.fingerprint);
    let earlier: Vec<_> =
        cache.measurements()?.into_iter().filter(|found| is_of(found) && !measurements.contains(found)).collect();
    measurements.extend(earlier);
    Ok(measurements)
}

/// The precision and the checkpoint of weights, as text.
fn origin(weights: &CachedWeights) -> String {
    let of =
        weights.checkpoint.as_ref().map_or_else(|| "an unknown checkpoint".into(), |path| path.display().to_string());
    let adapter = weights.adapter.as_ref().map(|adapter| format!(" with the adapter {}", adapter.display()));
    format!("{} of {of}{}", weights.precision, adapter.unwrap_or_default())
}

fn line(file: &Path, what: &str, size_bytes: u64) -> String {
    format!("{}\t{what}\t{}", file.display(), HumanBytes(size_bytes))
}
