//! Registers functions, settings and rules in a session.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;

use super::catalogue::KnownFunctions;
use super::config::RerankConfig;
use super::rules::{CheckRerankCalls, HoistRerankCalls, InsertRerankExec, KeepFieldsInPlace};
use crate::registry::ModelRegistry;

/// Adds `rerank`, `rerank_details` and the families' functions to a session, together with the settings
/// [`RerankConfig`], the checks that find wrong models and options while planning, and the rules that let calls stand
/// anywhere in a query, run once each, and run in an operator of their own.
///
/// Statements that the session prepared before are forgotten: prepare them afterwards.
///
/// ```no_run
/// # async fn example() -> datafusion::error::Result<()> {
/// use datafusion::prelude::SessionContext;
///
/// let ctx = SessionContext::new();
/// datafusion_rerank::register_all(&ctx)?;
/// ctx.sql("SET rerank.max_length = 256").await?;
/// ctx.sql("SELECT rerank('what is a panda?', 'a bear', 'm3')").await?.show().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of [`FunctionRegistry::register_udf`]: a session may refuse functions.
pub fn register_all(ctx: &SessionContext) -> Result<()> {
    RerankFunctions::default().register(ctx)
}

/// The SQL functions over a [`ModelRegistry`].
///
/// | call | returns |
/// |---|---|
/// | `rerank(query, passage [, model] [, options])` | `Float32`; `List<Float32>` if the options list cutoff layers |
/// | `rerank_<family>(query, passage [, options])`, one for each [`Family`](crate::Family) | the same |
/// | `rerank_details(query, passage [, model] [, options])` | a struct of `score`, `scores`, `query_tokens`, `passage_tokens`, `truncated`, `error` |
///
/// Options without a model are a struct; after one they may be JSON text too.
///
/// ```
/// use datafusion::prelude::SessionContext;
/// use datafusion_rerank::{ModelRegistry, RerankFunctions};
///
/// let models = ModelRegistry::default();
/// models.register("mine", "/models/mine");
/// let ctx = SessionContext::new();
/// RerankFunctions::new(models).register(&ctx)?;
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct RerankFunctions {
    registry: ModelRegistry,
}

impl RerankFunctions {
    /// Functions that find their models by the names of `registry`.
    pub fn new(registry: ModelRegistry) -> Self {
        Self { registry }
    }

    /// Adds everything to a session; see [`register_all`]. Keeps settings that the session already has.
    ///
    /// # Errors
    /// As [`register_all`].
    pub fn register(&self, ctx: &SessionContext) -> Result<()> {
        self.register_in(&mut ctx.state_ref().write())
    }

    /// Like [`Self::register`], for a session that has no context yet. [`WithRerank`] is for one that is being built.
    ///
    /// # Errors
    /// As [`register_all`].
    pub fn register_in(&self, state: &mut SessionState) -> Result<()> {
        for udf in self.udfs() {
            state.register_udf(Arc::new(udf))?;
        }
        let builder =
            SessionStateBuilder::new_from_existing(state.clone()).with_session_id(state.session_id().to_owned());
        *state = self.add_rules(add_settings(builder)).build();
        Ok(())
    }

    /// Adds the rules of these functions, and removes those of an earlier registration.
    fn add_rules(&self, mut builder: SessionStateBuilder) -> SessionStateBuilder {
        let analyzer = builder.analyzer().get_or_insert_default();
        analyzer.rules.retain(|rule| ![CheckRerankCalls::NAME, KeepFieldsInPlace::NAME].contains(&rule.name()));
        analyzer.rules.push(Arc::new(KeepFieldsInPlace));
        analyzer.rules.push(Arc::new(CheckRerankCalls::new(KnownFunctions::all(&self.registry))));
        // Last among the rules that the builder adds: earlier rules move filters and projections across what this one
        // hoists.
        builder.optimizer().get_or_insert_default().rules.retain(|rule| rule.name() != HoistRerankCalls::NAME);
        let optimizer_rules = builder.optimizer_rules().get_or_insert_default();
        optimizer_rules.retain(|rule| rule.name() != HoistRerankCalls::NAME);
        optimizer_rules.push(Arc::new(HoistRerankCalls::new(self.known())));
        // First: the rule that notes which order the result must have looks through the operator, which keeps it, and
        // those that add sorts and repartitioning see its properties.
        let physical = builder.physical_optimizers().get_or_insert_default();
        physical.rules.retain(|rule| rule.name() != InsertRerankExec::NAME);
        physical.rules.insert(0, Arc::new(InsertRerankExec::new(self.known())));
        builder
    }

    /// The asynchronous functions as the rules look for them.
    pub(crate) fn known(&self) -> KnownFunctions {
        KnownFunctions::asynchronous(&self.registry)
    }

    /// `rerank`, the families' functions and `rerank_details`, which run asynchronously.
    pub fn udfs(&self) -> Vec<ScalarUDF> {
        self.known().udfs().collect()
    }

    /// The same functions for hosts that accept only synchronous ones, such as those behind a foreign function
    /// interface: `rerank_sync`, `rerank_m3_sync`, .., `rerank_details_sync`. They block the calling thread until a
    /// batch is scored, and are volatile: DataFusion runs a repeated call twice.
    ///
    /// They also work where DataFusion cannot plan asynchronous functions, such as join conditions.
    pub fn sync_udfs(&self) -> Vec<ScalarUDF> {
        KnownFunctions::synchronous(&self.registry).udfs().collect()
    }
}

/// Adds the settings of [`RerankConfig`], unless the session already has them.
fn add_settings(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let extensions = &mut builder.config().get_or_insert_default().options_mut().extensions;
    if extensions.get::<RerankConfig>().is_none() {
        extensions.insert(RerankConfig::default());
    }
    builder
}

/// Adds everything that [`register_all`] adds while a session is being built.
///
/// ```
/// use datafusion::execution::SessionStateBuilder;
/// use datafusion::prelude::SessionContext;
/// use datafusion_rerank::{RerankFunctions, WithRerank};
///
/// let state = SessionStateBuilder::new_with_default_features().with_rerank(&RerankFunctions::default()).build();
/// let ctx = SessionContext::new_with_state(state);
/// # assert!(ctx.state().scalar_functions().contains_key("rerank"));
/// ```
pub trait WithRerank {
    /// Adds functions, settings and rules. Call it after whatever sets the session's configuration or replaces its
    /// rules or functions. Keeps settings that are already there.
    #[must_use]
    fn with_rerank(self, functions: &RerankFunctions) -> Self;
}

impl WithRerank for SessionStateBuilder {
    fn with_rerank(mut self, functions: &RerankFunctions) -> Self {
        self.scalar_functions().get_or_insert_default().extend(functions.udfs().into_iter().map(Arc::new));
        functions.add_rules(add_settings(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_session_are_kept() {
        let ctx = SessionContext::new();
        register_all(&ctx).unwrap();
        ctx.state_ref().write().config_mut().options_mut().set("rerank.max_length", "64").unwrap();
        register_all(&ctx).unwrap();
        assert_eq!(RerankConfig::of(ctx.state().config_options()).options.max_length, Some(64));
    }
}
