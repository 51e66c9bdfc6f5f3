//! The stream API on a table of several batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion_rerank::PairColumns;
use futures::{StreamExt, TryStreamExt, stream};

use crate::support::{CHECKPOINTS, open};

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let texts = |prefix: &str| -> ArrayRef {
        Arc::new(ids.clone().map(|id| (id % 7 != 3).then(|| format!("{prefix} {}", id % 11))).collect::<StringArray>())
    };
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef),
        ("q", texts("query")),
        ("p", texts("passage")),
    ])
    .unwrap()
}

fn columns() -> PairColumns {
    PairColumns { query: "q".to_owned(), passage: "p".to_owned() }
}

#[tokio::test]
async fn rows_keep_their_order_and_their_columns() {
    let reranker = open(CHECKPOINTS[0]);
    let whole = batch(0..100);
    let expected = reranker.score(whole.column(1), whole.column(2)).unwrap();
    for window_rows in [1, 7, 32, 1000] {
        let input = vec![Ok(batch(0..30)), Ok(batch(30..30)), Ok(batch(30..31)), Ok(batch(31..100))];
        let scored: Vec<RecordBatch> = reranker
            .clone()
            .with_window_rows(window_rows)
            .score_stream(stream::iter(input), columns(), "score")
            .try_collect()
            .await
            .unwrap();
        let scored = arrow::compute::concat_batches(scored[0].schema_ref(), &scored).unwrap();
        assert_eq!(scored.columns()[..3], *whole.columns());
        let scores = scored.column_by_name("score").unwrap();
        let scores = scores.as_any().downcast_ref::<arrow::array::Float32Array>().unwrap();
        for (row, (actual, expected)) in scores.iter().zip(&expected).enumerate() {
            let close = match (actual, expected) {
                (Some(actual), Some(expected)) => (actual - expected).abs() < 1e-4,
                (actual, expected) => actual == expected,
            };
            assert!(close, "row {row}: {actual:?} and {expected:?}");
        }
    }
}

#[tokio::test]
async fn an_input_error_comes_after_the_rows_before_it() {
    let input = vec![Ok(batch(0..10)), Err(ArrowError::ParseError("broken".to_owned())), Ok(batch(10..20))];
    let items: Vec<_> = open(CHECKPOINTS[0]).score_stream(stream::iter(input), columns(), "score").collect().await;
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].as_ref().unwrap().num_rows(), 10);
    assert!(items[1].as_ref().unwrap_err().to_string().contains("broken"));
}

#[tokio::test]
async fn a_taken_name_and_a_missing_column_are_refused() {
    let reranker = open(CHECKPOINTS[0]);
    let first = |columns: PairColumns, score: &'static str| {
        let mut scored = reranker.score_stream(stream::iter([Ok(batch(0..3))]), columns, score);
        async move { scored.next().await.unwrap().unwrap_err().to_string() }
    };
    assert_eq!(first(columns(), "id").await, "there is a column id already; give the score another name");
    assert_eq!(first(PairColumns::default(), "score").await, "there is no column query; the columns are id, q, p");
}
