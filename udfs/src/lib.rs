//! BGE rerankers inside your query engine: query-passage pairs in, scores out, in large batches through ONNX Runtime.
//!
//! A checkpoint is opened as its authors publish it: `config.json`, `tokenizer.json` and safetensors files in a directory.
//! The ONNX graph is written in memory around the weights in those files, so that nothing is exported or converted first.
//! Scores equal those of the reference library, FlagEmbedding 1.4.2, for every family and option.
//!
//! There are three ways in, from the lowest.
//!
//! **Arrays.** [`Reranker::open`] reads a checkpoint, [`Reranker::score`] scores two text arrays and blocks;
//! [`Reranker::score_rows_async`] does so without blocking, and [`Reranker::score_rows`] tells of each row how many tokens it
//! had, whether it was cut, and why it failed.
//!
//! ```no_run
//! use arrow::array::StringArray;
//! use datafusion_rerank::{Cutoffs, EngineOptions, Reranker, ScoreOptions};
//!
//! let mut options = ScoreOptions::default();
//! options.cutoff_layers = Some(Cutoffs::One(28));
//! let reranker =
//!     Reranker::open("bge-reranker-v2-minicpm-layerwise", &EngineOptions::default())?.with_options(&options)?;
//! let queries = StringArray::from(vec!["what is a panda?", "what is a panda?"]);
//! let passages = StringArray::from(vec!["hi", "The giant panda is a bear species endemic to China."]);
//! println!("{:?}", reranker.score(&queries, &passages)?);
//! # Ok::<(), datafusion_rerank::Error>(())
//! ```
//!
//! **Streams.** [`Reranker::score_stream`] appends a score column to any stream of record batches, in its order, with two
//! windows of rows under way.
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
//! DataFusion session, with an operator and the rules that place it. Only rows that need a score are scored, each once,
//! wherever in a statement the call stands.
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
//! What a call can ask for is in [`ScoreOptions`], how a model is run in [`EngineOptions`], the models' names in
//! [`ModelRegistry`].
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cluster` | no | queries on a cluster of Apache DataFusion Ballista: the client's session, and the codec and settings of schedulers and executors |
//! | `datafusion` | yes | SQL functions, settings, operator and rules; without it the crate needs Arrow only |
//!
//! # ONNX Runtime
//!
//! Version 1.28 or newer is opened when the first model is loaded: from `ORT_DYLIB_PATH`, beside the executable, from
//! `.onnxruntime/` of the working tree, from the active Python's package, or from the system. A process that uses it
//! already hands its environment over with [`set_environment`], or takes this crate's from [`environment()`].
//!
//! Newer builds report their use to Microsoft. This crate turns the events off as soon as there is an environment; a host
//! that wants no trace of it, the database in the user's cache folder included, sets `ORT_DISABLE_TELEMETRY=1` before its
//! first thread starts. The crate cannot: another thread might be reading the environment.
//!
//! # Threads and memory
//!
//! A loaded model runs on worker threads of its own; texts are encoded on rayon's pool. Memory is that of the
//! weights, of one device batch and of the windows under way, whatever the length of the input: a window is
//! [`DEFAULT_WINDOW_ROWS`] rows, sorted by length, cut into batches by tokens. Clones of a [`Reranker`], and rerankers that
//! differ in options that leave the graph alone, share tokenizer, weights and device.
//!
//! # Errors
//!
//! An [`Error`] is one line that names the thing, its value and the remedy. A row that cannot be scored is a failure of
//! its own, which does not touch the others: see [`Scores::errors`].
//!
//! # Another family
//!
//! A family is a file in `models/` that implements the `Architecture` trait (configuration, text recipe, graph), a
//! [`Family`] variant, a line in the function that recognises `config.json`, and a tiny checkpoint with reference scores
//! for the conformance and golden tests.

mod checkpoint;
#[cfg(feature = "cluster")]
mod cluster;
mod engine;
mod error;
mod graph;
mod model;
mod models;
mod options;
mod registry;
mod reranker;
mod scores;
#[cfg(feature = "datafusion")]
mod sql;
mod stream;
mod text;
mod tuning;
mod weights;

#[cfg(feature = "cluster")]
pub use cluster::{
    ClusterAddress, ExecutorModels, PlannedModel, RerankClusterExt, RerankCodec, cluster_config, failure_cause,
    function_registry, scheduler_session,
};
pub use engine::{Device, Devices, EngineOptions, ScoreStats, environment, set_environment};
pub use error::{Error, Result};
pub use models::{Family, ModelShape};
pub use options::{Cutoffs, Heads, OPTION_NAMES, Precision, ScoreOptions};
pub use registry::ModelRegistry;
pub use reranker::{DEFAULT_WINDOW_ROWS, Reranker};
pub use scores::Scores;
#[cfg(feature = "datafusion")]
pub use sql::{RerankConfig, RerankFunctions, WithRerank, plan_models, plan_stats, register_all};
pub use stream::{PairColumns, ScoredRows};
pub use weights::{BatchMeasurement, CachedWeights, WeightsCache};
