//! A process that loads a model once and scores the same pairs on request: this library's side of `compare.py`, which
//! describes the measurement.
//!
//! ```text
//! serve '{"model": DIR, "pairs": FILE, "threads": 2, "cache": DIR, "options": {"precision": "int8"}}'
//! ```
//!
//! FILE is JSON, `[[query, passage], ..]`. The first line of standard output reports that the model is loaded. Every
//! line of standard input is then answered with one line: seconds and scores of a pass over all pairs.

#![expect(clippy::print_stdout, reason = "standard output is where compare.py reads")]

use std::error::Error;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use arrow::array::{Array, StringArray};
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Task {
    model: PathBuf,
    pairs: PathBuf,
    threads: usize,
    cache: PathBuf,
    options: serde_json::Value,
}

fn main() -> Result<(), Box<dyn Error>> {
    datafusion_rerank::allow_onnxruntime_search();
    let task = std::env::args().nth(1).ok_or("no task was given: serve '{\"model\": DIR, \"pairs\": FILE, ..}'")?;
    let task: Task = serde_json::from_str(&task)?;
    let pairs: Vec<(String, String)> = serde_json::from_slice(&std::fs::read(&task.pairs)?)?;
    let queries = StringArray::from_iter_values(pairs.iter().map(|(query, _)| query));
    let passages = StringArray::from_iter_values(pairs.iter().map(|(_, passage)| passage));

    let engine = EngineOptions::default().with_threads(task.threads).with_cache(task.cache);
    let reranker = Reranker::open(&task.model, &engine)?.with_options(&ScoreOptions::from_json(&task.options)?)?;
    reranker.load()?;
    println!("{}", json!({"versions": {"datafusion-rerank": env!("CARGO_PKG_VERSION")}}));

    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let scored = reranker.score_rows(&queries, &passages)?;
        let scores = scored.to_float32()?;
        let seconds = start.elapsed().as_secs_f64();
        if scores.null_count() > 0 {
            return Err("a pair could not be scored".into());
        }
        let stats = scored.stats();
        let tokens_per_pair = stats.tokens as f64 / pairs.len().max(1) as f64;
        let flops = reranker.model().pair_flops(tokens_per_pair as usize).map(|flops| flops * pairs.len() as f64);
        println!(
            "{}",
            json!({
                "seconds": seconds,
                "scores": scores.values().as_ref(),
                "tokens": stats.tokens,
                "padding_tokens": stats.padding_tokens,
                "batches": stats.batches,
                "device_seconds": stats.device_time.as_secs_f64(),
                "tokenize_seconds": stats.tokenize_time.as_secs_f64(),
                "flops": flops,
            })
        );
    }
    Ok(())
}
