//! What several test modules need.

pub(crate) mod faults;
pub(crate) mod hub;
pub(crate) mod s3;
pub(crate) mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use datafusion_rerank::{EngineOptions, Family, ModelRegistry, RerankFunctions, Reranker};
use serde_json::{Map, Value};

/// A file or directory of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tiny checkpoints, one of each family.
pub(crate) const CHECKPOINTS: [&str; 4] = [
    "tiny-xlmr-reranker",
    "tiny-gemma-reranker",
    "tiny-minicpm-layerwise-reranker",
    "tiny-gemma2-lightweight-reranker",
];

pub(crate) fn open(checkpoint: &str) -> Reranker {
    Reranker::open(fixture(checkpoint), &EngineOptions::default()).unwrap()
}

/// Copies a checkpoint to where a test may change it.
pub(crate) fn copy(checkpoint: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(fixture(checkpoint)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The tiny checkpoint of the m3 family.
pub(crate) fn tiny_m3() -> PathBuf {
    fixture("tiny-xlmr-reranker")
}

/// Scores that the reference library gave for the tiny checkpoint.
pub(crate) struct Goldens {
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) cases: Vec<GoldenCase>,
}

pub(crate) struct GoldenCase {
    pub(crate) name: String,
    /// The case's options under the names of this library.
    pub(crate) options: Value,
    pub(crate) scores: Vec<f64>,
}

pub(crate) fn goldens() -> Goldens {
    let file = fixture("goldens/xlmr.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = golden["pairs"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    let cases = golden["cases"].as_array().unwrap().iter().map(|case| GoldenCase {
        name: text(&case["name"]),
        options: options(&case["init"], &case["call"]),
        scores: case["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect(),
    });
    Goldens { pairs, cases: cases.collect() }
}

/// The reference takes options when a model is made and when it is called, under two spellings.
fn options(init: &Value, call: &Value) -> Value {
    let mut options = Map::new();
    for (name, value) in [init, call].into_iter().flat_map(|entries| entries.as_object().unwrap()) {
        options.insert(name.trim_end_matches("_for_rerank").to_owned(), value.clone());
    }
    Value::Object(options)
}

/// A registry that knows the tiny checkpoints by their families and sees no models of this machine.
pub(crate) fn models() -> ModelRegistry {
    let models = ModelRegistry::default().with_hub_cache(fixture("no-such-folder"));
    for (family, checkpoint) in Family::ALL.iter().zip(CHECKPOINTS) {
        models.register(family.name(), fixture(checkpoint));
    }
    models
}

/// A session with all functions, the synchronous ones included, and two tables: `pairs(id, query, passage)` and
/// `goldens(name, id, score)`, ids being the places of the pairs in the golden file.
pub(crate) fn session(models: ModelRegistry) -> SessionContext {
    let ctx = SessionContext::new();
    let functions = RerankFunctions::new(models);
    functions.register(&ctx).unwrap();
    for udf in functions.sync_udfs() {
        ctx.register_udf(udf);
    }
    let Goldens { pairs, cases } = goldens();
    let ids = Int64Array::from_iter_values(0..pairs.len() as i64);
    let (queries, passages): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let table = RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as _),
        ("query", Arc::new(StringArray::from(queries)) as _),
        ("passage", Arc::new(StringArray::from(passages)) as _),
    ]);
    ctx.register_batch("pairs", table.unwrap()).unwrap();
    let rows: Vec<(&str, i64, f64)> = cases
        .iter()
        .flat_map(|case| case.scores.iter().enumerate().map(|(id, score)| (case.name.as_str(), id as i64, *score)))
        .collect();
    let table = RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))) as _),
        ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))) as _),
        ("score", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))) as _),
    ]);
    ctx.register_batch("goldens", table.unwrap()).unwrap();
    ctx
}
