//! BGE rerankers inside your query engine.

mod checkpoint;
mod engine;
mod error;
mod graph;
mod model;
mod models;
mod options;
mod registry;
mod reranker;
mod scores;
mod stream;
mod text;

pub use engine::{Device, EngineOptions, ScoreStats, set_environment};
pub use error::{Error, Result};
pub use models::Family;
pub use options::{Cutoffs, Heads, OPTION_NAMES, ScoreOptions};
pub use registry::ModelRegistry;
pub use reranker::{DEFAULT_WINDOW_ROWS, Reranker};
pub use scores::Scores;
pub use stream::{PairColumns, ScoredRows};
