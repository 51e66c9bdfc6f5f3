//! Queries on a cluster of Apache DataFusion Ballista.
//!
//! ```text
//! client                              scheduler           executors
//! SQL -> plan with RerankExec  ────>  cut into tasks ──>  models opened once, rows scored
//!        models and options resolved  (needs no models)   same checkpoint, or an error that names the executor
//! ```
//!
//! The client plans; what travels is the physical plan, in which [`RerankCodec`] writes model, fingerprint and resolved
//! options of each call. Neither settings of the session nor those of an executor can change a score.

mod address;
mod codec;
mod executor_models;
mod failure;
mod message;
mod plan_query;
mod planned_model;
mod query_exec;
mod session;

pub use address::ClusterAddress;
pub use codec::RerankCodec;
pub use executor_models::ExecutorModels;
pub use failure::failure_cause;
pub use planned_model::PlannedModel;
pub use session::{RerankClusterExt, cluster_config, function_registry, scheduler_session};
