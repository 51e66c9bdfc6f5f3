//! Scores in 8 bits.

use std::path::Path;

use datafusion_rerank::{EngineOptions, Precision, Reranker, ScoreOptions};
use serde_json::json;

use crate::cli::{folder, lines, rerank};
use crate::support::{CHECKPOINTS, fixture, goldens, tiny_m3};

fn open(checkpoint: &Path, cache: &Path, precision: Precision) -> Reranker {
    let mut engine = EngineOptions::default();
    engine.cache = Some(cache.to_owned());
    let mut options = ScoreOptions::default();
    options.precision = Some(precision);
    Reranker::open(checkpoint, &engine).unwrap().with_options(&options).unwrap()
}

fn scores(reranker: &Reranker) -> Vec<f32> {
    let (queries, passages): (Vec<_>, Vec<_>) = goldens().pairs.into_iter().unzip();
    let [queries, passages] = [queries, passages].map(arrow::array::StringArray::from);
    reranker.score(&queries, &passages).unwrap().values().to_vec()
}

/// Names and times of the weights in a cache.
fn cached(cache: &Path) -> Vec<(String, std::time::SystemTime)> {
    let entries = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "int8"))
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap()))
        .collect()
}

/// Correlation of the ranks of two score lists.
fn spearman(one: &[f32], other: &[f32]) -> f64 {
    let [one, other] = [one, other].map(|scores| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut ranks = vec![0.0; scores.len()];
        order.into_iter().enumerate().for_each(|(rank, index)| ranks[index] = rank as f64);
        ranks
    });
    let count = one.len() as f64;
    let squares: f64 = one.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
    1.0 - 6.0 * squares / (count * (count * count - 1.0))
}

#[test]
fn int8_keeps_the_order_of_every_family() {
    let cache = tempfile::tempdir().unwrap();
    for (files, checkpoint) in CHECKPOINTS.into_iter().enumerate() {
        let exact = scores(&open(&fixture(checkpoint), cache.path(), Precision::Fp32));
        assert_eq!(cached(cache.path()).len(), files, "nothing is kept for {checkpoint} in fp32");
        let quantized = scores(&open(&fixture(checkpoint), cache.path(), Precision::Int8));
        let correlation = spearman(&exact, &quantized);
        let largest = exact.iter().zip(&quantized).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{checkpoint}: rank correlation {correlation:.4}, largest difference {largest:.3}");
        assert!(correlation > 0.9, "{checkpoint}: {correlation}");
        assert!(largest > 0.0, "{checkpoint}: nothing was quantized");
    }
    assert_eq!(cached(cache.path()).len(), CHECKPOINTS.len());
}

#[test]
fn weights_are_quantized_once_and_again_when_they_are_gone() {
    let cache = tempfile::tempdir().unwrap();
    let first = scores(&open(&tiny_m3(), cache.path(), Precision::Int8));
    let before = cached(cache.path());
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(scores(&open(&tiny_m3(), cache.path(), Precision::Int8)), first);
    assert_eq!(cached(cache.path()), before);
    let file = cache.path().join(&before[0].0);
    for damage in ["", "too short"] {
        std::fs::write(&file, damage).unwrap();
        assert_eq!(scores(&open(&tiny_m3(), cache.path(), Precision::Int8)), first);
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(scores(&open(&tiny_m3(), cache.path(), Precision::Int8)), first);
}

#[test]
fn what_int8_cannot_do_is_refused() {
    let mut engine = EngineOptions::default();
    engine.device = "cuda:0".parse().unwrap();
    let options = ScoreOptions::from_json(&json!({"precision": "int8"})).unwrap();
    let error = Reranker::open(tiny_m3(), &engine).unwrap().with_options(&options).unwrap_err().to_string();
    assert_eq!(error, "option precision: int8 runs on the CPU only, and the device is cuda:0; use fp32");
    let error = ScoreOptions::from_json(&json!({"precision": "int4"})).unwrap_err().to_string();
    assert_eq!(error, "option precision: expected 'fp32' or 'int8', got \"int4\"");
    let export = tempfile::tempdir().unwrap();
    Reranker::open(tiny_m3(), &EngineOptions::default()).unwrap().export(export.path()).unwrap();
    let error = Reranker::open(export.path(), &EngineOptions::default()).unwrap().with_options(&options).unwrap_err();
    assert!(error.to_string().contains("an ONNX export is run as it is, got int8"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&tiny_m3(), &file.join("cache"), Precision::Int8).load().unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn the_program_scores_in_8_bits_and_exports_them() {
    let (_folder, at) = folder();
    let model = format!("--model={}", tiny_m3().display());
    let cache = format!("--cache={}", at("cache").display());
    let score = |precision: &str| {
        let mut command = rerank();
        command.args([
            "score",
            "what is panda?",
            "The giant panda is a bear.",
            &model,
            &cache,
            "--precision",
            precision,
        ]);
        lines(&mut command)
    };
    assert_ne!(score("int8"), score("fp32"));
    assert_eq!(cached(&at("cache")).len(), 1);
    rerank()
        .args(["model", "export", tiny_m3().to_str().unwrap(), at("onnx").to_str().unwrap(), "--precision", "int8"])
        .env("RERANK_CACHE", at("cache"))
        .assert()
        .success();
    let export = Reranker::open(at("onnx"), &EngineOptions::default()).unwrap();
    assert_eq!(scores(&export), scores(&open(&tiny_m3(), &at("cache"), Precision::Int8)));
}
