//! Token ids and scores against those of FlagEmbedding 1.4.2 on tiny checkpoints of every family.
//!
//! `tests/fixtures/goldens` covers every option of the reference and 40 pairs chosen for their corner cases. It holds
//! the ids that the reference fed its model, the scores it returned, and the scores of an independent float64
//! implementation (`scores_spec_f64`), which are the ones compared here. The scripts are in `tests/fixtures/reference`.

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::Float32Type;
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};
use serde_json::{Map, Value};

use crate::support::fixture;

/// The recorded runs of one family.
struct Golden {
    pairs: Vec<(String, String)>,
    cases: Vec<Value>,
    reranker: Reranker,
}

impl Golden {
    fn read(file: &str, checkpoint: &str) -> Self {
        let text = std::fs::read(fixture("goldens").join(file)).unwrap();
        let golden: Value = serde_json::from_slice(&text).unwrap();
        Self {
            pairs: serde_json::from_value(golden["pairs"].clone()).unwrap(),
            cases: golden["cases"].as_array().unwrap().clone(),
            reranker: Reranker::open(fixture(checkpoint), &EngineOptions::default()).unwrap(),
        }
    }

    fn case(&self, name: &str) -> &Value {
        self.cases.iter().find(|case| case["name"] == name).unwrap()
    }

    /// The recorded ids of a case. They may be stored with another case.
    fn ids(&self, case: &Value) -> Vec<Vec<u32>> {
        let source = case["ids_from"].as_str().map_or(case, |name| self.case(name));
        serde_json::from_value(source["ids"].clone()).unwrap()
    }

    /// Scores under `options`: one row of scores per cutoff layer.
    fn score(&self, options: &ScoreOptions) -> Vec<Vec<f32>> {
        let queries = StringArray::from_iter_values(self.pairs.iter().map(|(query, _)| query));
        let passages = StringArray::from_iter_values(self.pairs.iter().map(|(_, passage)| passage));
        let scores = self.reranker.with_options(options).unwrap().score_rows(&queries, &passages).unwrap();
        assert_eq!(scores.errors().next(), None);
        let array = scores.to_array();
        match array.as_list_opt::<i32>() {
            None => vec![array.as_primitive::<Float32Type>().values().to_vec()],
            Some(list) => {
                let exits = list.value_length(0) as usize;
                let values = list.values().as_primitive::<Float32Type>().values();
                (0..exits).map(|exit| values.iter().skip(exit).step_by(exits).copied().collect()).collect()
            }
        }
    }

    /// Checks ids and scores of every recorded case except those in `quirks`, where this library differs on purpose.
    /// Returns the number of compared cases, and prints how closely they agree.
    fn check(&self, extra: &Value, quirks: &[&str]) -> usize {
        let tolerance = self.tolerance();
        let mut compared = 0;
        let mut largest = 0.0_f32;
        for case in &self.cases {
            let name = case["name"].as_str().unwrap();
            if quirks.contains(&name) {
                continue;
            }
            let options = options(case, extra);
            self.check_ids(name, &options, &self.ids(case));
            largest = largest.max(compare(name, &self.score(&options), &rows(&case["scores_spec_f64"]), tolerance));
            compared += 1;
        }
        println!("{}: {compared} cases, largest difference {largest:.1e} of {tolerance:.1e}", self.reranker.family());
        compared
    }

    /// Twice the difference of the reference's own fp32 scores from float64, and at least 5e-5: how rounding errors add
    /// up depends on the processor's instructions, so no fp32 implementation can be held to less.
    fn tolerance(&self) -> f32 {
        let noise = |case: &Value| {
            let (scores, exact) = (rows(&case["scores"]), rows(&case["scores_spec_f64"]));
            let pairs = scores.into_iter().flatten().zip(exact.into_iter().flatten());
            pairs.map(|(score, exact)| (score - exact).abs()).fold(0.0, f32::max)
        };
        let recorded = self.cases.iter().filter(|case| case["scores"].is_array() && case["scores_spec_f64"].is_array());
        (2.0 * recorded.map(noise).fold(0.0, f32::max)).max(5e-5)
    }

    fn check_ids(&self, case: &str, options: &ScoreOptions, expected: &[Vec<u32>]) {
        let reranker = self.reranker.with_options(options).unwrap();
        for (pair, ((query, passage), expected)) in self.pairs.iter().zip(expected).enumerate() {
            assert_eq!(&reranker.token_ids(query, passage).unwrap(), expected, "case {case}, pair {pair}");
        }
    }
}

/// The options of a case's constructor and call under our names, and the `extra` ones.
fn options(case: &Value, extra: &Value) -> ScoreOptions {
    let mut options = Map::new();
    for source in [&case["init"], &case["call"], extra] {
        for (name, value) in source.as_object().into_iter().flatten() {
            let name = name.replace("_for_rerank", "");
            // The reference takes None for "no instruction"; here that is the empty text.
            let value = if value.is_null() && name.ends_with("instruction") { Value::from("") } else { value.clone() };
            options.insert(name, value);
        }
    }
    ScoreOptions::from_json(&Value::Object(options)).unwrap()
}

/// Recorded scores, `[pairs]` or `[exits][pairs]`, as one row per exit.
fn rows(scores: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(scores.clone()).unwrap_or_else(|_| vec![serde_json::from_value(scores.clone()).unwrap()])
}

/// Returns the largest difference, which must be within the tolerance.
fn compare(case: &str, actual: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) -> f32 {
    assert_eq!(actual.len(), expected.len(), "case {case}: number of exits");
    let mut largest = 0.0_f32;
    for (exit, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(actual.len(), expected.len(), "case {case}: number of pairs");
        for (pair, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            let difference = (actual - expected).abs();
            largest = largest.max(difference);
            assert!(
                difference <= tolerance,
                "case {case}, exit {exit}, pair {pair}: {actual} differs from {expected} by {difference:e}"
            );
        }
    }
    largest
}

#[test]
fn xlm_roberta_equals_the_reference() {
    let golden = Golden::read("xlmr.json", "tiny-xlmr-reranker");
    assert_eq!(golden.check(&Value::Null, &[]), golden.cases.len());
}

#[test]
fn gemma_equals_the_reference() {
    let golden = Golden::read("gemma.json", "tiny-gemma-reranker");
    assert_eq!(golden.check(&Value::Null, &[]), golden.cases.len());
}

/// Cases where the reference is given lists that are unsorted, repeat a layer or name one that does not exist.
/// [`cutoffs_come_in_the_order_asked_each_with_its_own_head`] tests what this library does.
const MINICPM_QUIRKS: &[&str] = &[
    "cutoff_unsorted_8_3",
    "cutoff_unsorted_5_2_8",
    "cutoff_duplicate_5_5",
    "cutoff_some_invalid_1_5_99",
    "cutoff_all_invalid_1",
];

#[test]
fn minicpm_equals_the_reference() {
    let golden = Golden::read("minicpm.json", "tiny-minicpm-layerwise-reranker");
    let compared = golden.check(&Value::Null, MINICPM_QUIRKS);
    assert_eq!(compared, golden.cases.len() - MINICPM_QUIRKS.len());
}

#[test]
fn cutoffs_come_in_the_order_asked_each_with_its_own_head() {
    let golden = Golden::read("minicpm.json", "tiny-minicpm-layerwise-reranker");
    let all = rows(&golden.case("cutoff_all")["scores_spec_f64"]);
    let of_layer = |layer: usize| all[layer - 2].clone();
    let score = |cutoffs: Value| {
        golden.score(&ScoreOptions::from_json(&serde_json::json!({ "cutoff_layers": cutoffs })).unwrap())
    };
    compare("[8, 3]", &score([8, 3].into()), &[of_layer(8), of_layer(3)], golden.tolerance());
    compare("[5, 2, 8]", &score([5, 2, 8].into()), &[of_layer(5), of_layer(2), of_layer(8)], golden.tolerance());
    compare("[5, 5]", &score([5, 5].into()), &[of_layer(5), of_layer(5)], golden.tolerance());
}

#[test]
fn impossible_cutoffs_are_refused() {
    for (file, checkpoint) in
        [("minicpm.json", "tiny-minicpm-layerwise-reranker"), ("lightweight.json", "tiny-gemma2-lightweight-reranker")]
    {
        let golden = Golden::read(file, checkpoint);
        for case in ["cutoff_some_invalid_1_5_99", "cutoff_all_invalid_1"] {
            let options = options(golden.case(case), &Value::Null);
            let error = golden.reranker.with_options(&options).unwrap_err().to_string();
            assert_eq!(
                error, "option cutoff_layers: 1 is not an exit of this model; its exits are layers 2 to 8",
                "{checkpoint}, {case}"
            );
        }
    }
}

/// Like [`MINICPM_QUIRKS`], for a family whose reference sorts the given layers.
const GEMMA2_QUIRKS: &[&str] =
    &["cutoff_unsorted_8_3", "cutoff_duplicate_5_5", "cutoff_some_invalid_1_5_99", "cutoff_all_invalid_1"];

#[test]
fn gemma2_equals_the_reference() {
    let golden = Golden::read("lightweight.json", "tiny-gemma2-lightweight-reranker");
    let compared = golden.check(&Value::Null, GEMMA2_QUIRKS);
    assert_eq!(compared, golden.cases.len() - GEMMA2_QUIRKS.len());
}

#[test]
fn gemma2_with_attention_softcap_equals_the_reference_with_eager_attention() {
    let golden = Golden::read("lightweight_eager.json", "tiny-gemma2-lightweight-reranker");
    let compared = golden.check(&serde_json::json!({"attention_softcap": true}), GEMMA2_QUIRKS);
    assert_eq!(compared, golden.cases.len() - GEMMA2_QUIRKS.len());
}

#[test]
fn gemma2_cutoffs_come_in_the_order_asked() {
    let golden = Golden::read("lightweight.json", "tiny-gemma2-lightweight-reranker");
    let mut expected = rows(&golden.case("cutoff_unsorted_8_3")["scores_spec_f64"]);
    expected.reverse();
    let options = options(golden.case("cutoff_unsorted_8_3"), &Value::Null);
    compare("[8, 3]", &golden.score(&options), &expected, golden.tolerance());
}

#[test]
fn gemma2_by_layer_gives_each_layer_the_head_trained_for_it() {
    // With all layers at once, the reference also pairs each layer with its own head.
    let golden = Golden::read("lightweight.json", "tiny-gemma2-lightweight-reranker");
    let all = rows(&golden.case("cutoff_all")["scores_spec_f64"]);
    for (exit, expected) in all.iter().enumerate() {
        let options = serde_json::json!({"cutoff_layers": exit + 2, "heads": "by_layer"});
        let scores = golden.score(&ScoreOptions::from_json(&options).unwrap());
        compare(&options.to_string(), &scores, std::slice::from_ref(expected), golden.tolerance());
    }
}
