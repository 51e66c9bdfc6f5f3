//! Puts the operator into a plan.
//!
//! ```text
//! ProjectionExec: expr=[id@0, __async_fn_0@3 as score]
//!   AsyncFuncExec: async_expr=[async_expr(name=__async_fn_0, expr=rerank(query@1, passage@2))]
//!     DataSourceExec
//! ```
//!
//! becomes
//!
//! ```text
//! ProjectionExec: expr=[id@0, __async_fn_0@3 as score]
//!   RerankExec: [rerank(query@1, passage@2) AS __async_fn_0], model=m3, options={}, device=cpu, precision=fp32
//!     DataSourceExec
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;
use datafusion::physical_expr::expressions::{LambdaVariable, Literal};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::async_func::AsyncFuncExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::hoist_rerank_calls::HoistRerankCalls;
use crate::sql::blocking::blocking;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::config::RerankConfig;
use crate::sql::errors::planning;
use crate::sql::exec::{CallModel, QueryScores, RerankCall, RerankExec};

/// Replaces every `AsyncFuncExec` by a [`RerankExec`], if it calls only our functions.
///
/// Runs before the rules that add sorts and repartitioning, so that they see that order is kept.
#[derive(Debug)]
pub(crate) struct InsertRerankExec {
    functions: KnownFunctions,
}

impl InsertRerankExec {
    pub(crate) const NAME: &'static str = "InsertRerankExec";

    pub(crate) fn new(functions: KnownFunctions) -> Self {
        Self { functions }
    }

    fn replace(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        config: &RerankConfig,
        scores: &QueryScores,
    ) -> Result<Option<RerankExec>> {
        let mut calls = Vec::new();
        let mut foreign = false;
        plan.apply_expressions(&mut |expression| {
            match self.call(expression, config)? {
                Some(call) => calls.push(call),
                None => foreign = true,
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match plan.children().as_slice() {
            [input] if !foreign => RerankExec::try_new(calls, Arc::clone(input), scores.clone()).map(Some),
            _ => Ok(None),
        }
    }

    /// `None` for a call of another function, or one whose model or options are not constant: that fails when it runs,
    /// with the function's message.
    fn call(&self, expression: &Arc<dyn PhysicalExpr>, config: &RerankConfig) -> Result<Option<RerankCall>> {
        let Some(expression) = expression.downcast_ref::<AsyncFuncExpr>() else { return Ok(None) };
        let Some(planned) = expression.func.downcast_ref::<ScalarFunctionExpr>() else { return Ok(None) };
        let Some(function) = self.functions.find(planned.fun()) else { return Ok(None) };
        if !self.functions.is_placed(planned.fun()) {
            return Err(DataFusionError::Plan(format!(
                "{} has no place in the plan: the optimizer rule {} did not run; set datafusion.optimizer.max_passes to at least 1",
                function.name(),
                HoistRerankCalls::NAME
            )));
        }
        let [query, passage, constants @ ..] = planned.args() else { return Ok(None) };
        let literal = |argument: &Arc<dyn PhysicalExpr>| Some(argument.downcast_ref::<Literal>()?.value().clone());
        let Some(constants) = constants.iter().map(literal).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let call = function.call(&constants).map_err(|error| planning(&error))?;
        let reranker = blocking(|| call.open(function.registry(), config)).map_err(|error| planning(&error))?;
        Ok(Some(RerankCall {
            expression: Arc::new(expression.clone()),
            query: Arc::clone(query),
            passage: Arc::clone(passage),
            model: CallModel::Open { name: call.model.unwrap_or_else(|| config.model.clone()), reranker },
            kind: function.kind(),
        }))
    }
}

impl PhysicalOptimizerRule for InsertRerankExec {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let config = RerankConfig::of(options);
        let scores = QueryScores::default();
        // From the top, so that a projection is seen with the operator below it that is still DataFusion's.
        let replaced = plan.transform_down(|plan| {
            if let Some(projection) = plan.downcast_ref::<ProjectionExec>()
                && projection.input().is::<AsyncFuncExec>()
                && let Some(operator) = self.replace(projection.input(), &config, &scores)?
            {
                return on_operator(projection, operator).map(Transformed::yes);
            }
            if !plan.is::<AsyncFuncExec>() {
                return Ok(Transformed::no(plan));
            }
            Ok(match self.replace(&plan, &config, &scores)? {
                Some(operator) => Transformed::yes(Arc::new(operator) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            })
        })?;
        Ok(replaced.data)
    }
}

/// The projection on the operator in place of DataFusion's. Makes room for the score columns: the variables of a lambda
/// (`array_transform(list, x -> x + 1)`) are numbered after the columns of their plan's input, and DataFusion 55
/// numbers them before it adds the columns of asynchronous functions.
fn on_operator(projection: &ProjectionExec, operator: RerankExec) -> Result<Arc<dyn ExecutionPlan>> {
    let added = operator.calls().len();
    let shift = |part: Arc<dyn PhysicalExpr>| {
        Ok(match part.downcast_ref::<LambdaVariable>() {
            Some(variable) => {
                let moved = LambdaVariable::new(variable.index() + added, Arc::clone(variable.field()));
                Transformed::yes(Arc::new(moved) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(part),
        })
    };
    let expressions = projection.expr().iter().map(|ProjectionExpr { expr, alias }| {
        Ok(ProjectionExpr { expr: Arc::clone(expr).transform_up(shift)?.data, alias: alias.clone() })
    });
    let expressions = expressions.collect::<Result<Vec<_>>>()?;
    let schema = projection.schema();
    Ok(Arc::new(ProjectionExec::try_new_with_schema_metadata(expressions, Arc::new(operator), &schema)?))
}
