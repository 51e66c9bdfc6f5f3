//! The size of batches: measured in a job that is long enough, and remembered.

use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

use crate::support::tables::{numbered, read, scores, write};
use crate::support::{files, folder, rerank, run};

/// For one thread: finding the best size runs 11,904 tokens, in pairs of about 200.
const ENOUGH_ROWS: usize = 8000;

fn batch_tokens(report: &Path) -> u64 {
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    report["batch_tokens"].as_u64().unwrap()
}

#[test]
fn a_long_job_finds_the_fastest_batches_once() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &numbered(0, ENOUGH_ROWS));
    let cache = at("cache");
    let job = |output: &str, args: &[&str]| {
        let mut command = run(at("in.parquet"), at(output));
        command.args(["--threads", "1", "--report"]).arg(at("report.json")).arg("--cache").arg(&cache).args(args);
        command
    };
    job("given.parquet", &["--batch-tokens", "300"]).assert().success().stderr(contains("fastest").not());
    assert_eq!(batch_tokens(&at("report.json")), 300);
    assert!(!cache.exists(), "what is given is not measured");

    job("first.parquet", &[]).assert().success().stderr(contains(" tokens are the fastest here"));
    let found = batch_tokens(&at("report.json"));
    assert!([128, 256, 512, 1024, 2048].contains(&found), "{found}");
    let file = files(&cache).remove(0);
    assert!(file.ends_with("-cpu1-fp32.batches"), "{file}");
    let record: Value = serde_json::from_slice(&std::fs::read(cache.join(&file)).unwrap()).unwrap();
    assert_eq!(record["batch_tokens"], found);
    assert_eq!(record["tokens_per_second"].as_object().unwrap().len(), 5, "{record}");

    job("second.parquet", &[]).assert().success().stderr(contains("fastest").not());
    assert_eq!(batch_tokens(&at("report.json")), found);
    job("other.parquet", &["--batch-tokens", "300"]).assert().success();
    assert_eq!(batch_tokens(&at("report.json")), 300);
    let given = scores(&read(&at("given.parquet")));
    for output in ["first.parquet", "second.parquet"] {
        for (row, (a, b)) in given.iter().zip(scores(&read(&at(output)))).enumerate() {
            assert!((a - b).abs() < 5e-5, "{output}, row {row}: {a} and {b}");
        }
    }

    let mut prune = rerank();
    prune.args(["model", "prune", "--cache"]).arg(&cache).assert().success().stdout(contains("the speed of batches"));
    assert_eq!(files(&cache), [""; 0]);
}

#[test]
fn a_short_job_is_not_held_up() {
    let (_folder, at) = folder();
    write(&at("in.parquet"), &numbered(0, 500));
    let mut job = run(at("in.parquet"), at("out.parquet"));
    job.arg("--cache").arg(at("cache")).assert().success().stderr(contains("fastest").not());
    assert!(!at("cache").exists());
}
