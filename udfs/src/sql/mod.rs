//! SQL: functions, settings, the rules that place calls in a plan and the operator that runs them.
//!
//! | call | returns |
//! |---|---|
//! | `rerank(query, passage [, model [, options]])` | `Float32`; `List<Float32>` if the options list cutoff layers |
//! | `rerank_m3(query, passage [, options])`, one for each family | the same |
//! | `rerank_details(query, passage [, model [, options]])` | a struct: see [`Scores::details_fields`](crate::Scores) |
//!
//! ```text
//! arguments ──> Function (types, constants) ──> Call (model, options) ──> Reranker ──> column
//!               while planning and again while running
//!
//! logical plan ──CheckRerankCalls──> wrong models and options refused
//!              ──HoistRerankCalls──> calls only in projections and filters, each computed once
//! physical plan ──InsertRerankExec──> RerankExec in place of AsyncFuncExec
//! ```

mod call;
mod config;
mod errors;
mod exec;
mod function;
mod known_functions;
mod options;
mod register;
mod rerank;
mod rerank_details;
mod rules;
mod sync;

pub use config::RerankConfig;
#[cfg(feature = "cluster")]
pub(crate) use errors::planning;
#[cfg(feature = "cluster")]
pub(crate) use exec::{CallModel, RerankCall, RerankExec};
pub use exec::{plan_models, plan_stats};
#[cfg(feature = "cluster")]
pub(crate) use known_functions::KnownFunctions;
pub use register::{RerankFunctions, WithRerank, register_all};
