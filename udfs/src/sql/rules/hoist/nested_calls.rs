//! Separates calls that another rule has merged.
//!
//! Plans are optimized several times. DataFusion merges a projection into the one above it, and may so put a call into
//! the arguments of another, or into a lambda. Two nested calls would share one operator, which evaluates neither for
//! the other. In a lambda no operator can compute a call.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::rewrite::Hoist;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::rules::expressions::{columns_of, named, replace};

impl Hoist<'_> {
    /// Gives placed calls in arguments of others and in lambdas a projection below.
    pub(in crate::sql::rules) fn separate_nested_calls(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Projection(projection) => self.separate(projection),
            node => Ok(Transformed::no(node)),
        })
    }

    fn separate(&self, projection: Projection) -> Result<Transformed<LogicalPlan>> {
        let mut inner = Vec::new();
        for expression in &projection.expr {
            collect_nested_calls(expression, false, self.functions, &mut inner)?;
        }
        if inner.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Projection(projection)));
        }
        let Projection { expr, input, schema, .. } = projection;
        let mut below = columns_of(input.schema());
        let mut columns = Vec::new();
        for call in inner {
            let name = self.next_name();
            below.push(call.clone().alias(&name));
            columns.push((call, Expr::Column(Column::new_unqualified(name))));
        }
        let below = self.separate(Projection::try_new(below, input)?)?.data;
        let expressions = expr
            .into_iter()
            .zip(schema.iter())
            .map(|(part, (qualifier, field))| Ok(named(replace(part, &columns)?, qualifier, field.name())));
        let expressions = expressions.collect::<Result<_>>()?;
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(below))?)))
    }
}

/// Whether a placed call stands in the arguments of another, or in a lambda.
pub(in crate::sql::rules) fn has_nested_call(expression: &Expr, functions: &KnownFunctions) -> Result<bool> {
    let mut nested = Vec::new();
    collect_nested_calls(expression, false, functions, &mut nested)?;
    Ok(!nested.is_empty())
}

/// The outermost placed calls within arguments of others and within lambdas.
fn collect_nested_calls(part: &Expr, within: bool, functions: &KnownFunctions, nested: &mut Vec<Expr>) -> Result<()> {
    let is_placed = functions.is_placed_call(part);
    let is_lambda = matches!(part, Expr::Lambda(_));
    if is_placed && within {
        if !nested.contains(part) {
            nested.push(part.clone());
        }
        return Ok(());
    }
    part.apply_children(|child| {
        collect_nested_calls(child, within || is_placed || is_lambda, functions, nested)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
