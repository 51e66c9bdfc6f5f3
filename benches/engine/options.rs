//! The effect of the options on the work: early exits, compression, lengths.

use std::path::Path;

use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};

use crate::support::{alternate, table};

pub(crate) fn run(checkpoint: &Path, options: &[String], rows: usize, repeats: usize) -> anyhow::Result<()> {
    let (queries, passages) = table(rows)?;
    let base = Reranker::open(checkpoint, &EngineOptions::default())?;
    let rerankers: Vec<Reranker> = options
        .iter()
        .map(|json| Ok(base.with_options(&ScoreOptions::from_json(&serde_json::from_str(json)?)?)?))
        .collect::<anyhow::Result<_>>()?;
    for reranker in &rerankers {
        reranker.score_rows(&queries.slice(0, 1), &passages.slice(0, 1))?;
    }
    let mut runs: Vec<_> = rerankers
        .iter()
        .map(|reranker| || reranker.score_rows(&queries, &passages).map(drop).map_err(Into::into))
        .collect();
    let mut contestants: Vec<&mut dyn FnMut() -> anyhow::Result<()>> = Vec::new();
    for run in &mut runs {
        contestants.push(run);
    }
    let seconds = alternate(repeats, &mut contestants)?;
    println!("{rows} pairs, median of {repeats}: options, seconds, pairs/s, times as fast, GFLOP/s of the layers");
    for ((json, reranker), &taken) in options.iter().zip(&rerankers).zip(&seconds) {
        let tokens = reranker.score_rows(&queries, &passages)?.stats().tokens as f64 / rows as f64;
        let flops = reranker.model().pair_flops(tokens as usize).unwrap_or(f64::NAN) * rows as f64;
        println!(
            "{json}\t{taken:.2}\t{:.1}\t{:.2}\t{:.0}",
            rows as f64 / taken,
            seconds[0] / taken,
            flops / taken / 1e9
        );
    }
    Ok(())
}
