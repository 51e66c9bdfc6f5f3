//! Queries on a cluster of Apache DataFusion Ballista.
//!
//! ```text
//! client                              scheduler           executors
//! SQL -> plan with RerankExec  ────>  cut into tasks ──>  models opened once, rows scored
//!        models and options resolved  (needs no models)   same checkpoint, or an error that names the executor
//! ```
//!
//! The client plans. It sends the physical plan, in which [`RerankCodec`] writes the model, fingerprint and resolved
//! options of each call. Neither the session's settings nor an executor's can change a score.
//!
//! | who | needs |
//! |---|---|
//! | client | [`RerankClusterExt::on_cluster`] with a [`ClusterAddress`] |
//! | scheduler | [`cluster_config`], [`scheduler_session`] and [`RerankCodec::new`] |
//! | executor | [`cluster_config`], [`function_registry`] and [`RerankCodec::for_executor`] with its [`ExecutorModels`] |
//!
//! A program with its own operators, whose messages name models, writes a [`PlannedModel`] into them. [`failure_cause`]
//! makes a scheduler's errors readable.

mod address;
mod codec;
mod failure;
mod message;
mod plan_query;
mod query_exec;
mod session;

pub use address::ClusterAddress;
pub use codec::RerankCodec;
pub use failure::failure_cause;
pub use session::{RerankClusterExt, cluster_config, function_registry, scheduler_session};

pub use crate::remote::{ExecutorModels, PlannedModel};
