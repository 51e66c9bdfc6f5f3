//! A model that is slow to open or to load blocks only its own users. The slow part is a file: a named pipe, whose
//! reader waits until something is written.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use datafusion::arrow::array::StringArray;
use datafusion_rerank::{EngineOptions, ModelRegistry, Reranker, Result};

use crate::support::{copy, fixture, models, open, session, tiny_m3};

const CHECKPOINT: &str = "tiny-xlmr-reranker";

/// Longer than anything here takes that does not block.
const SOON: Duration = Duration::from_secs(30);

/// Long enough for a thread to start and to block.
const A_WHILE: Duration = Duration::from_millis(300);

fn make_pipe(file: &Path) {
    if file.exists() {
        std::fs::remove_file(file).unwrap();
    }
    assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
}

/// Runs `work` on a thread of its own.
fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver
}

/// Returns the result of `work`. Panics if `work` blocks.
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    start(work).recv_timeout(SOON).unwrap()
}

fn score(reranker: &Reranker) -> Result<Vec<f32>> {
    let queries = StringArray::from(vec!["what is a panda?"]);
    let passages = StringArray::from(vec!["a bear"]);
    Ok(reranker.score(&queries, &passages)?.values().to_vec())
}

#[test]
fn a_model_that_opens_slowly_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINT, folder.path());
    let tokenizer = folder.path().join("tokenizer.json");
    make_pipe(&tokenizer);
    let registry = models();
    registry.register("slow", folder.path());
    let engine = EngineOptions::default();
    let open_slow = || {
        let (registry, engine) = (registry.clone(), engine.clone());
        move || registry.open("slow", &engine).map(|reranker| reranker.location().to_owned()).map_err(|e| e.to_string())
    };
    registry.open("m3", &engine).unwrap();

    let callers = [start(open_slow()), start(open_slow())];
    assert!(callers[0].recv_timeout(A_WHILE).is_err(), "it should wait for its tokenizer");
    for name in ["m3", "gemma"] {
        let (registry, engine) = (registry.clone(), engine.clone());
        soon(move || registry.open(name, &engine)).unwrap();
    }
    assert!(soon(ModelRegistry::open_models).len() >= 2);
    let ctx = session(registry.clone());
    let planned = soon(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sql = "SELECT rerank(query, passage, 'm3') FROM pairs";
        runtime.block_on(async { ctx.sql(sql).await?.create_physical_plan().await })
    });
    planned.unwrap();

    // A pipe is read once: a second reader would block forever.
    soon(move || std::fs::write(tokenizer, std::fs::read(tiny_m3().join("tokenizer.json")).unwrap())).unwrap();
    for caller in callers {
        assert_eq!(caller.recv_timeout(SOON).unwrap().unwrap(), folder.path());
    }
}

#[test]
fn a_model_that_failed_to_open_is_opened_by_the_next_caller() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINT, folder.path());
    let tokenizer = folder.path().join("tokenizer.json");
    make_pipe(&tokenizer);
    let location = folder.path().to_str().unwrap().to_owned();
    let open = || {
        let location = location.clone();
        move || ModelRegistry::default().open(&location, &EngineOptions::default()).map_err(|error| error.to_string())
    };
    let callers = [start(open()), start(open())];
    assert!(callers[0].recv_timeout(A_WHILE).is_err(), "it should wait for its tokenizer");
    // The pipe delivers an invalid tokenizer: one caller fails, and the one that waited opens the real file.
    let pipe = folder.path().join("pipe");
    std::fs::rename(&tokenizer, &pipe).unwrap();
    std::fs::copy(fixture(CHECKPOINT).join("tokenizer.json"), &tokenizer).unwrap();
    soon(move || std::fs::write(pipe, "{")).unwrap();
    let opened = callers.map(|caller| caller.recv_timeout(SOON).unwrap());
    let failures: Vec<&String> = opened.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("not a tokenizer"), "{}", failures[0]);
    assert!(soon(open()).is_ok());
}

#[test]
fn a_model_that_loads_slowly_holds_up_no_other_and_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    open(CHECKPOINT).model().export(folder.path()).unwrap();
    let graph = folder.path().join("model.onnx");
    let kept = folder.path().join("kept.onnx");
    std::fs::rename(&graph, &kept).unwrap();
    make_pipe(&graph);
    let slow = Reranker::open(folder.path(), &EngineOptions::default()).unwrap();
    let other = open(CHECKPOINT);
    let expected = score(&other).unwrap();

    let loading =
        [slow.clone(), slow.clone()].map(|slow| start(move || score(&slow).map_err(|error| error.to_string())));
    assert!(loading[0].recv_timeout(A_WHILE).is_err(), "it should wait for its graph");
    let waiting = slow.clone();
    assert_eq!(soon(move || waiting.device_stats().batches), 0);
    assert_eq!(soon(move || score(&other)).unwrap(), expected);

    // The pipe delivers an invalid graph: one attempt fails, and the waiting ones load the real file.
    let pipe = folder.path().join("pipe");
    std::fs::rename(&graph, &pipe).unwrap();
    std::fs::rename(&kept, &graph).unwrap();
    // Panics if the pipe is closed before it is read.
    drop(soon(move || std::fs::write(pipe, "no graph")));
    let results = loading.map(|loading| loading.recv_timeout(SOON).unwrap());
    let failures = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(failures, 1, "{results:?}");
    assert_eq!(soon(move || score(&slow)).unwrap(), expected);
}
