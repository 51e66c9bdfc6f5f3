//! An opened model with the options of a call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;

use crate::engine::{EngineOptions, ScoreStats};
use crate::error::Result;
use crate::max_delay::DEFAULT_MAX_DELAY;
use crate::model::Model;
use crate::models::Family;
use crate::options::{Cutoffs, Precision, ScoreOptions};
use crate::scores::Scores;
use crate::text::PairEncoder;
use crate::window::{DEFAULT_WINDOW_ROWS, Growth};
use crate::window_stream::Following;

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
    pub(super) model: Model,
    pub(super) encoder: Arc<PairEncoder>,
    pub(super) options: ScoreOptions,
    pub(super) window_rows: usize,
    pub(super) max_delay: Option<Duration>,
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
    /// Opens a checkpoint directory: `config.json`, `model.safetensors` (or else its shards and index, or a
    /// `model.onnx`) and `tokenizer.json`, with the settings of the tokenizer beside it.
    ///
    /// Reads headers and the tokenizer only. The first call loads the weights, or [`Self::load`] does. Whatever is in
    /// the directory is used, or known to change no score, or refused: see [`CheckpointPart`](crate::CheckpointPart).
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) if there is no such directory,
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) or [`Error::Io`](crate::Error::Io) if a file is wrong or holds a
    /// key or a tensor that may change scores and is not known, [`Error::Option`](crate::Error::Option) for invalid
    /// engine options.
    pub fn open(location: impl AsRef<Path>, options: &EngineOptions) -> Result<Self> {
        let model = Model::open(location.as_ref(), options)?;
        let options = ScoreOptions::default();
        let encoder = Arc::new(model.encoder(&options)?);
        Ok(Self { model, encoder, options, window_rows: DEFAULT_WINDOW_ROWS, max_delay: Some(DEFAULT_MAX_DELAY) })
    }

    /// The same model with other options; those not set take the model's defaults. Shares the weights if the options do
    /// not change the graph.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for an option that this family does not have or a value that this
    /// checkpoint cannot honour.
    pub fn with_options(&self, options: &ScoreOptions) -> Result<Self> {
        let model = self.model.with_options(options)?;
        let encoder = Arc::new(model.encoder(options)?);
        Ok(Self { model, encoder, options: options.clone(), window_rows: self.window_rows, max_delay: self.max_delay })
    }

    /// Sets how many rows are sorted by length together; at least 1. Default: [`DEFAULT_WINDOW_ROWS`].
    #[must_use]
    pub fn with_window_rows(self, rows: usize) -> Self {
        Self { window_rows: rows.max(1), ..self }
    }

    /// Rows that are sorted by length together.
    pub fn window_rows(&self) -> usize {
        self.window_rows
    }

    /// Sets the longest time that rows of a stream wait for others while the stream has no more, unless they would wait
    /// in the device's queue instead. `None` scores full windows only: then the same rows in the same order fall into
    /// the same windows whatever their timing, and have the same scores to the last bit. Default:
    /// [`DEFAULT_MAX_DELAY`].
    ///
    /// It concerns [`Self::score_stream`] and [`Self::score_batches`] only: the rows of arrays are all there.
    #[must_use]
    pub fn with_max_delay(self, max_delay: Option<Duration>) -> Self {
        Self { max_delay, ..self }
    }

    /// The longest time that rows of a stream wait for others; `None` if only full windows are scored.
    pub fn max_delay(&self) -> Option<Duration> {
        self.max_delay
    }

    /// What the windows of a stream follow; `None` if only full windows are scored.
    pub(crate) fn following(&self) -> Option<Following> {
        let max_delay = self.max_delay?;
        // A text that cannot be tokenized fails when it is scored.
        let row_tokens = self.token_ids("", "").map_or(0, |ids| ids.len());
        let growth = Growth::from(self.model.batch_tokens_in_force(), row_tokens);
        Some(Following { max_delay, engines: vec![self.model.activity()], growth })
    }

    /// The model under the options in force: facts, fingerprint, conversion, export, tuning.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The options in force.
    pub fn options(&self) -> &ScoreOptions {
        &self.options
    }

    /// The type of the score column: `Float32`, or `List<Float32>` if `cutoff_layers` is a list.
    pub fn score_type(&self) -> DataType {
        if self.scores_are_lists() { Scores::list_type() } else { DataType::Float32 }
    }

    pub(super) fn scores_are_lists(&self) -> bool {
        self.options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list)
    }

    /// See [`Model::location`].
    pub fn location(&self) -> &Path {
        self.model.location()
    }

    /// See [`Model::family`].
    pub fn family(&self) -> Family {
        self.model.family()
    }

    /// See [`Model::precision`].
    pub fn precision(&self) -> Precision {
        self.model.precision()
    }

    /// See [`Model::engine_options`].
    pub fn engine_options(&self) -> &EngineOptions {
        self.model.engine_options()
    }

    /// See [`Model::load`].
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load(&self) -> Result<()> {
        self.model.load()
    }

    /// See [`Model::device_stats`]. The cost of a single call is in its [`Scores`].
    pub fn device_stats(&self) -> ScoreStats {
        self.model.device_stats()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;
    use crate::graph::Target;

    /// Scores of pairs of many lengths, with the graph of the CPU or of another target, which may be windowed.
    fn scores(checkpoint: &str, options: &ScoreOptions, target: Option<(Target, bool)>) -> Vec<f32> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let reranker = Reranker::open(fixtures.join(checkpoint), &EngineOptions::default()).unwrap();
        let mut reranker = reranker.with_options(options).unwrap();
        if let Some((target, windowed)) = target {
            reranker.model = reranker.model.with_target(target, windowed);
        }
        let text =
            |row: usize, words: usize| vec!["what is a panda, the bear of China?"; words % 7 + row % 3].join(" ");
        let queries = StringArray::from_iter_values((0..40).map(|row| text(row, row / 5)));
        let passages = StringArray::from_iter_values((0..40).map(|row| text(row, row * row)));
        reranker.score(&queries, &passages).unwrap().values().to_vec()
    }

    fn assert_near(checkpoint: &str, actual: &[f32], expected: &[f32]) {
        for (row, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert!((actual - expected).abs() <= 1e-4, "{checkpoint}, row {row}: {actual} instead of {expected}");
        }
        assert!(expected.iter().any(|score| (score - expected[0]).abs() > 0.1), "{expected:?}");
    }

    /// Each family's tiny checkpoint, and the operators of this crate that its graph has. The heads of the third are
    /// too narrow for [`Rotate`](crate::graph::OwnOperator::Rotate).
    const OWN_OPERATORS: [(&str, &[&str]); 4] = [
        ("tiny-xlmr-reranker", &["AddBias", "BiasGelu"]),
        ("tiny-gemma-reranker", &["GatedGelu", "Rotate"]),
        ("tiny-minicpm-layerwise-reranker", &["GatedSilu"]),
        ("tiny-gemma2-lightweight-reranker", &["GatedGelu", "Rotate"]),
    ];

    /// The graphs differ in operators and in where biases are added. In fp32, ONNX Runtime's operators all have CPU
    /// kernels, and our own have theirs for this test.
    #[test]
    fn the_graph_of_a_gpu_scores_like_that_of_the_cpu() {
        let plain = ScoreOptions::default();
        let compressed = serde_json::json!({"compress_ratio": 2, "compress_layers": [1], "cutoff_layers": 3});
        let compressed = ScoreOptions::from_json(&compressed).unwrap();
        let last = OWN_OPERATORS[3].0;
        for (checkpoint, options) in
            OWN_OPERATORS.map(|(checkpoint, _)| (checkpoint, &plain)).into_iter().chain([(last, &compressed)])
        {
            let expected = scores(checkpoint, options, None);
            for target in [Target::Gpu, Target::GpuWithKernels] {
                assert_near(checkpoint, &scores(checkpoint, options, Some((target, true))), &expected);
            }
        }
    }

    #[test]
    fn own_operators_are_in_the_graphs_that_may_have_them_and_in_no_export() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        for (checkpoint, expected) in OWN_OPERATORS {
            let reranker = Reranker::open(fixtures.join(checkpoint), &EngineOptions::default()).unwrap();
            let model = reranker.model.with_target(Target::GpuWithKernels, true);
            assert!(model.own_operators().iter().eq(expected), "{checkpoint}: {:?}", model.own_operators());
            for target in [Target::Cpu, Target::Gpu] {
                assert!(reranker.model.with_target(target, true).own_operators().is_empty(), "{checkpoint}");
            }
            let folder = tempfile::tempdir().unwrap();
            model.export(folder.path()).unwrap();
            let graph = std::fs::read(folder.path().join("model.onnx")).unwrap();
            let domain = crate::graph::OWN_DOMAIN.as_bytes();
            assert!(!graph.windows(domain.len()).any(|bytes| bytes == domain), "{checkpoint}");
        }
    }

    #[test]
    fn a_window_that_no_pair_exceeds_needs_no_operator() {
        let checkpoint = "tiny-gemma2-lightweight-reranker";
        let unlimited = Some((Target::Gpu, false));
        // 4 tokens, and twice those of a newline and the prompt: within the checkpoint's window of 24.
        let short = ScoreOptions::from_json(&serde_json::json!({"max_length": 4, "prompt": "a b c"})).unwrap();
        assert_near(checkpoint, &scores(checkpoint, &short, unlimited), &scores(checkpoint, &short, None));
        let long = ScoreOptions::default();
        let differs = scores(checkpoint, &long, unlimited)
            .iter()
            .zip(scores(checkpoint, &long, None))
            .any(|(a, b)| (a - b).abs() > 1e-2);
        assert!(differs, "the window makes no difference");
    }
}
