//! BGE rerankers inside your query engine: query-passage pairs in, scores out, in large batches through ONNX Runtime.
//!
//! Three ways in, from the lowest:
//!
//! * **Arrays.** [`Reranker::open`] reads a published checkpoint directory, [`Reranker::score`] scores two text arrays.
//!   [`Reranker::score_rows_async`] does so without blocking.
//! * **Streams.** [`Reranker::score_stream`] appends a score column to any stream of record batches.
//! * **SQL**, with the feature `datafusion`: `register_all` adds `rerank(query, passage, 'm3')` and its relatives to a
//!   DataFusion session, with an operator and the rules that place it.
//!
//! What a call can ask for is in [`ScoreOptions`], how a model is run in [`EngineOptions`], the models' names in
//! [`ModelRegistry`]. Scores equal those of the reference library, FlagEmbedding 1.4.2, for every family and option.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cluster` | no | queries on a cluster of Apache DataFusion Ballista: the client's session, and the codec and settings of schedulers and executors |
//! | `datafusion` | yes | SQL functions, settings, operator and rules; without it the crate needs Arrow only |
//!
//! ONNX Runtime (1.24 or newer) is opened when the first model is loaded: from `ORT_DYLIB_PATH`, beside the executable,
//! from `.onnxruntime/` of the working tree, from the active Python's package, or from the system. A process that uses it
//! already hands its environment over with [`set_environment`], or takes this crate's from [`environment()`].
//!
//! To add a family: a file in `models/` that implements the `Architecture` trait (configuration, text recipe, graph), a
//! [`Family`] variant, a line in the function that recognises `config.json`, and a tiny checkpoint with reference scores
//! for the conformance and golden tests.

mod checkpoint;
#[cfg(feature = "cluster")]
mod cluster;
mod engine;
mod error;
#[cfg(feature = "datafusion")]
mod functions;
mod graph;
mod model;
mod models;
mod options;
#[cfg(feature = "datafusion")]
mod plan;
mod quantization;
mod registry;
mod reranker;
mod scores;
mod stream;
mod text;
mod weights_cache;

#[cfg(feature = "cluster")]
pub use cluster::{
    ClusterAddress, ExecutorModels, PlannedModel, RerankClusterExt, RerankCodec, cluster_config, failure_cause,
    function_registry, plan_models, scheduler_session,
};
pub use engine::{Device, EngineOptions, ScoreStats, environment, set_environment};
pub use error::{Error, Result};
#[cfg(feature = "datafusion")]
pub use functions::{RerankFunctions, WithRerank, register_all};
pub use models::{Family, ModelShape};
pub use options::{Cutoffs, Heads, OPTION_NAMES, Precision, ScoreOptions};
#[cfg(feature = "datafusion")]
pub use plan::RerankConfig;
pub use registry::ModelRegistry;
pub use reranker::{DEFAULT_WINDOW_ROWS, Reranker};
pub use scores::Scores;
pub use stream::{PairColumns, ScoredRows};
pub use weights_cache::{CachedWeights, WeightsCache};
