//! What the SQL functions need of the query engine's planning.
//!
//! ```text
//! logical plan ──HoistRerankCalls──> calls only in projections and filters, each computed once
//! physical plan ──InsertRerankExec──> RerankExec in place of AsyncFuncExec
//! ```

mod call_model;
mod config;
mod guard_calls;
mod hoist_rerank_calls;
mod insert_rerank_exec;
mod known_functions;
mod rerank_exec;

#[cfg(feature = "cluster")]
pub(crate) use call_model::CallModel;
pub use config::RerankConfig;
pub(crate) use hoist_rerank_calls::HoistRerankCalls;
pub(crate) use insert_rerank_exec::InsertRerankExec;
pub(crate) use known_functions::{KnownFunction, KnownFunctions};
#[cfg(feature = "cluster")]
pub(crate) use rerank_exec::{RerankCall, RerankExec};
