//! The engine and the job compared with a loop that only calls ONNX Runtime, on batches tokenized and sorted in
//! advance.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion_rerank::{EngineOptions, Reranker};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorRef;
use parquet::arrow::ArrowWriter;

use crate::support::{alternate, table};

/// The engine's default on the CPU.
const BATCH_TOKENS_PER_THREAD: usize = 512;

/// A batch, ready for the session.
struct Ready {
    shape: [usize; 2],
    ids: Vec<i64>,
    mask: Vec<i64>,
}

pub(crate) fn run(checkpoint: &Path, rows: usize, repeats: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (queries, passages) = table(rows)?;
    let input = write_table(folder.path(), &queries, &passages)?;
    let output = folder.path().join("scored");

    let reranker = Reranker::open(checkpoint, &EngineOptions::default())?;
    reranker.model().export(folder.path())?;
    reranker.load()?;
    let batches = batches(&reranker, &queries, &passages)?;
    let real: i64 = batches.iter().flat_map(|batch| &batch.mask).sum();
    let mut session = session(&folder.path().join("model.onnx"))?;

    let mut bare = || bare(&mut session, &batches);
    let mut engine = || reranker.score_rows(&queries, &passages).map(drop).map_err(Into::into);
    let mut job = || job(checkpoint, &input, &output);
    let seconds = alternate(repeats, &mut [&mut bare, &mut engine, &mut job])?;

    let stats = reranker.score_rows(&queries, &passages)?.stats();
    println!(
        "{rows} pairs, {real} tokens; padding {:.2} % in windows of table order; median of {repeats}",
        stats.padding_percent()
    );
    for (name, taken) in ["bare session", "engine", "rerank run (process)"].iter().zip(&seconds) {
        println!(
            "{name}\t{taken:.2} s\t{:.1} pairs/s\t{:.1} % of the bare session",
            rows as f64 / taken,
            100.0 * seconds[0] / taken
        );
    }
    Ok(())
}

/// All rows: tokenized, sorted by length and divided by tokens.
fn batches(reranker: &Reranker, queries: &StringArray, passages: &StringArray) -> anyhow::Result<Vec<Ready>> {
    let pairs = queries.iter().flatten().zip(passages.iter().flatten());
    let mut ids: Vec<Vec<u32>> =
        pairs.map(|(query, passage)| reranker.token_ids(query, passage)).collect::<Result<_, _>>()?;
    ids.sort_by_key(|ids| std::cmp::Reverse(ids.len()));
    let mut batches = Vec::new();
    let batch_tokens = BATCH_TOKENS_PER_THREAD * std::thread::available_parallelism().map_or(1, usize::from);
    let mut rest = ids.as_slice();
    while let Some(longest) = rest.first() {
        let length = longest.len();
        let (members, others) = rest.split_at((batch_tokens / length).clamp(1, rest.len()));
        let mut batch = Ready { shape: [members.len(), length], ids: Vec::new(), mask: Vec::new() };
        for (row, pair) in members.iter().enumerate() {
            batch.ids.extend(pair.iter().map(|&id| i64::from(id)));
            batch.mask.resize(batch.ids.len(), 1);
            batch.ids.resize((row + 1) * length, 1);
            batch.mask.resize((row + 1) * length, 0);
        }
        batches.push(batch);
        rest = others;
    }
    Ok(batches)
}

/// A plain session. The library has already loaded ONNX Runtime.
fn session(model: &Path) -> anyhow::Result<Session> {
    let threads = std::thread::available_parallelism()?.get();
    let environment = datafusion_rerank::environment()?;
    let builder = SessionBuilder::new(environment).and_then(|b| Ok(b.with_intra_threads(threads)?));
    builder.and_then(|mut builder| builder.commit_from_file(model)).map_err(|e| anyhow::anyhow!("{e}"))
}

fn bare(session: &mut Session, batches: &[Ready]) -> anyhow::Result<()> {
    for batch in batches {
        let ids = TensorRef::from_array_view((batch.shape, batch.ids.as_slice()))?;
        let mask = TensorRef::from_array_view((batch.shape, batch.mask.as_slice()))?;
        let outputs = session.run(ort::inputs!["input_ids" => ids, "attention_mask" => mask])?;
        ensure!(outputs["logits"].try_extract_tensor::<f32>()?.1.len() == batch.shape[0], "one logit for each pair");
    }
    Ok(())
}

fn job(checkpoint: &Path, input: &Path, output: &Path) -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO_BIN_EXE_rerank"))
        .args(["run", "--quiet", "--restart", "--model"])
        .arg(checkpoint)
        .args([input, output])
        .stderr(Stdio::inherit())
        .status()
        .context("starting rerank")?;
    ensure!(status.success(), "rerank run failed");
    Ok(())
}

fn write_table(folder: &Path, queries: &StringArray, passages: &StringArray) -> anyhow::Result<PathBuf> {
    let path = folder.join("pairs.parquet");
    let batch = RecordBatch::try_from_iter([
        ("query", Arc::new(queries.clone()) as ArrayRef),
        ("passage", Arc::new(passages.clone()) as ArrayRef),
    ])?;
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(path)
}
