//! One list of checks that every family passes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, LargeStringArray, NullArray, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int8Type, UInt32Type};
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};
use serde_json::{Value, json};

use crate::support::{CHECKPOINTS, fixture, open};

/// How much a score may change when other pairs share its batch.
const INVARIANCE: f32 = 1e-4;

/// The 40 pairs of the goldens.
fn pairs() -> (StringArray, StringArray) {
    let text = std::fs::read(fixture("goldens/xlmr.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    let pairs: Vec<(String, String)> = serde_json::from_value(golden["pairs"].clone()).unwrap();
    let (queries, passages): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
    (queries.into(), passages.into())
}

fn score(reranker: &Reranker, queries: &dyn Array, passages: &dyn Array) -> Vec<Option<f32>> {
    reranker.score(queries, passages).unwrap().iter().collect()
}

fn assert_close(what: &str, actual: &[Option<f32>], expected: &[Option<f32>]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (row, pair) in actual.iter().zip(expected).enumerate() {
        match pair {
            (Some(actual), Some(expected)) => {
                assert!((actual - expected).abs() <= INVARIANCE, "{what}, row {row}: {actual} and {expected}");
            }
            (actual, expected) => assert_eq!(actual, expected, "{what}, row {row}"),
        }
    }
}

/// A small deterministic generator, so that failures are reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn a_score_does_not_depend_on_its_batch() {
    let (queries, passages) = pairs();
    for checkpoint in CHECKPOINTS {
        let alone: Vec<Option<f32>> = {
            let reranker = open(checkpoint).with_window_rows(1);
            score(&reranker, &queries, &passages)
        };
        let mut random = Random(7);
        for batch_tokens in [1, 300, 1000, 5000, 100_000] {
            let options = engine_options(batch_tokens);
            let reranker = Reranker::open(fixture(checkpoint), &options).unwrap();
            for window_rows in [3, 17, 1000] {
                let rows: Vec<usize> = (0..60).map(|_| random.below(queries.len())).collect();
                let pick =
                    |array: &StringArray| StringArray::from_iter_values(rows.iter().map(|&row| array.value(row)));
                let reranker = reranker.clone().with_window_rows(window_rows);
                let expected: Vec<Option<f32>> = rows.iter().map(|&row| alone[row]).collect();
                let what = format!("{checkpoint}, batches of {batch_tokens} tokens, windows of {window_rows} rows");
                assert_close(&what, &score(&reranker, &pick(&queries), &pick(&passages)), &expected);
            }
        }
    }
}

fn engine_options(batch_tokens: usize) -> EngineOptions {
    let mut options = EngineOptions::default();
    options.batch_tokens = Some(batch_tokens);
    options
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let (queries, passages) = pairs();
    for checkpoint in CHECKPOINTS {
        let reranker = open(checkpoint);
        assert_eq!(score(&reranker, &queries, &passages), score(&reranker, &queries, &passages), "{checkpoint}");
    }
}

#[test]
fn every_string_layout_scores_alike() {
    let (queries, passages) = pairs();
    let dictionary = |keys| DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8));
    let layouts = [
        DataType::LargeUtf8,
        DataType::Utf8View,
        dictionary(DataType::Int8),
        dictionary(DataType::UInt32),
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8)),
    ];
    let reranker = open(CHECKPOINTS[0]);
    let expected = score(&reranker, &queries, &passages);
    for query_layout in &layouts {
        for passage_layout in &layouts {
            let (queries, passages) = (cast(&queries, query_layout).unwrap(), cast(&passages, passage_layout).unwrap());
            assert_eq!(score(&reranker, &queries, &passages), expected, "{query_layout}, {passage_layout}");
        }
    }
}

#[tokio::test]
async fn pieces_of_every_layout_are_one_window() {
    let dictionary =
        |value: ArrayRef| -> ArrayRef { Arc::new(DictionaryArray::<Int8Type>::new(vec![Some(0), None].into(), value)) };
    let texts: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("a"), None])),
        Arc::new(LargeStringArray::from(vec![Some("b")])),
        Arc::new(StringViewArray::from(vec![Some("a")])),
        dictionary(Arc::new(StringArray::from(vec!["d"]))),
        dictionary(Arc::new(LargeStringArray::from(vec!["b"]))),
        dictionary(Arc::new(StringViewArray::from(vec!["f"]))),
        Arc::new(NullArray::new(1)),
    ];
    let reranker = open(CHECKPOINTS[0]);
    let pieces = texts.into_iter().map(|piece| (Arc::clone(&piece), piece)).collect();
    let scores = reranker.score_pieces_async(pieces).await.unwrap();
    assert_eq!((scores.stats().rows, scores.stats().pairs, scores.stats().duplicates), (11, 6, 2));
    let whole = StringArray::from(vec![
        Some("a"),
        None,
        Some("b"),
        Some("a"),
        Some("d"),
        None,
        Some("b"),
        None,
        Some("f"),
        None,
        None,
    ]);
    assert_eq!(scores.to_float32().unwrap(), reranker.score(&whole, &whole).unwrap());
    assert_eq!(reranker.score_pieces_async(Vec::new()).await.unwrap().to_array().len(), 0);
}

/// Encoding one window must not start others on the same stack.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_windows_at_once_are_scored() {
    const WINDOWS: usize = 400;
    let reranker = open(CHECKPOINTS[0]);
    let window = |index: usize| {
        let passages: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..32).map(|row| format!("{index} {row}").repeat(if row % 7 == 0 { 10 } else { 1 })),
        ));
        reranker.score_pieces_async(vec![(Arc::clone(&passages), passages)])
    };
    let running: Vec<_> = (0..WINDOWS).map(|index| tokio::spawn(window(index))).collect();
    for scores in running {
        assert_eq!(scores.await.unwrap().unwrap().to_array().null_count(), 0);
    }
}

#[test]
fn null_in_null_out_and_rows_stay_in_place() {
    let queries = StringArray::from(vec![None, Some("a"), Some("a"), None, Some("b")]);
    let passages = StringArray::from(vec![Some("x"), None, Some("x"), None, Some("")]);
    for checkpoint in CHECKPOINTS {
        let reranker = open(checkpoint);
        let scores = score(&reranker, &queries, &passages);
        let nulls: Vec<bool> = scores.iter().map(Option::is_none).collect();
        assert_eq!(nulls, [true, true, false, true, false], "{checkpoint}");
        let direct = score(&reranker, &StringArray::from(vec!["a"]), &StringArray::from(vec!["x"]));
        assert_close(checkpoint, &scores[2..3], &direct);
    }
}

#[test]
fn empty_columns_and_windows_of_nulls_have_no_work() {
    for checkpoint in CHECKPOINTS {
        let reranker = open(checkpoint);
        let none = StringArray::new_null(0);
        assert_eq!(reranker.score(&none, &none).unwrap().len(), 0);
        let nulls = StringArray::new_null(3);
        let scores = reranker.score_rows(&nulls, &nulls).unwrap();
        assert_eq!(scores.to_float32().unwrap().null_count(), 3);
        assert_eq!((scores.stats().rows, scores.stats().pairs, scores.stats().batches), (3, 0, 0));
    }
}

#[test]
fn exact_repeats_are_scored_once() {
    let (queries, passages) = pairs();
    let reranker = open(CHECKPOINTS[0]);
    let repeated = |array: &StringArray| (0..5).flat_map(|_| array.iter()).collect::<StringArray>();
    let once = reranker.score_rows(&queries, &passages).unwrap().stats();
    let many = reranker.score_rows(&repeated(&queries), &repeated(&passages)).unwrap().stats();
    // Two of the 40 pairs repeat another.
    assert_eq!((once.pairs, once.duplicates), (40, 2));
    assert_eq!((many.pairs, many.duplicates), (200, 162));
    assert_eq!((many.tokens, many.batches), (once.tokens, once.batches));
}

#[test]
fn columns_of_different_length_are_refused() {
    let error = open(CHECKPOINTS[0])
        .score(&StringArray::from(vec!["a"]), &StringArray::from(vec!["a", "b"]))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "1 queries for 2 passages; there must be one for each");
}

#[test]
fn details_tell_tokens_and_truncation() {
    let long = "word ".repeat(2000);
    let queries = StringArray::from(vec![Some("what is panda?"), Some("what is panda?"), None]);
    let passages = StringArray::from(vec![Some("hi"), Some(long.as_str()), Some("hi")]);
    for checkpoint in CHECKPOINTS {
        let details = open(checkpoint).score_rows(&queries, &passages).unwrap().to_details();
        let truncated = details.column_by_name("truncated").unwrap().as_boolean().clone();
        assert_eq!(truncated.iter().collect::<Vec<_>>(), [Some(false), Some(true), None], "{checkpoint}");
        let tokens = details.column_by_name("passage_tokens").unwrap().as_primitive::<UInt32Type>().clone();
        assert!(tokens.value(0) >= 1 && tokens.value(1) > 400 && tokens.is_null(2), "{checkpoint}: {tokens:?}");
    }
}

#[test]
fn longer_than_the_position_table_is_cut_and_said() {
    // The reference crashes here.
    let reranker = open(CHECKPOINTS[0]).with_options(&options(&json!({"max_length": 4000}))).unwrap();
    let long = "word ".repeat(3000);
    for (query, passage) in [("short", long.as_str()), (long.as_str(), "short"), (long.as_str(), long.as_str())] {
        assert_eq!(reranker.token_ids(query, passage).unwrap().len(), 512);
        let (query, passage) = (StringArray::from(vec![query]), StringArray::from(vec![passage]));
        let scores = reranker.score_rows(&query, &passage).unwrap();
        assert_eq!(scores.stats().truncated, 1);
        assert!(scores.to_float32().unwrap().is_valid(0));
    }
}

#[test]
fn options_of_another_family_are_refused_with_the_own_ones() {
    for (checkpoint, wrong, allowed) in [
        (CHECKPOINTS[0], json!({"prompt": "x"}), "passage_instruction_format"),
        (CHECKPOINTS[1], json!({"cutoff_layers": 3}), "prompt"),
        (CHECKPOINTS[2], json!({"compress_ratio": 2}), "cutoff_layers"),
    ] {
        let error = open(checkpoint).with_options(&options(&wrong)).unwrap_err().to_string();
        let name = wrong.as_object().unwrap().keys().next().unwrap().clone();
        assert!(error.starts_with(&format!("option {name}: ")) && error.ends_with(allowed), "{error}");
    }
}

#[test]
fn several_cutoffs_are_a_list_and_one_is_not() {
    let (queries, passages) = pairs();
    for checkpoint in [CHECKPOINTS[2], CHECKPOINTS[3]] {
        let score = |cutoffs: Value| {
            let reranker = open(checkpoint).with_options(&options(&json!({"cutoff_layers": cutoffs}))).unwrap();
            let scores = reranker.score_rows(&queries, &passages).unwrap();
            assert_eq!(scores.to_array().data_type(), &reranker.score_type());
            scores.to_array()
        };
        assert_eq!(score(json!(5)).data_type(), &DataType::Float32);
        let list: ArrayRef = score(json!([5]));
        assert_eq!(list.as_list::<i32>().value_length(0), 1);
        assert_eq!(score(json!([8, 5])).as_list::<i32>().value_length(0), 2);
    }
}

#[tokio::test]
async fn async_calls_score_alike_and_can_be_dropped() {
    let (queries, passages) = pairs();
    let reranker = open(CHECKPOINTS[1]);
    let expected = score(&reranker, &queries, &passages);
    let (queries, passages): (ArrayRef, ArrayRef) = (Arc::new(queries), Arc::new(passages));
    for _ in 0..50 {
        let call = reranker.score_rows_async(Arc::clone(&queries), Arc::clone(&passages));
        let dropped = tokio::time::timeout(std::time::Duration::from_micros(200), call).await;
        drop(dropped);
    }
    let scores = reranker.score_rows_async(queries, passages).await.unwrap();
    assert_eq!(scores.to_float32().unwrap().iter().collect::<Vec<_>>(), expected);
}

fn options(json: &Value) -> ScoreOptions {
    ScoreOptions::from_json(json).unwrap()
}
