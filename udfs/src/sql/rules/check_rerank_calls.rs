//! Finds wrong models and options while planning.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Lambda, ScalarFunction};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::expressions::reads_lambda_variable;
use crate::sql::blocking::blocking;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::config::RerankConfig;
use crate::sql::errors::planning;
use crate::sql::function::Function;

/// Opens the model of every call with the call's options, so that an unknown model, an option that it does not have and
/// a value that it cannot honour are planning errors. Loads no weights and does not change the plan.
///
/// The functions themselves cannot do this: they see neither the session's settings nor, while planning, the values
/// inside `{..}` and `[..]`.
#[derive(Debug)]
pub(crate) struct CheckRerankCalls {
    functions: KnownFunctions,
}

impl CheckRerankCalls {
    pub(crate) const NAME: &'static str = "CheckRerankCalls";

    pub(crate) fn new(functions: KnownFunctions) -> Self {
        Self { functions }
    }

    /// Refuses calls for the elements of a list: DataFusion evaluates a lambda in the middle of an expression, where no
    /// asynchronous function can run.
    fn refuse_calls_of_elements(&self, lambda: &Lambda) -> Result<()> {
        lambda.body.apply(|part| match part {
            Expr::ScalarFunction(call)
                if call.func.as_async().is_some() && self.functions.is_call(part) && reads_lambda_variable(part) =>
            {
                let name = call.name();
                Err(DataFusionError::Plan(format!(
                    "{name} cannot score what a lambda is called with; UNNEST the list and call {name} for each element"
                )))
            }
            _ => Ok(TreeNodeRecursion::Continue),
        })?;
        Ok(())
    }
}

impl AnalyzerRule for CheckRerankCalls {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expression| {
                expression.apply(|expression| {
                    match expression {
                        Expr::ScalarFunction(call) => {
                            if let Some(function) = self.functions.find(&call.func) {
                                check(function, call, config)?;
                            }
                        }
                        Expr::Lambda(lambda) => self.refuse_calls_of_elements(lambda)?,
                        _ => {}
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }
}

/// What planning knows of an argument that must be constant.
enum Argument {
    Value(ScalarValue),
    /// Parameters of a prepared statement have no values yet.
    Later,
}

fn check(function: &Function, call: &ScalarFunction, config: &ConfigOptions) -> Result<()> {
    let mut constants = Vec::new();
    for (position, expression) in call.args.iter().enumerate().skip(2) {
        match evaluate(function, position, expression, config)? {
            Argument::Value(value) => constants.push(value),
            // Options can be checked with their values only, and only for a known model.
            Argument::Later if function.parameters().get(position) == Some(&"model") => return Ok(()),
            Argument::Later => constants.push(ScalarValue::Null),
        }
    }
    blocking(|| function.call(&constants)?.open(function.registry(), &RerankConfig::of(config)))
        .map(drop)
        .map_err(|error| planning(&error))
}

fn evaluate(function: &Function, position: usize, expression: &Expr, config: &ConfigOptions) -> Result<Argument> {
    if expression.exists(|part| Ok(matches!(part, Expr::Placeholder(_))))? {
        return Ok(Argument::Later);
    }
    let not_constant = || DataFusionError::Plan(function.not_constant(position, expression));
    if expression.any_column_refs() {
        return Err(not_constant());
    }
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(DFSchema::empty()))
        .with_config_options(Arc::new(config.clone()))
        .build();
    match ExprSimplifier::new(context).simplify(expression.clone())? {
        Expr::Literal(value, _) => Ok(Argument::Value(value)),
        _ => Err(not_constant()),
    }
}
