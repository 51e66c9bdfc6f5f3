//! Sessions of clients, schedulers and executors.

use std::sync::Arc;

use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::with_ballista_optimizer_rules;
use ballista_core::registry::BallistaFunctionRegistry;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::address::ClusterAddress;
use super::codec::RerankCodec;
use super::plan_query::PlanQuery;
use crate::sql::{RerankConfig, RerankFunctions, WithRerank};

/// Sets up the client side of a cluster.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use datafusion::prelude::SessionContext;
/// use datafusion_rerank::RerankFunctions;
/// use datafusion_rerank::cluster::RerankClusterExt;
///
/// let ctx = SessionContext::new().on_cluster(&"df://scheduler:50050".parse()?, &RerankFunctions::default())?;
/// ctx.register_parquet("pairs", "/data/pairs.parquet", Default::default()).await?;
/// ctx.sql("SELECT id, rerank(query, passage, 'm3') AS score FROM pairs ORDER BY score").await?.show().await?;
/// # Ok(())
/// # }
/// ```
pub trait RerankClusterExt: Sized {
    /// The same session, with its queries run by the cluster. It has the functions, settings and rules of
    /// [`register_all`](crate::register_all) for the models of `functions`, which this process opens (without their
    /// weights) to plan. The session keeps its tables, functions and settings. Does not connect yet.
    ///
    /// # Errors
    /// As [`register_all`](crate::register_all).
    fn on_cluster(self, address: &ClusterAddress, functions: &RerankFunctions) -> Result<SessionContext>;
}

impl RerankClusterExt for SessionContext {
    fn on_cluster(self, address: &ClusterAddress, functions: &RerankFunctions) -> Result<SessionContext> {
        let mut state = self.state();
        functions.register_in(&mut state)?;
        let codec = Arc::new(RerankCodec::new(functions));
        let config = state.config().clone().upgrade_for_ballista();
        let rules = with_ballista_optimizer_rules(state.optimizers());
        let session_id = state.session_id().to_owned();
        let state = SessionStateBuilder::new_from_existing(state)
            .with_session_id(session_id)
            .with_config(config)
            .with_optimizer_rules(rules)
            .with_query_planner(Arc::new(PlanQuery::new(address.clone(), codec)))
            .build();
        Ok(SessionContext::new_with_state(state))
    }
}

/// The configuration of sessions on schedulers and executors, before the client's settings are applied.
pub fn cluster_config() -> SessionConfig {
    SessionConfig::new_with_ballista().with_option_extension(RerankConfig::default())
}

/// The session of a scheduler, which decodes plans but opens no models. `runtime` must know the object stores that
/// plans name; the session reads nothing from them.
pub fn scheduler_session(config: SessionConfig, runtime: Arc<RuntimeEnv>, functions: &RerankFunctions) -> SessionState {
    SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_rerank(functions)
        .build()
}

/// The functions of an executor: DataFusion's and these.
pub fn function_registry(functions: &RerankFunctions) -> BallistaFunctionRegistry {
    let state = SessionStateBuilder::new_with_default_features().with_rerank(functions).build();
    BallistaFunctionRegistry::from(&state)
}
