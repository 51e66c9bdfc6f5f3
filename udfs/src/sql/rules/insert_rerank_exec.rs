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
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
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
        let mut inserted = false;
        let replaced = plan.transform_up(|plan| {
            if !plan.is::<AsyncFuncExec>() {
                return Ok(Transformed::no(plan));
            }
            Ok(match self.replace(&plan, &config, &scores)? {
                Some(operator) => {
                    inserted = true;
                    Transformed::yes(Arc::new(operator) as Arc<dyn ExecutionPlan>)
                }
                None => Transformed::no(plan),
            })
        })?;
        if !inserted {
            return Ok(replaced.data);
        }
        Ok(replaced.data.transform_up(with_distant_lambda_variables)?.data)
    }
}

/// Added to the numbers of lambdas' variables.
const DISTANCE: usize = 1 << 20;

/// Keeps the variables of lambdas (`array_transform(list, x -> x + 1)`) apart from columns. They are numbered after the
/// columns of their plan's input when DataFusion 55 plans it. It does not number them anew when it adds the columns of
/// asynchronous functions, nor when it merges a projection into the one above, and then reads a column in their place. It
/// tells the two apart by whether the input has a column of that number.
fn with_distant_lambda_variables(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut moved = false;
    let mut distant = |expression: &Arc<dyn PhysicalExpr>| -> Result<Arc<dyn PhysicalExpr>> {
        let expression = Arc::clone(expression).transform_up(|part| {
            Ok(match part.downcast_ref::<LambdaVariable>() {
                Some(variable) if variable.index() < DISTANCE => {
                    let variable = LambdaVariable::new(variable.index() + DISTANCE, Arc::clone(variable.field()));
                    Transformed::yes(Arc::new(variable) as Arc<dyn PhysicalExpr>)
                }
                _ => Transformed::no(part),
            })
        })?;
        moved |= expression.transformed;
        Ok(expression.data)
    };
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let expressions = projection
            .expr()
            .iter()
            .map(|ProjectionExpr { expr, alias }| Ok(ProjectionExpr { expr: distant(expr)?, alias: alias.clone() }));
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        if moved {
            let (input, schema) = (Arc::clone(projection.input()), projection.schema());
            let plan = ProjectionExec::try_new_with_schema_metadata(expressions, input, &schema)?;
            return Ok(Transformed::yes(Arc::new(plan)));
        }
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let predicate = distant(filter.predicate())?;
        if moved {
            let filter = FilterExecBuilder::from(filter).with_predicate(predicate).build()?;
            return Ok(Transformed::yes(Arc::new(filter)));
        }
    }
    Ok(Transformed::no(plan))
}
