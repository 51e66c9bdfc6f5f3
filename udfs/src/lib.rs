//! BGE rerankers inside your query engine.

mod checkpoint;
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
mod registry;
mod reranker;
mod scores;
mod stream;
mod text;

pub use engine::{Device, EngineOptions, ScoreStats, environment, set_environment};
pub use error::{Error, Result};
#[cfg(feature = "datafusion")]
pub use functions::{RerankFunctions, register_all};
pub use models::{Family, ModelShape};
pub use options::{Cutoffs, Heads, OPTION_NAMES, ScoreOptions};
#[cfg(feature = "datafusion")]
pub use plan::RerankConfig;
pub use registry::ModelRegistry;
pub use reranker::{DEFAULT_WINDOW_ROWS, Reranker};
pub use scores::Scores;
pub use stream::{PairColumns, ScoredRows};
