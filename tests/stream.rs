//! The stream API on a table of several batches.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion_rerank::{EngineOptions, PairColumns, Reranker, ScoredRows};
use futures::executor::block_on_stream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::support::{CHECKPOINTS, fixture, open};

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

/// The rows of each window of a source that has them all.
async fn window_sizes(delay: Option<Duration>) -> Vec<usize> {
    let mut options = EngineOptions::default();
    options.batch_tokens = Some(100);
    let reranker = Reranker::open(fixture(CHECKPOINTS[0]), &options).unwrap();
    let reranker = reranker.with_window_rows(150).with_max_delay(delay);
    let input = stream::iter([batch(0..200), batch(200..500)]).map(Ok);
    let windows: Vec<ScoredRows> = reranker.score_batches(input, columns()).try_collect().await.unwrap();
    windows.iter().map(|window| window.batches.iter().map(RecordBatch::num_rows).sum()).collect()
}

#[tokio::test]
async fn windows_grow_to_full_size_and_all_are_full_without_a_delay() {
    assert_eq!(window_sizes(None).await, [150, 150, 150, 50]);
    let sizes = window_sizes(Some(Duration::from_hours(1))).await;
    assert_eq!(sizes.iter().sum::<usize>(), 500);
    assert!((1..20).contains(&sizes[0]) && sizes[1] > sizes[0] && sizes[1] < 80, "{sizes:?}");
    assert!(sizes.contains(&150), "{sizes:?}");
    // The input was always ready, so its rows alone decide.
    assert_eq!(window_sizes(Some(Duration::ZERO)).await, sizes);
}

#[tokio::test]
async fn an_endless_stream_is_answered_row_by_row() {
    let (sender, mut rows) = tokio::sync::mpsc::unbounded_channel();
    let input = stream::poll_fn(move |context| rows.poll_recv(context)).map(Ok);
    let mut scored = open(CHECKPOINTS[0]).score_stream(input, columns(), "score");
    for row in 0..20 {
        sender.send(batch(row..row + 1)).unwrap();
        let answer = tokio::time::timeout(Duration::from_mins(2), scored.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.columns()[..3], *batch(row..row + 1).columns());
    }
    drop(scored);
    assert!(sender.is_closed());
}

#[test]
fn no_runtime_is_needed() {
    let input = stream::iter([Ok(batch(0..30)), Ok(batch(30..40))]);
    let scored = open(CHECKPOINTS[0]).with_window_rows(8).score_stream(input, columns(), "score");
    assert_eq!(block_on_stream(scored).map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 40);
}
