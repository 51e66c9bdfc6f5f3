//! The cost of opening a large checkpoint.

use std::path::Path;
use std::time::Instant;

use datafusion_rerank::{EngineOptions, Reranker};

use crate::support::{peak_rss_mib, table};

pub(crate) fn run(checkpoint: &Path, rows: usize) -> anyhow::Result<()> {
    let (queries, passages) = table(rows)?;
    let start = Instant::now();
    let reranker = Reranker::open(checkpoint, &EngineOptions::default())?;
    let opened = start.elapsed().as_secs_f64();
    reranker.load()?;
    let loaded = start.elapsed().as_secs_f64();
    let loaded_mib = peak_rss_mib();
    let stats = reranker.score_rows(&queries, &passages)?.stats();
    let scored = start.elapsed().as_secs_f64();
    let mib = |mib: Option<f64>| mib.map_or("unknown".to_owned(), |mib| format!("{mib:.0} MiB"));
    println!(
        "headers and tokenizer read after {opened:.2} s, weights loaded after {loaded:.2} s, peak {}",
        mib(loaded_mib)
    );
    println!("{rows} pairs ({} tokens) scored in {:.2} s, peak {}", stats.tokens, scored - loaded, mib(peak_rss_mib()));
    Ok(())
}
