//! ONNX in and out: an exported model opens again and scores the same.

use std::path::Path;

use arrow::array::StringArray;
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};
use serde_json::json;

use crate::support::{copy, open};

fn columns() -> (StringArray, StringArray) {
    let queries = StringArray::from(vec!["what is panda?", "什么是大熊猫？", ""]);
    let passages = StringArray::from(vec!["a bear endemic to China", "hi", "x y z"]);
    (queries, passages)
}

#[test]
fn an_export_of_a_cross_encoder_opens_and_scores_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let reranker = open("tiny-xlmr-reranker");
    reranker.model().export(folder.path()).unwrap();
    let (queries, passages) = columns();
    let exported = Reranker::open(folder.path(), &EngineOptions::default()).unwrap();
    assert_eq!(exported.score(&queries, &passages).unwrap(), reranker.score(&queries, &passages).unwrap());

    let account = exported.model().account();
    let fate = |name: &str| account.iter().find(|part| part.name.as_deref() == Some(name)).unwrap().ignored.as_deref();
    assert_eq!((fate("vocab_size"), fate("hidden_size")), (None, Some("the graph is run as it is")));

    let error = exported.model().export(folder.path().join("again")).unwrap_err().to_string();
    assert!(error.contains("it is an ONNX graph already"), "{error}");
}

#[test]
fn an_export_works_without_config_json() {
    let folder = tempfile::tempdir().unwrap();
    let reranker = open("tiny-xlmr-reranker");
    reranker.model().export(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let (queries, passages) = columns();
    let exported = Reranker::open(folder.path(), &EngineOptions::default()).unwrap();
    assert_eq!(exported.score(&queries, &passages).unwrap(), reranker.score(&queries, &passages).unwrap());
}

#[test]
fn exports_of_every_option_that_changes_the_graph_differ() {
    let reranker = open("tiny-gemma2-lightweight-reranker");
    let mut graphs = Vec::new();
    for options in [
        json!({}),
        json!({"cutoff_layers": 5}),
        json!({"cutoff_layers": [5, 8]}),
        json!({"cutoff_layers": 5, "heads": "by_layer"}),
        json!({"compress_ratio": 2, "compress_layers": [3]}),
        json!({"compress_ratio": 4, "compress_layers": [3]}),
        json!({"attention_softcap": true}),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = ScoreOptions::from_json(&options).unwrap();
        reranker.with_options(&options).unwrap().model().export(folder.path()).unwrap();
        graphs.push(std::fs::read(folder.path().join("model.onnx")).unwrap());
    }
    for (index, graph) in graphs.iter().enumerate() {
        assert!(!graphs[..index].contains(graph), "export {index} repeats another");
    }
}

/// Exports with token compression: a graph with more inputs than ids and mask.
fn export_with_compression(folder: &Path) {
    let options = ScoreOptions::from_json(&json!({"compress_ratio": 2, "compress_layers": [3]})).unwrap();
    open("tiny-gemma2-lightweight-reranker").with_options(&options).unwrap().model().export(folder).unwrap();
}

#[test]
fn an_export_of_a_decoder_is_refused_since_its_options_are_unknown() {
    let folder = tempfile::tempdir().unwrap();
    export_with_compression(folder.path());
    let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap_err().to_string();
    assert!(error.contains("CostWiseGemmaForCausalLM as model.onnx cannot be scored"), "{error}");
}

#[test]
fn graphs_that_are_none_or_take_other_inputs_are_refused() {
    let exported = tempfile::tempdir().unwrap();
    export_with_compression(exported.path());
    let folder = tempfile::tempdir().unwrap();
    copy("tiny-xlmr-reranker", folder.path());
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(exported.path().join("model.onnx.data"), folder.path().join("model.onnx.data")).unwrap();
    let mut graph = std::fs::read(exported.path().join("model.onnx")).unwrap();
    let load = || Reranker::open(folder.path(), &EngineOptions::default()).unwrap().load();

    std::fs::write(folder.path().join("model.onnx"), &graph).unwrap();
    assert!(load().is_ok(), "the graph itself must load");
    // The same graph with one input renamed.
    while let Some(at) = graph.windows(11).position(|bytes| bytes == b"tail_tokens") {
        graph[at..at + 4].copy_from_slice(b"last");
    }
    std::fs::write(folder.path().join("model.onnx"), &graph).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("last_tokens; expected input_ids and attention_mask"), "{error}");

    std::fs::write(folder.path().join("model.onnx"), b"not a graph").unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("loading the graph"), "{error}");
}
