//! The operator that scores.

mod call_model;
mod plan;
mod rerank_exec;

pub(crate) use call_model::CallModel;
pub use plan::{plan_models, plan_stats};
pub(crate) use rerank_exec::{RerankCall, RerankExec};
