//! Scores of the reference library.

use serde_json::{Map, Value};

use super::checkpoints::fixture;

/// The reference library's scores for the tiny checkpoint.
pub(crate) struct Goldens {
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) cases: Vec<GoldenCase>,
}

pub(crate) struct GoldenCase {
    pub(crate) name: String,
    /// The case's options under this library's names.
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

/// The reference takes options in its constructor and in its calls, under two spellings.
fn options(init: &Value, call: &Value) -> Value {
    let mut options = Map::new();
    for (name, value) in [init, call].into_iter().flat_map(|entries| entries.as_object().unwrap()) {
        options.insert(name.trim_end_matches("_for_rerank").to_owned(), value.clone());
    }
    Value::Object(options)
}
