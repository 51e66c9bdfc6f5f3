//! The Arrow API: arrays in, scores out.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array};
use arrow::datatypes::DataType;

use crate::engine::{Cancel, Encoded, EngineOptions, ScoreStats, WindowScores, run_on_encoding_thread, texts};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::models::{Family, GraphOptions, ModelShape};
use crate::options::{Cutoffs, Precision, ScoreOptions};
use crate::scores::Scores;
use crate::text::PairEncoder;
use crate::tuning::tune;
use crate::window::{DEFAULT_WINDOW_ROWS, WINDOWS_IN_FLIGHT, cut_windows};

/// An opened model with the options of a call. Cheap to clone; clones share tokenizer, weights and device.
///
/// ```no_run
/// use arrow::array::StringArray;
/// use datafusion_rerank::{EngineOptions, Reranker};
///
/// let reranker = Reranker::open("bge-reranker-v2-m3", &EngineOptions::default())?;
/// let queries = StringArray::from(vec!["what is a panda?", "what is a panda?"]);
/// let passages = StringArray::from(vec!["hi", "The giant panda is a bear species endemic to China."]);
/// let scores = reranker.score(&queries, &passages)?;
/// assert!(scores.value(0) < scores.value(1));
/// # Ok::<(), datafusion_rerank::Error>(())
/// ```
#[derive(Clone)]
pub struct Reranker {
    model: Arc<Model>,
    encoder: Arc<PairEncoder>,
    graph_options: GraphOptions,
    options: ScoreOptions,
    window_rows: usize,
}

impl std::fmt::Debug for Reranker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reranker")
            .field("model", &self.location())
            .field("family", &self.family())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Reranker {
    /// Opens a checkpoint directory: `config.json`, `model.safetensors` (or its shards and index, or a `model.onnx`)
    /// and `tokenizer.json`.
    ///
    /// Reads headers and the tokenizer only; the weights are loaded by the first call, or by [`Self::load`].
    ///
    /// # Errors
    /// [`Error::Model`] if there is no such directory, [`Error::Checkpoint`] or [`Error::Io`] if a file is wrong,
    /// [`Error::Option`] for engine options that mean nothing.
    pub fn open(location: impl AsRef<Path>, options: &EngineOptions) -> Result<Self> {
        Self::new(Arc::new(Model::open(location.as_ref(), options)?), ScoreOptions::default())
    }

    fn new(model: Arc<Model>, options: ScoreOptions) -> Result<Self> {
        let (encoder, graph_options) = model.resolve(&options)?;
        Ok(Self { model, encoder: Arc::new(encoder), graph_options, options, window_rows: DEFAULT_WINDOW_ROWS })
    }

    /// The same model with other options (those not set are the model's defaults). Weights are shared if the options
    /// do not change the graph.
    ///
    /// # Errors
    /// [`Error::Option`] for an option that this family does not have or a value that this checkpoint cannot honour.
    pub fn with_options(&self, options: &ScoreOptions) -> Result<Self> {
        let window_rows = self.window_rows;
        Ok(Self { window_rows, ..Self::new(Arc::clone(&self.model), options.clone())? })
    }

    /// How many rows are sorted by length together. Default: [`DEFAULT_WINDOW_ROWS`]; at least 1.
    #[must_use]
    pub fn with_window_rows(self, rows: usize) -> Self {
        Self { window_rows: rows.max(1), ..self }
    }

    /// Rows sorted by length together.
    pub fn window_rows(&self) -> usize {
        self.window_rows
    }

    /// The checkpoint's directory.
    pub fn location(&self) -> &Path {
        self.model.path()
    }

    /// The model family, recognised from `config.json`.
    pub fn family(&self) -> Family {
        self.model.architecture().family()
    }

    /// The transformer's dimensions; `None` for an ONNX export, of which only the graph knows them.
    pub fn shape(&self) -> Option<ModelShape> {
        self.model.architecture().shape()
    }

    /// Number of parameters by the type they are stored in (`F32`, `F16`, `BF16`); empty for an ONNX export.
    pub fn parameters(&self) -> BTreeMap<&'static str, u64> {
        self.model.parameters()
    }

    /// 32 hexadecimal digits that tell this checkpoint from others, wherever it lies: the same for copies, another for
    /// another training run, precision or tokenizer. The options are not part of it.
    ///
    /// Configuration and tokenizer are read whole, of the weights only lengths, headers and evenly spaced samples: it
    /// takes milliseconds for any size, and does not see a change of a few bytes between the samples.
    ///
    /// # Errors
    /// [`Error::Io`] if a file of the checkpoint cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        self.model.fingerprint()
    }

    /// Floating point operations for one pair of `tokens` tokens under the options in force: cutoff layers and
    /// compression (as if all tokens were passage) included, embeddings and heads (below 1 %) left out. `None` for an
    /// ONNX export.
    pub fn pair_flops(&self, tokens: usize) -> Option<f64> {
        self.shape().map(|shape| shape.pair_flops(&self.graph_options, tokens))
    }

    /// The options in force.
    pub fn options(&self) -> &ScoreOptions {
        &self.options
    }

    /// How and where the model runs.
    pub fn engine_options(&self) -> &EngineOptions {
        self.model.engine_options()
    }

    /// The type of the score column: `Float32`, or `List<Float32>` if `cutoff_layers` is a list.
    pub fn score_type(&self) -> DataType {
        if self.scores_are_lists() { Scores::list_type() } else { DataType::Float32 }
    }

    fn scores_are_lists(&self) -> bool {
        self.options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list)
    }

    /// In what the layers compute: as the options say, or else what is usual for the family on the device.
    pub fn precision(&self) -> Precision {
        self.graph_options.precision
    }

    /// Whether ONNX Runtime can use the devices at all, before anything large is read. That a GPU is there, and has memory
    /// enough, is only known when the weights are loaded.
    ///
    /// # Errors
    /// [`Error::Library`] or [`Error::Device`].
    pub fn check_devices(&self) -> Result<()> {
        self.model.check_devices()
    }

    /// Converts the weights to [`Self::precision`] now instead of while loading, if that is needed and the cache does not
    /// have them. `on_progress` is told how many bytes of the checkpoint are done, and of how many; it is not called if
    /// there is nothing to do.
    ///
    /// # Errors
    /// [`Error::Io`] if the checkpoint cannot be read or the cache not be written, [`Error::Checkpoint`] if a weight is out
    /// of the precision's range.
    pub fn convert_weights(&self, mut on_progress: impl FnMut(u64, u64)) -> Result<()> {
        self.model.convert_weights(&self.graph_options, &mut on_progress)
    }

    /// Loads the weights now instead of in the first call. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`Error::Library`], [`Error::Device`], [`Error::Checkpoint`] or [`Error::Runtime`].
    pub fn load(&self) -> Result<()> {
        self.model.engine(&self.graph_options).map(drop)
    }

    /// Most tokens in a batch of the device, padding included: what [`EngineOptions::batch_tokens`] says, or else what was
    /// measured for this model, device and precision, or else what is usual for the device.
    pub fn batch_tokens(&self) -> usize {
        self.model.batch_tokens(self.precision())
    }

    /// Measures how many tokens a batch should have for the device to be fastest, keeps it in the cache, where it is found
    /// again by whoever loads this model for this kind of device in this precision, and tells it. Batches of five sizes,
    /// from a fourth of what is usual for the device to four times as much, are run three times.
    ///
    /// Does nothing, and gives `None`, if [`EngineOptions::batch_tokens`] says how many, if it was measured before, or if it
    /// would take longer than a hundredth of the time that `rows` rows of about 200 tokens will. Loads the weights.
    ///
    /// # Errors
    /// Those of [`Self::load`] and of scoring; [`Error::Io`] if the cache cannot be written.
    pub fn tune_batches(&self, rows: u64) -> Result<Option<usize>> {
        if self.model.is_tuned(self.precision()) {
            return Ok(None);
        }
        let engine = self.model.engine(&self.graph_options)?;
        let usual = self.engine_options().usual_batch_tokens();
        let encode = |queries: &[Option<&str>], passages: &[Option<&str>]| {
            Encoded::new(&self.encoder, &self.model.tokenizer, queries, passages)
        };
        match tune(&engine, usual, rows, encode)? {
            Some(measured) => self.model.keep_batch_tokens(&self.graph_options, &measured).map(Some),
            None => Ok(None),
        }
    }

    /// What the device has run since the weights were loaded, for everyone who shares them: pairs without those that
    /// repeat another of their window, tokens, padding, batches and device time. All zero before that.
    ///
    /// A host that exports metrics reads it from time to time; what one call costs is in its [`Scores`].
    pub fn device_stats(&self) -> ScoreStats {
        self.model.device_stats(&self.graph_options)
    }

    /// Scores pairs of rows and blocks until all are done. `Utf8`, `LargeUtf8`, `Utf8View` and dictionary columns are
    /// read as they are; a NULL query or passage has a NULL score.
    ///
    /// # Errors
    /// [`Error::Input`] for columns that are no text or differ in length, if a row failed (naming the first), or if
    /// the options ask for several scores a row; otherwise the errors of [`Self::load`].
    pub fn score(&self, queries: &dyn Array, passages: &dyn Array) -> Result<Float32Array> {
        let scores = self.score_rows(queries, passages)?;
        match scores.errors().next() {
            Some((row, reason)) => Err(Error::input(format!("row {row}: {reason}"))),
            None => scores.to_float32(),
        }
    }

    /// As [`Self::score`], with everything there is to know of each row, failures included.
    ///
    /// # Errors
    /// As [`Self::score`], but a failed row is not an error.
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
                self.submit(window, cancel.0.clone(), move |result| {
                    // The receiver is gone only if an earlier window failed.
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

    /// As [`Self::score_rows`] without blocking: the work runs on the engine's threads. Dropping the future stops the
    /// work within one device batch. The rows are one window, whatever their number.
    ///
    /// # Errors
    /// As [`Self::score_rows`].
    pub fn score_rows_async(
        &self,
        queries: ArrayRef,
        passages: ArrayRef,
    ) -> impl Future<Output = Result<Scores>> + Send + use<> {
        self.score_pieces_async(vec![(queries, passages)])
    }

    /// As [`Self::score_rows_async`] for rows that come in several pieces, queries and passages of each: one window,
    /// without putting the columns together. Pieces may differ in layout.
    ///
    /// # Errors
    /// As [`Self::score_rows`].
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
            // The receiver is gone only if nobody waits any more.
            reranker.submit(pieces, cancel.0.clone(), move |result| drop(sender.send(result)));
            let window = receiver.await.map_err(|_| Error::Stopped)??;
            Ok(reranker.scores(vec![window]))
        }
    }

    /// The token ids that the model is fed for a pair, without padding.
    ///
    /// # Errors
    /// [`Error::Input`] if a text cannot be tokenized.
    pub fn token_ids(&self, query: &str, passage: &str) -> Result<Vec<u32>> {
        let tokenizer = &self.model.tokenizer;
        let query = self.encoder.query(tokenizer, query).map_err(|e| Error::input(format!("query {e}")))?;
        let passage = self.encoder.passage(tokenizer, passage).map_err(|e| Error::input(format!("passage {e}")))?;
        Ok(self.encoder.pair(&query, &passage).ids.into_vec())
    }

    /// How many tokens the model would be fed for each row, without padding; `None` for a row that would not be run,
    /// because a text is NULL or cannot be tokenized. Needs no weights.
    ///
    /// # Errors
    /// [`Error::Input`] for columns that are no text or differ in length.
    pub fn token_counts(&self, queries: &ArrayRef, passages: &ArrayRef) -> Result<Vec<Option<u32>>> {
        check_lengths(queries.as_ref(), passages.as_ref())?;
        Ok(self.encode(&[(Arc::clone(queries), Arc::clone(passages))])?.row_lengths())
    }

    /// Writes the model with these options as a standard ONNX directory: `model.onnx`, `model.onnx.data`, tokenizer
    /// and configuration. Other tools can run it; of encoder families, [`Self::open`] opens it too.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Model`] if this is an ONNX export already.
    pub fn export(&self, folder: impl AsRef<Path>) -> Result<()> {
        self.model.export(&self.graph_options, folder.as_ref())
    }

    fn scores(&self, windows: Vec<WindowScores>) -> Scores {
        Scores::new(windows, self.options.normalize.unwrap_or(false), self.scores_are_lists())
    }

    /// Encodes a window on an encoding thread and hands it to the engine. `on_done` is called in any case.
    fn submit(
        &self,
        pieces: Vec<(ArrayRef, ArrayRef)>,
        cancel: Cancel,
        on_done: impl FnOnce(Result<WindowScores>) + Send + 'static,
    ) {
        let reranker = self.clone();
        let answer = Answer(Some(on_done));
        run_on_encoding_thread(move || {
            if cancel.is_cancelled() {
                return;
            }
            match reranker.encode(&pieces) {
                Err(error) => answer.give(Err(error)),
                Ok(encoded) => reranker.model.with_engine(&reranker.graph_options, move |engine| match engine {
                    Err(error) => answer.give(Err(error)),
                    Ok(engine) => engine.submit(encoded, cancel, |result| answer.give(result)),
                }),
            }
        });
    }

    fn encode(&self, pieces: &[(ArrayRef, ArrayRef)]) -> Result<Encoded> {
        let (mut queries, mut passages) = (Vec::new(), Vec::new());
        for (query, passage) in pieces {
            queries.extend(texts("query", query.as_ref())?);
            passages.extend(texts("passage", passage.as_ref())?);
        }
        Ok(Encoded::new(&self.encoder, &self.model.tokenizer, &queries, &passages))
    }
}

fn check_lengths(queries: &dyn Array, passages: &dyn Array) -> Result<()> {
    if queries.len() == passages.len() {
        return Ok(());
    }
    Err(Error::input(format!("{} queries for {} passages; there must be one for each", queries.len(), passages.len())))
}

/// The callback of a window: called with [`Error::Stopped`] if the window is dropped before it has scores.
struct Answer<F: FnOnce(Result<WindowScores>)>(Option<F>);

impl<F: FnOnce(Result<WindowScores>)> Answer<F> {
    fn give(mut self, result: Result<WindowScores>) {
        if let Some(on_done) = self.0.take() {
            on_done(result);
        }
    }
}

impl<F: FnOnce(Result<WindowScores>)> Drop for Answer<F> {
    fn drop(&mut self) {
        if let Some(on_done) = self.0.take() {
            on_done(Err(Error::Stopped));
        }
    }
}

/// Cancels the work of a call when its result is no longer wanted.
#[derive(Default)]
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
