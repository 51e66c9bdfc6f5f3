//! BGE rerankers inside your query engine: query-passage pairs in, scores out, in large batches through ONNX Runtime.
//!
//! A checkpoint is opened as its authors publish it: `config.json`, `tokenizer.json` and safetensors files in a
//! directory. The ONNX graph is written in memory around the weights in those files, so that nothing is exported or
//! converted first. Scores equal those of the reference library, FlagEmbedding 1.4.2, for every family and option.
//!
//! There are three ways in, from the lowest.
//!
//! **Arrays.** [`Reranker::open`] reads a checkpoint. [`Reranker::score`] scores two text arrays and blocks;
//! [`Reranker::score_rows_async`] does so without blocking. [`Reranker::score_rows`] also returns, for each row, how
//! many tokens it had, whether it was truncated, and why it failed.
//!
//! ```no_run
//! use arrow::array::StringArray;
//! use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};
//!
//! let reranker = Reranker::open("bge-reranker-v2-minicpm-layerwise", &EngineOptions::default().with_threads(8))?;
//! let reranker = reranker.with_options(&ScoreOptions::default().with_cutoff_layers(28))?;
//! let queries = StringArray::from(vec!["what is a panda?", "what is a panda?"]);
//! let passages = StringArray::from(vec!["hi", "The giant panda is a bear species endemic to China."]);
//! println!("{:?}", reranker.score(&queries, &passages)?);
//! # Ok::<(), datafusion_rerank::Error>(())
//! ```
//!
//! **Streams.** [`Reranker::score_stream`] appends a score column to any stream of record batches. It keeps their order
//! and has two windows of rows in flight. A row of a slow stream is scored when it comes; those of a fast one are
//! gathered while the device is busy.
//!
//! ```no_run
//! use arrow::array::RecordBatch;
//! use datafusion_rerank::{PairColumns, Reranker, Result};
//! use futures::TryStreamExt;
//!
//! # async fn example(reranker: Reranker, batches: Vec<RecordBatch>) -> Result<()> {
//! let batches = futures::stream::iter(batches.into_iter().map(Ok));
//! let mut scored = reranker.score_stream(batches, PairColumns::default(), "score");
//! while let Some(batch) = scored.try_next().await? {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **SQL**, with the feature `datafusion`: `register_all` adds `rerank(query, passage, 'm3')` and its relatives to a
//! DataFusion session, with an operator and the rules that place it. A call may stand anywhere in a statement; only
//! rows that need a score are scored, each once.
//!
//! ```no_run
//! # #[cfg(feature = "datafusion")]
//! # async fn example(pairs: arrow::array::RecordBatch) -> datafusion::error::Result<()> {
//! let ctx = datafusion::prelude::SessionContext::new();
//! datafusion_rerank::register_all(&ctx)?;
//! ctx.register_batch("pairs", pairs)?;
//! let best = "SELECT query, passage FROM pairs WHERE lang = 'en' ORDER BY rerank(query, passage, 'm3') DESC LIMIT 10";
//! ctx.sql(best).await?.show().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`ScoreOptions`] holds the options of a call, [`EngineOptions`] says where and how a model runs, and
//! [`ModelRegistry`] names models.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `bundled` | no | the model `tiny`, a demonstration of 4.7 MB that needs no download |
//! | `cluster` | no | the module `cluster`: queries on Apache DataFusion Ballista, with the client's session and the codec and settings of schedulers and executors |
//! | `datafusion` | yes | SQL functions, settings, operator and rules; without it the crate needs Arrow only |
//!
//! # ONNX Runtime
//!
//! Version 1.28 or newer is opened when the first model is loaded: from `ORT_DYLIB_PATH`, beside the executable, or
//! from the system's library folders. A program may also search its working tree and Python's package: see
//! [`allow_onnxruntime_search`]. A process that already uses ONNX Runtime passes its environment with
//! [`set_environment`], or takes this crate's from [`environment()`]. These two are the only places where a type of the
//! crate `ort` appears; it is re-exported as [`ort`] and changes with its releases.
//!
//! Newer builds report their use to Microsoft. This crate turns the events off as soon as there is an environment. A
//! host that wants no trace of it, the database in the user's cache folder included, sets `ORT_DISABLE_TELEMETRY=1`
//! before its first thread starts. The crate cannot: another thread might be reading the environment.
//!
//! # Threads and memory
//!
//! A loaded model has its own worker threads; texts are encoded on rayon's pool. Memory holds the weights, one device
//! batch, the windows in flight and the one that is read, whatever the length of the input: a window is at most
//! [`DEFAULT_WINDOW_ROWS`] rows, sorted by length and cut into batches by tokens. Clones of a [`Reranker`] share
//! tokenizer, weights and device, and so do rerankers whose options differ only in what does not change the graph. Each
//! other precision, list of cutoff layers or compression that a model is asked for is a graph with weights of its own,
//! kept as long as the model is open.
//!
//! # Errors
//!
//! An [`Error`] is one line that names the thing, its value and the remedy. A row that cannot be scored fails alone,
//! and the other rows keep their scores: see [`Scores::errors`].
//!
//! # Stability
//!
//! Structs with public fields and enums that may grow are `#[non_exhaustive]`: build them with `default()` and `with_*`
//! setters, and match with a `_` arm.
//!
//! # Another family
//!
//! A family is a file in `models/` that implements the `Architecture` trait (configuration, text recipe, graph), a
//! [`Family`] variant, a line in `from_config` in `models/mod.rs`, and a tiny checkpoint with reference scores for the
//! conformance and golden tests.

mod checkpoint;
#[cfg(feature = "cluster")]
pub mod cluster;
mod engine;
mod error;
mod graph;
mod hub_cache;
mod max_delay;
mod model;
mod models;
mod options;
mod panics;
mod registry;
#[cfg(feature = "cluster")]
mod remote;
mod reranker;
mod scores;
#[cfg(feature = "datafusion")]
mod sql;
mod stream;
mod suggestion;
mod text;
mod tuning;
mod weights;
mod window;
mod window_stream;

pub use checkpoint::{
    ADAPTER_CONFIG_FILE, ADDED_TOKENS_FILE, CONFIG_FILE, CheckpointPart, INDEX_FILE, SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, shard_files,
};
pub use engine::{
    Device, Devices, EngineOptions, GpuMemory, ScoreStats, allow_onnxruntime_search, environment, is_text,
    set_environment,
};
pub use error::{Error, Result};
pub use hub_cache::{HubCache, HubId, HubRepository};
pub use max_delay::{DEFAULT_MAX_DELAY, MaxDelay};
pub use model::Model;
pub use models::{Family, GpuBytes, ModelShape};
pub use options::{Cutoffs, Heads, OPTION_NAMES, OptionDeclaration, OptionKind, Precision, ScoreOptions};
/// The binding to ONNX Runtime, in the version that this crate uses.
///
/// A host that shares the process's one environment, through [`set_environment`] or [`environment()`], must use the
/// same version of these types, so it takes them from here. Nothing else in this crate's signatures is from `ort`. It
/// is a release candidate: code that uses this module may need changes when this crate upgrades it.
pub use ort;
#[cfg(feature = "bundled")]
pub use registry::BUNDLED_MODEL;
pub use registry::ModelRegistry;
pub use reranker::Reranker;
pub use scores::Scores;
#[cfg(feature = "datafusion")]
pub use sql::{RerankConfig, RerankFunctions, WithRerank, plan_models, plan_stats, register_all};
pub use stream::{PairColumns, ScoredRows};
pub use weights::{BatchMeasurement, CachedWeights, WeightsCache};
pub use window::{DEFAULT_WINDOW_ROWS, Rows, WINDOW_TEXT_BYTES, WINDOWS_IN_FLIGHT, WindowCutter};

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    /// Compiles only if other threads may hold and share values of this type, for as long as they like.
    fn is_shared<T: Send + Sync + 'static>() {}

    /// Compiles only if another thread may take the value.
    fn is_sent<T: Send + 'static>(_: T) {}

    #[test]
    fn values_cross_threads() {
        is_shared::<Error>();
        is_shared::<Reranker>();
        is_shared::<ModelRegistry>();
        is_shared::<Scores>();
        is_shared::<ScoreOptions>();
        is_shared::<EngineOptions>();
        is_shared::<WeightsCache>();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-xlmr-reranker");
        let reranker = Reranker::open(tiny, &EngineOptions::default()).unwrap();
        is_sent(reranker.score_stream(futures::stream::empty(), PairColumns::default(), "score"));
        is_sent(reranker.score_batches(futures::stream::empty(), PairColumns::default()));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        is_sent(reranker.score_rows_async(Arc::clone(&texts), texts));
    }
}
