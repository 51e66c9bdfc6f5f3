//! ONNX in and out: an exported model opens again and scores the same.

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
    reranker.export(folder.path()).unwrap();
    let (queries, passages) = columns();
    let exported = Reranker::open(folder.path(), &EngineOptions::default()).unwrap();
    assert_eq!(exported.score(&queries, &passages).unwrap(), reranker.score(&queries, &passages).unwrap());

    let error = exported.export(folder.path().join("again")).unwrap_err().to_string();
    assert!(error.contains("it is an ONNX graph already"), "{error}");
}

#[test]
fn an_export_works_without_config_json() {
    let folder = tempfile::tempdir().unwrap();
    let reranker = open("tiny-xlmr-reranker");
    reranker.export(folder.path()).unwrap();
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
        reranker.with_options(&options).unwrap().export(folder.path()).unwrap();
        graphs.push(std::fs::read(folder.path().join("model.onnx")).unwrap());
    }
    for (index, graph) in graphs.iter().enumerate() {
        assert!(!graphs[..index].contains(graph), "export {index} repeats another");
    }
}

#[test]
fn a_graph_with_other_inputs_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let exported = tempfile::tempdir().unwrap();
    // A graph with token compression takes the lengths of the parts, which an encoder has not.
    let options = ScoreOptions::from_json(&json!({"compress_ratio": 2, "compress_layers": [3]})).unwrap();
    open("tiny-gemma2-lightweight-reranker").with_options(&options).unwrap().export(exported.path()).unwrap();
    copy("tiny-xlmr-reranker", folder.path());
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("model.onnx"), b"not a graph").unwrap();
    let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap().load().unwrap_err().to_string();
    assert!(error.contains("loading the graph"), "{error}");
}
