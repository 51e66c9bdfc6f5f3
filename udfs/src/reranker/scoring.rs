//! Arrays in, scores out.

use std::future::Future;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array};

use super::builder::Reranker;
use crate::engine::{Cancel, Encoded, WindowScores, run_on_encoding_thread, texts};
use crate::error::{Error, Result};
use crate::panics::catch_panic;
use crate::scores::Scores;
use crate::window::{WINDOWS_IN_FLIGHT, cut_windows};

impl Reranker {
    /// Scores pairs of rows, and blocks until all are scored. Reads `Utf8`, `LargeUtf8`, `Utf8View` and dictionary
    /// columns without conversion. The score is NULL where the query or passage is.
    ///
    /// # Errors
    /// [`Error::Input`] if the columns are not text or differ in length, if a row failed (naming the first), or if the
    /// options ask for several scores a row; otherwise the errors of [`Self::load`] and of running the model.
    pub fn score(&self, queries: &dyn Array, passages: &dyn Array) -> Result<Float32Array> {
        let scores = self.score_rows(queries, passages)?;
        match scores.errors().next() {
            Some((row, reason)) => Err(Error::input(format!("row {row}: {reason}"))),
            None => scores.to_float32(),
        }
    }

    /// Like [`Self::score`], but returns everything known about each row, including failures.
    ///
    /// # Errors
    /// Those of [`Self::score`], but a failed row is not an error.
    pub fn score_rows(&self, queries: &dyn Array, passages: &dyn Array) -> Result<Scores> {
        check_lengths(queries, passages)?;
        let (results, done) = std::sync::mpsc::channel();
        let rows = queries.len();
        let windows = cut_windows((queries.slice(0, rows), passages.slice(0, rows)), self.window_rows);
        let mut scored: Vec<Option<WindowScores>> = vec![None; windows.len()];
        let cancel = CancelOnDrop::default();
        let mut submit = windows.into_iter().enumerate();
        let mut in_flight = 0;
        loop {
            while in_flight < WINDOWS_IN_FLIGHT
                && let Some((index, window)) = submit.next()
            {
                let results = results.clone();
                self.submit_pieces(window, cancel.0.clone(), move |result| {
                    // The receiver is dropped early only if a window failed.
                    drop(results.send((index, result)));
                });
                in_flight += 1;
            }
            if in_flight == 0 {
                let windows = scored.into_iter().flatten().collect();
                return Ok(self.scores(windows));
            }
            let (index, result) = done.recv().map_err(|_| Error::Stopped)?;
            scored[index] = Some(result?);
            in_flight -= 1;
        }
    }

    /// Like [`Self::score_rows`] without blocking: the work runs on the engine's threads. Dropping the future stops the
    /// work within one device batch. The rows are one window, however many there are.
    ///
    /// # Errors
    /// Those of [`Self::score_rows`].
    pub fn score_rows_async(
        &self,
        queries: ArrayRef,
        passages: ArrayRef,
    ) -> impl Future<Output = Result<Scores>> + Send + use<> {
        self.score_pieces_async(vec![(queries, passages)])
    }

    /// Like [`Self::score_rows_async`] for rows in several pieces, each with its queries and passages. They are one
    /// window; the columns are not concatenated. Pieces may differ in layout.
    ///
    /// # Errors
    /// Those of [`Self::score_rows`].
    pub fn score_pieces_async(
        &self,
        pieces: Vec<(ArrayRef, ArrayRef)>,
    ) -> impl Future<Output = Result<Scores>> + Send + use<> {
        let reranker = self.clone();
        async move {
            for (queries, passages) in &pieces {
                check_lengths(queries.as_ref(), passages.as_ref())?;
            }
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let cancel = CancelOnDrop::default();
            // The receiver is dropped early only if nobody waits any more.
            reranker.submit_pieces(pieces, cancel.0.clone(), move |result| drop(sender.send(result)));
            let window = receiver.await.map_err(|_| Error::Stopped)??;
            Ok(reranker.scores(vec![window]))
        }
    }

    /// The token ids of a pair as the model reads them, without padding.
    ///
    /// # Errors
    /// [`Error::Input`] if a text cannot be tokenized.
    pub fn token_ids(&self, query: &str, passage: &str) -> Result<Vec<u32>> {
        let tokenizer = self.model.tokenizer();
        let query = self.encoder.query(tokenizer, query).map_err(|e| Error::input(format!("query {e}")))?;
        let passage = self.encoder.passage(tokenizer, passage).map_err(|e| Error::input(format!("passage {e}")))?;
        Ok(self.encoder.pair(&query, &passage).ids.into_vec())
    }

    /// How many tokens the model reads for each row, without padding; `None` for a row that is not run because a text
    /// is NULL or cannot be tokenized. Needs no weights.
    ///
    /// # Errors
    /// [`Error::Input`] if the columns are not text or differ in length.
    pub fn token_counts(&self, queries: &ArrayRef, passages: &ArrayRef) -> Result<Vec<Option<u32>>> {
        check_lengths(queries.as_ref(), passages.as_ref())?;
        Ok(self.encode(&[(Arc::clone(queries), Arc::clone(passages))])?.row_lengths())
    }

    pub(super) fn scores(&self, windows: Vec<WindowScores>) -> Scores {
        Scores::new(windows, self.options.normalize.unwrap_or(false), self.scores_are_lists())
    }

    /// Encodes a window on an encoding thread and hands it to the engine. Always calls `on_done`, even after a panic.
    /// The window counts as the engine's work from now on until then.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        cancel: Cancel,
        encode: impl FnOnce(&Self) -> Result<EncodedWindow<T>> + Send + 'static,
        on_done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let reranker = self.clone();
        let answer = Answer::new(on_done);
        let submitted = self.model.activity().submit();
        run_on_encoding_thread(move || {
            if cancel.is_cancelled() {
                return;
            }
            let location = reranker.location().display().to_string();
            let encoded = catch_panic(&location, "encoding a window", || encode(&reranker));
            let (pairs, finish) = match encoded {
                Ok(EncodedWindow::Scores { pairs, finish }) => (pairs, finish),
                #[cfg(feature = "datafusion")]
                Ok(EncodedWindow::Known(result)) => {
                    drop(submitted);
                    return answer.give(Ok(result));
                }
                Err(error) => return answer.give(Err(error)),
            };
            reranker.model.with_engine(move |engine| match engine {
                Err(error) => answer.give(Err(error)),
                Ok(engine) => engine.submit(pairs, cancel.clone(), submitted, move |result| {
                    // Batches of a cancelled window have not run.
                    if !cancel.is_cancelled() {
                        answer.give(result.map(finish));
                    }
                }),
            });
        });
    }

    /// Like [`Self::submit`], for all pairs of a window.
    fn submit_pieces(
        &self,
        pieces: Vec<(ArrayRef, ArrayRef)>,
        cancel: Cancel,
        on_done: impl FnOnce(Result<WindowScores>) + Send + 'static,
    ) {
        let encode = move |reranker: &Self| {
            Ok(EncodedWindow::Scores { pairs: reranker.encode(&pieces)?, finish: Box::new(|scores| scores) })
        };
        self.submit(cancel, encode, on_done);
    }

    fn encode(&self, pieces: &[(ArrayRef, ArrayRef)]) -> Result<Encoded> {
        let (queries, passages) = window_texts(pieces)?;
        Ok(Encoded::new(&self.encoder, self.model.tokenizer(), &queries, &passages))
    }
}

/// What becomes of a window once it is encoded.
pub(super) enum EncodedWindow<T> {
    /// Nothing has to be scored.
    #[cfg(feature = "datafusion")]
    Known(T),
    /// The pairs for the engine, and what their scores are made into.
    Scores { pairs: Encoded, finish: Box<dyn FnOnce(WindowScores) -> T + Send> },
}

type Texts<'a> = Vec<Option<&'a str>>;

/// The queries and passages of a window.
pub(super) fn window_texts(pieces: &[(ArrayRef, ArrayRef)]) -> Result<(Texts<'_>, Texts<'_>)> {
    let (mut queries, mut passages) = (Vec::new(), Vec::new());
    for (query, passage) in pieces {
        queries.extend(texts("query", query.as_ref())?);
        passages.extend(texts("passage", passage.as_ref())?);
    }
    Ok((queries, passages))
}

pub(super) fn check_lengths(queries: &dyn Array, passages: &dyn Array) -> Result<()> {
    if queries.len() == passages.len() {
        return Ok(());
    }
    Err(Error::input(format!("{} queries for {} passages; there must be one for each", queries.len(), passages.len())))
}

/// The callback of a caller that waits for a window. Calls it with [`Error::Stopped`] if the window is dropped before
/// it has scores.
struct Answer<T>(Option<Box<dyn FnOnce(Result<T>) + Send>>);

impl<T> Answer<T> {
    fn new(on_done: impl FnOnce(Result<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(on_done)))
    }

    fn give(mut self, result: Result<T>) {
        if let Some(on_done) = self.0.take() {
            on_done(result);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(on_done) = self.0.take() {
            on_done(Err(Error::Stopped));
        }
    }
}

/// Cancels the work of a call that nobody waits for any more.
#[derive(Default)]
pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::path::Path;

    use arrow::array::{ArrayData, StringArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::engine::EngineOptions;

    /// Claims to be text but is not: reading it panics.
    #[derive(Debug)]
    struct Untrue;

    // SAFETY: nothing reads past the end of an array without values.
    unsafe impl Array for Untrue {
        fn as_any(&self) -> &dyn Any {
            self
        }

        fn to_data(&self) -> ArrayData {
            unimplemented!()
        }

        fn into_data(self) -> ArrayData {
            unimplemented!()
        }

        fn data_type(&self) -> &DataType {
            &DataType::Utf8
        }

        fn slice(&self, _: usize, _: usize) -> ArrayRef {
            unimplemented!()
        }

        fn len(&self) -> usize {
            1
        }

        fn is_empty(&self) -> bool {
            false
        }

        fn offset(&self) -> usize {
            0
        }

        fn nulls(&self) -> Option<&NullBuffer> {
            None
        }

        fn get_buffer_memory_size(&self) -> usize {
            0
        }

        fn get_array_memory_size(&self) -> usize {
            0
        }
    }

    #[test]
    fn a_panic_on_an_encoding_thread_is_an_error_of_its_window() {
        let location = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-xlmr-reranker");
        let reranker = Reranker::open(&location, &EngineOptions::default()).unwrap();
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let score = |queries| futures::executor::block_on(reranker.score_rows_async(queries, Arc::clone(&texts)));
        // More times than there are encoding threads.
        for _ in 0..6 {
            let error = score(Arc::new(Untrue)).unwrap_err().to_string();
            let expected = format!("model '{}': encoding a window panicked: ", location.display());
            assert!(error.starts_with(&expected), "{error}");
        }
        assert_eq!(score(Arc::clone(&texts)).unwrap().errors().count(), 0);
    }
}
