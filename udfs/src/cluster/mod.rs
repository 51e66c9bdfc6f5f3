//! Queries on a cluster of Apache DataFusion Ballista.
//!
//! ```text
//! client                              scheduler           executors
//! SQL -> plan with RerankExec  ────>  cut into tasks ──>  models opened once, rows scored
//!        models and options resolved  (needs no models)   same checkpoint, or an error that names the executor
//! ```
//!
//! The client plans. What travels is the physical plan, in which [`RerankCodec`] writes model, fingerprint and resolved
//! options of each call: neither the session's settings nor an executor's can change a score.
//!
//! | who | needs |
//! |---|---|
//! | client | [`RerankClusterExt::on_cluster`] with a [`ClusterAddress`] |
//! | scheduler | [`cluster_config`], [`scheduler_session`] and [`RerankCodec::new`] |
//! | executor | [`cluster_config`], [`function_registry`] and [`RerankCodec::for_executor`] with its [`ExecutorModels`] |
//!
//! A program with operators of its own, whose messages name models, writes a [`PlannedModel`] and makes errors of
//! schedulers readable with [`failure_cause`].

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
