//! `rerank model list`: lists the rerankers in the Hugging Face cache and their converted weights.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Result;
use datafusion_rerank::{CachedWeights, Family, HubCache, Precision, WeightsCache};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::args::ListArgs;
use crate::hub::{Snapshot, find_cache, short_commit};
use crate::terminal::{Printer, table};

/// The placeholder of an empty column.
const NOTHING: &str = "-";

/// Runs the subcommand.
pub(crate) fn run(args: &ListArgs, printer: Printer) -> Result<()> {
    let (hub, cache) = (find_cache()?, WeightsCache::open(args.cache.as_deref())?);
    let listing = ModelListing::new(&hub, &cache)?;
    if args.json {
        return Ok(printer.data(&format!("{:#}", listing.to_json(&hub, &cache)))?);
    }
    if listing.models.is_empty() && listing.others.is_empty() {
        let folder = hub.folder().display();
        printer.note(&format!(
            "there are no rerankers in the Hugging Face cache {folder}; fetch one: rerank model pull m3"
        ));
        return Ok(());
    }
    for line in table::lines(&listing.rows()) {
        printer.data(&line)?;
    }
    Ok(())
}

/// The models and converted weights on this machine.
struct ModelListing {
    /// Models with the weights converted from them.
    models: Vec<(Snapshot, Vec<CachedWeights>)>,
    /// Weights of checkpoints that are not in the Hugging Face cache.
    others: Vec<CachedWeights>,
}

impl ModelListing {
    fn new(hub: &HubCache, cache: &WeightsCache) -> Result<Self> {
        let mut models = Vec::new();
        let mut theirs: HashSet<PathBuf> = HashSet::new();
        for snapshot in Snapshot::list(hub)? {
            // An incomplete or damaged model was never loaded, so it has no weights.
            let weights = cache.weights_of(&snapshot.folder).unwrap_or_default();
            theirs.extend(weights.iter().map(|weights| weights.file.clone()));
            models.push((snapshot, weights));
        }
        let others = cache.weights()?.into_iter().filter(|weights| !theirs.contains(&weights.file)).collect();
        Ok(Self { models, others })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["name", "id", "revision", "family", "size", "converted"].map(str::to_owned).to_vec()];
        for (snapshot, weights) in &self.models {
            let Snapshot { model, commit, refs, family, size_bytes, complete, .. } = snapshot;
            let refs = if refs.is_empty() { String::new() } else { format!(" ({})", refs.join(", ")) };
            let missing = if *complete { "" } else { ", not complete" };
            rows.push(vec![
                model.published_name().unwrap_or(NOTHING).to_owned(),
                model.id().to_string(),
                format!("{}{refs}", short_commit(commit)),
                family.to_string(),
                format!("{}{missing}", HumanBytes(*size_bytes)),
                sizes(weights),
            ]);
        }
        for weights in &self.others {
            let checkpoint = weights.checkpoint.as_ref().map(|checkpoint| checkpoint.display().to_string());
            rows.push(vec![
                NOTHING.to_owned(),
                checkpoint.unwrap_or_else(|| "unknown".to_owned()),
                NOTHING.to_owned(),
                weights.family.map_or_else(|| NOTHING.to_owned(), |family| family.to_string()),
                NOTHING.to_owned(),
                sizes(std::slice::from_ref(weights)),
            ]);
        }
        rows
    }

    fn to_json(&self, hub: &HubCache, cache: &WeightsCache) -> Value {
        let models = self.models.iter().map(|(snapshot, weights)| {
            json!({
                "name": snapshot.model.published_name(),
                "id": snapshot.model.id().to_string(),
                "commit": snapshot.commit,
                "refs": snapshot.refs,
                "family": snapshot.family.name(),
                "folder": snapshot.folder,
                "size_bytes": snapshot.size_bytes,
                "complete": snapshot.complete,
                "weights": weights.iter().map(weights_json).collect::<Vec<_>>(),
            })
        });
        let others = self.others.iter().map(weights_json);
        json!({
            "hub_cache": hub.folder(),
            "cache": cache.folder(),
            "models": models.collect::<Vec<_>>(),
            "other_weights": others.collect::<Vec<_>>(),
        })
    }
}

/// The total size of each precision: `int8 557.21 MiB, fp16 1.06 GiB`.
fn sizes(weights: &[CachedWeights]) -> String {
    let of = |precision: &Precision| {
        let sizes = weights.iter().filter(|weights| weights.precision == *precision);
        let size_bytes = sizes.map(|weights| weights.size_bytes).sum::<u64>();
        (size_bytes > 0).then(|| format!("{precision} {}", HumanBytes(size_bytes)))
    };
    let sizes: Vec<String> = Precision::ALL.iter().filter_map(of).collect();
    if sizes.is_empty() { NOTHING.to_owned() } else { sizes.join(", ") }
}

fn weights_json(weights: &CachedWeights) -> Value {
    json!({
        "file": weights.file,
        "size_bytes": weights.size_bytes,
        "precision": weights.precision.name(),
        "checkpoint": weights.checkpoint,
        "family": weights.family.map(Family::name),
        "adapter": weights.adapter,
    })
}
