//! SQL: functions, settings, the rules that place calls in a plan and the operator that runs them.
//!
//! ```text
//! arguments ──> Function (types, constants) ──> Call (model, options) ──> Reranker ──> column
//!               while planning and again while running
//!
//! logical plan ──CheckRerankCalls──> wrong models and options refused
//!              ──KeepFieldsInPlace──> fields of details stay where they are read
//!              ──HoistRerankCalls──> calls only in projections and filters, each computed once
//! physical plan ──InsertRerankExec──> RerankExec in place of AsyncFuncExec
//! ```

mod blocking;
mod call;
mod catalogue;
mod columns;
mod config;
mod errors;
mod exec;
mod function;
mod function_kind;
mod kept_field;
mod options;
mod register;
mod rules;
mod udf;

#[cfg(feature = "cluster")]
pub(crate) use catalogue::KnownFunctions;
pub use config::RerankConfig;
#[cfg(feature = "cluster")]
pub(crate) use errors::planning;
#[cfg(feature = "cluster")]
pub(crate) use exec::{CallModel, QueryScores, RerankCall, RerankExec};
pub use exec::{plan_models, plan_stats};
pub use register::{RerankFunctions, WithRerank, register_all};
