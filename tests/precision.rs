//! Scores in precisions other than the checkpoint's.

use std::path::Path;

use datafusion_rerank::{EngineOptions, Family, Precision, Reranker, ScoreOptions};
use serde_json::json;

use crate::support::{CHECKPOINTS, copy, fixture, folder, goldens, lines, rerank, spearman, tiny_m3};

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

/// Names and modification times of the weights in a cache.
fn cached(cache: &Path) -> Vec<(String, std::time::SystemTime)> {
    let entries = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap());
    let is_weights = |extension: &std::ffi::OsStr| ["int8", "fp16", "bf16"].iter().any(|name| extension == *name);
    entries
        .filter(|entry| entry.path().extension().is_some_and(is_weights))
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap()))
        .collect()
}

/// Scores of each family's tiny checkpoint in fp32 and in another precision, with a cache for the converted weights.
fn beside_fp32(precision: Precision) -> impl Iterator<Item = (&'static str, Vec<f32>, Vec<f32>)> {
    let cache = tempfile::tempdir().unwrap();
    CHECKPOINTS.into_iter().enumerate().map(move |(files, checkpoint)| {
        let exact = scores(&open(&fixture(checkpoint), cache.path(), Precision::Fp32));
        assert_eq!(cached(cache.path()).len(), files, "nothing is kept for {checkpoint} in fp32");
        let other = scores(&open(&fixture(checkpoint), cache.path(), precision));
        assert_eq!(cached(cache.path()).len(), files + 1, "{checkpoint}");
        (checkpoint, exact, other)
    })
}

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn int8_keeps_the_order_of_every_family() {
    for (checkpoint, exact, quantized) in beside_fp32(Precision::Int8) {
        let (correlation, largest) = (spearman(&exact, &quantized), largest_difference(&exact, &quantized));
        println!("{checkpoint}: rank correlation {correlation:.4}, largest difference {largest:.3}");
        assert!(correlation > 0.9, "{checkpoint}: {correlation}");
        assert!(largest > 0.0, "{checkpoint}: nothing was quantized");
    }
}

#[test]
fn fp16_is_close_in_every_family() {
    for (checkpoint, exact, rounded) in beside_fp32(Precision::Fp16) {
        let range = exact.iter().fold(0.0_f32, |largest, score| largest.max(score.abs()));
        let (correlation, largest) = (spearman(&exact, &rounded), largest_difference(&exact, &rounded) / range);
        println!(
            "{checkpoint}: rank correlation {correlation:.5}, largest difference {largest:.1e} of the largest score"
        );
        assert!(correlation > 0.99, "{checkpoint}: {correlation}");
        assert!(largest > 0.0, "{checkpoint}: nothing was rounded");
        assert!(largest < 0.02, "{checkpoint}: {largest}");
    }
}

#[test]
fn fp16_has_every_option() {
    let cache = tempfile::tempdir().unwrap();
    let checkpoint = fixture(CHECKPOINTS[3]);
    for options in [
        json!({"cutoff_layers": 3, "compress_ratio": 3, "compress_layers": [1, 2]}),
        json!({"attention_softcap": true, "heads": "by_layer"}),
    ] {
        let options = ScoreOptions::from_json(&options).unwrap();
        let [exact, rounded] = [Precision::Fp32, Precision::Fp16].map(|precision| {
            scores(&open(&checkpoint, cache.path(), precision).with_options(&with(&options, precision)).unwrap())
        });
        let correlation = spearman(&exact, &rounded);
        assert!(correlation > 0.99, "{options:?}: {correlation}");
    }
}

fn with(options: &ScoreOptions, precision: Precision) -> ScoreOptions {
    let mut options = options.clone();
    options.precision = Some(precision);
    options
}

#[test]
fn what_is_usual_depends_on_the_device() {
    for checkpoint in CHECKPOINTS {
        for (device, decoders) in [("cpu", Precision::Fp32), ("cuda:0,1", Precision::Bf16)] {
            let mut engine = EngineOptions::default();
            engine.devices = device.parse().unwrap();
            let reranker = Reranker::open(fixture(checkpoint), &engine).unwrap();
            let is_m3_on_gpu = reranker.family() == Family::M3 && device != "cpu";
            let expected = if is_m3_on_gpu { Precision::Fp16 } else { decoders };
            assert_eq!(reranker.precision(), expected, "{checkpoint} on {device}");
        }
    }
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
fn what_a_precision_cannot_do_is_refused() {
    let mut engine = EngineOptions::default();
    engine.devices = "cuda:0".parse().unwrap();
    let options = ScoreOptions::from_json(&json!({"precision": "int8"})).unwrap();
    let error = Reranker::open(tiny_m3(), &engine).unwrap().with_options(&options).unwrap_err().to_string();
    assert_eq!(error, "option precision: int8 runs on the CPU only, and the device is cuda:0; use fp16 or bf16");
    let export = tempfile::tempdir().unwrap();
    Reranker::open(tiny_m3(), &EngineOptions::default()).unwrap().model().export(export.path()).unwrap();
    let error = Reranker::open(export.path(), &EngineOptions::default()).unwrap().with_options(&options).unwrap_err();
    assert!(error.to_string().contains("an ONNX export is run as it is, got int8"), "{error}");

    let bf16 = ScoreOptions::from_json(&json!({"precision": "bf16"})).unwrap();
    let error = Reranker::open(tiny_m3(), &EngineOptions::default()).unwrap().with_options(&bf16).unwrap_err();
    let expected = "option precision: bf16 runs on GPUs only, and the device is cpu; use fp32 or int8";
    assert_eq!(error.to_string(), expected);

    // The operator for a sliding window (24 tokens in this checkpoint) and soft-capping is for 16 bits only on a GPU.
    let on_gpu = |options: serde_json::Value| {
        let options = ScoreOptions::from_json(&options).unwrap();
        Reranker::open(fixture(CHECKPOINTS[3]), &engine).unwrap().with_options(&options).map(drop)
    };
    for (options, reason) in [
        (json!({"precision": "fp32"}), "a sliding window"),
        (json!({"precision": "fp32", "attention_softcap": true}), "attention_softcap"),
    ] {
        assert_eq!(
            on_gpu(options).unwrap_err().to_string(),
            format!(
                "option precision: with {reason}, GPUs run 16 bits only, and the device is cuda:0; use bf16 or fp16"
            )
        );
    }
    on_gpu(json!({"precision": "bf16", "attention_softcap": true})).unwrap();
}

#[test]
fn half_of_a_checkpoint_is_exported_for_another_device() {
    let (_folder, at) = folder();
    let export = |out: &str, arguments: &[&str]| {
        let mut command = rerank();
        command.args(["model", "export", tiny_m3().to_str().unwrap(), at(out).to_str().unwrap()]).args(arguments);
        command.env("RERANK_CACHE", at("cache")).assert().success();
        std::fs::metadata(at(out).join("model.onnx.data")).unwrap().len()
    };
    let whole = export("fp32", &[]);
    assert!(export("fp16", &["--precision", "fp16"]) < whole);
    assert!(export("bf16", &["--precision", "bf16", "--device", "cuda"]) < whole);
    assert_eq!(export("usual", &["--device", "cuda"]), export("again", &["--device", "cuda", "--precision", "fp16"]));
    // The export runs as the graph that scores in fp16.
    let exported = scores(&Reranker::open(at("fp16"), &EngineOptions::default()).unwrap());
    assert_eq!(exported, scores(&open(&tiny_m3(), &at("cache"), Precision::Fp16)));
}

#[test]
fn an_export_for_a_gpu_keeps_the_sliding_window() {
    let (_folder, at) = folder();
    let checkpoint = at("checkpoint");
    copy(CHECKPOINTS[3], &checkpoint);
    // Longer than any pair of the default options: scoring on a GPU does without the operator.
    let config = std::fs::read_to_string(checkpoint.join("config.json")).unwrap();
    let config = config.replace("\"sliding_window\": 24", "\"sliding_window\": 4096");
    assert!(config.contains("4096"), "{config}");
    std::fs::write(checkpoint.join("config.json"), config).unwrap();
    for (device, out) in [("cuda", "gpu"), ("cpu", "cpu")] {
        rerank().args(["model", "export", "--device", device]).args([&checkpoint, &at(out)]).assert().success();
        let model = std::fs::read(at(out).join("model.onnx")).unwrap();
        assert!(model.windows(17).any(|bytes| bytes == b"local_window_size"), "{device}");
    }
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
