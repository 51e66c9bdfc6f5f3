//! The operator that scores.
//!
//! ```text
//! input ──> GatherWindows ──> ScoreWindows ──> batches with score columns
//!           (memory)          (two in flight)
//! ```

mod call_model;
mod gather_windows;
mod metrics;
mod plan;
mod query_scores;
mod rerank_call;
mod rerank_exec;
mod score_windows;

pub(crate) use call_model::CallModel;
pub use plan::{plan_models, plan_stats};
pub(crate) use query_scores::QueryScores;
pub(crate) use rerank_call::RerankCall;
pub(crate) use rerank_exec::RerankExec;
