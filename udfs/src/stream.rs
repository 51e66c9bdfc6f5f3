//! Scored record batch streams, for Arrow ETL.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::reranker::Reranker;
use crate::scores::Scores;
use crate::window::WindowCutter;
use crate::window_stream::score_windows;

/// Which columns of a record batch are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairColumns {
    /// Name of the query column.
    pub query: String,
    /// Name of the passage column.
    pub passage: String,
}

impl Default for PairColumns {
    /// `query` and `passage`.
    fn default() -> Self {
        Self { query: "query".to_owned(), passage: "passage".to_owned() }
    }
}

impl PairColumns {
    /// Positions of the two columns.
    ///
    /// # Errors
    /// [`Error::Input`] for a missing column, listing the columns that exist.
    pub fn indices(&self, schema: &Schema) -> Result<(usize, usize)> {
        let index = |name: &str| {
            schema.index_of(name).map_err(|_| {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                Error::input(format!("there is no column {name}; the columns are {}", names.join(", ")))
            })
        };
        Ok((index(&self.query)?, index(&self.passage)?))
    }
}

/// Rows that were scored together, and their scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredRows {
    /// The rows, in the batches in which they came, or slices of those.
    pub batches: Vec<RecordBatch>,
    /// Their scores, in the same order.
    pub scores: Scores,
}

impl Reranker {
    /// The schema of [`Self::score_stream`]: the input's columns and the score column `score`.
    ///
    /// # Errors
    /// [`Error::Input`] if the input already has a column of that name.
    pub fn scored_schema(&self, input: &Schema, score: &str) -> Result<SchemaRef> {
        if input.index_of(score).is_ok() {
            return Err(Error::input(format!("there is a column {score} already; give the score another name")));
        }
        let mut fields = input.fields().to_vec();
        fields.push(Arc::new(Field::new(score, self.score_type(), true)));
        Ok(Arc::new(Schema::new_with_metadata(fields, input.metadata().clone())))
    }

    /// Appends the column `score` to every batch of a stream, and keeps the batches in order.
    ///
    /// Scores rows in windows of at most [`Self::window_rows`], two of which are in flight while a third is read, so
    /// memory does not grow with the stream. Windows follow the input. While the device is busy, rows become large
    /// windows, which have little padding. While the input has no more, the rows that wait are scored as soon as the
    /// device has nothing else to do, or once the first has waited for [`Self::max_delay`] and they would not wait in
    /// the device's queue instead. The first window is about one device batch, and each of the next at most four times
    /// larger. Without a delay, all windows but the last are full, and scores are the same to the last bit however the
    /// rows arrive; with one, they are the same up to rounding.
    ///
    /// The score is NULL where the query or passage is. Dropping the stream stops the work within one device batch.
    ///
    /// Any executor can poll the stream. The delay needs a tokio runtime with timers: elsewhere nothing wakes the
    /// stream when it is over, and rows wait until the window is full, the device has nothing to do, or the input has
    /// more or ends.
    ///
    /// ```no_run
    /// use datafusion_rerank::{EngineOptions, PairColumns, Reranker};
    /// use futures::TryStreamExt;
    ///
    /// # async fn example(batches: Vec<arrow::record_batch::RecordBatch>) -> Result<(), datafusion_rerank::Error> {
    /// let reranker = Reranker::open("bge-reranker-v2-m3", &EngineOptions::default())?;
    /// let input = futures::stream::iter(batches.into_iter().map(Ok));
    /// let mut scored = reranker.score_stream(input, PairColumns::default(), "score");
    /// while let Some(batch) = scored.try_next().await? {
    ///     println!("{} rows", batch.num_rows());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As the last item of the stream: [`Error::Input`] for missing columns, columns that are not text, or a row that
    /// failed (with its number in the window); [`Error::Arrow`] if the input fails; the errors of scoring.
    pub fn score_stream(
        &self,
        input: impl Stream<Item = Result<RecordBatch, ArrowError>> + Send + 'static,
        columns: PairColumns,
        score: impl Into<String>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let reranker = self.clone();
        let score = score.into();
        let rows = self.score_batches(input.map_err(|source| Error::Arrow { source }), columns);
        let scored = rows.map_ok(move |rows| {
            let batches = reranker.append(&rows, &score);
            stream::iter(batches.map_or_else(|error| vec![Err(error)], |batches| batches.into_iter().map(Ok).collect()))
        });
        until_error(scored.try_flatten()).boxed()
    }

    /// Like [`Self::score_stream`], but returns the rows and their [`Scores`] side by side, for a sink that records
    /// failures by row, token counts or statistics.
    ///
    /// # Errors
    /// Those of [`Self::score_stream`], except that a failed row is not an error. The input's own errors are passed on.
    pub fn score_batches(
        &self,
        input: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        columns: PairColumns,
    ) -> BoxStream<'static, Result<ScoredRows>> {
        let reranker = self.clone();
        let following = self.following();
        let cutter =
            WindowCutter::new(self.window_rows()).growing(following.as_ref().map(|following| following.growth));
        let score = move |window| reranker.clone().score_window(window, columns.clone());
        score_windows(input, cutter, following, score).boxed()
    }

    async fn score_window(self, batches: Vec<RecordBatch>, columns: PairColumns) -> Result<ScoredRows> {
        let pieces = batches
            .iter()
            .map(|batch| {
                let (query, passage) = columns.indices(batch.schema_ref())?;
                Ok((Arc::clone(batch.column(query)), Arc::clone(batch.column(passage))))
            })
            .collect::<Result<_>>()?;
        let scores = self.score_pieces_async(pieces).await?;
        Ok(ScoredRows { batches, scores })
    }

    fn append(&self, rows: &ScoredRows, score: &str) -> Result<Vec<RecordBatch>> {
        if let Some((row, reason)) = rows.scores.errors().next() {
            return Err(Error::input(format!("row {row} of its window: {reason}")));
        }
        let scores = rows.scores.to_array();
        let mut start = 0;
        rows.batches
            .iter()
            .map(|batch| {
                let mut columns = batch.columns().to_vec();
                columns.push(scores.slice(start, batch.num_rows()));
                start += batch.num_rows();
                let schema = self.scored_schema(batch.schema_ref(), score)?;
                RecordBatch::try_new(schema, columns).map_err(|source| Error::Arrow { source })
            })
            .collect()
    }
}

/// The items up to the first error, which is the last item.
fn until_error<T: Send>(items: impl Stream<Item = Result<T>> + Send) -> impl Stream<Item = Result<T>> + Send {
    items.scan(false, |failed, item| {
        let ended = std::mem::replace(failed, item.is_err());
        std::future::ready((!ended).then_some(item))
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use futures::executor::block_on_stream;

    use super::*;

    #[test]
    fn nothing_follows_an_error() {
        let items = stream::iter([Ok(1), Ok(2), Err(Error::Stopped), Ok(3), Err(Error::Stopped)]);
        let items: Vec<_> = block_on_stream(Box::pin(until_error(items))).map(Result::ok).collect();
        assert_eq!(items, [Some(1), Some(2), None]);
    }

    #[test]
    fn missing_columns_are_named() {
        let error = PairColumns::default()
            .indices(&Schema::new(vec![Field::new("n", DataType::Int32, true)]))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "there is no column query; the columns are n");
    }
}
