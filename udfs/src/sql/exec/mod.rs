//! The operator that scores.

mod call_model;
mod rerank_exec;

pub(crate) use call_model::CallModel;
pub(crate) use rerank_exec::{RerankCall, RerankExec};
