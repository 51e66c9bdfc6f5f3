//! Expressions, calls and columns, independent of the plan around them.

use std::collections::HashMap;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, Projection};

use crate::sql::catalogue::KnownFunctions;

/// The expression with columns in place of calls.
pub(super) fn replace(expression: Expr, columns: &[(Expr, Expr)]) -> Result<Expr> {
    let replaced = expression.transform_down(|part| {
        Ok(match find(columns, &part) {
            Some(column) => Transformed::new(column.clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        })
    })?;
    Ok(replaced.data)
}

/// The column that stands for a call.
pub(super) fn find<'a>(columns: &'a [(Expr, Expr)], call: &Expr) -> Option<&'a Expr> {
    columns.iter().find(|(of, _)| of == call).map(|(_, column)| column)
}

/// The name of the function that an expression calls.
pub(super) fn name_of(call: &Expr) -> &str {
    match call {
        Expr::ScalarFunction(call) => call.name(),
        _ => "the function",
    }
}

/// What the columns of a projection stand for.
pub(super) fn sources(projection: &Projection) -> HashMap<Column, Expr> {
    let expressions = projection.expr.iter().map(|expr| expr.clone().unalias_nested().data);
    projection.schema.columns().into_iter().zip(expressions).collect()
}

/// The expression with its columns replaced by what they stand for.
pub(super) fn substitute(expression: Expr, sources: &HashMap<Column, Expr>) -> Result<Expr> {
    let replaced = expression.transform_down(|part| {
        let source = if let Expr::Column(column) = &part { sources.get(column).cloned() } else { None };
        Ok(match source {
            Some(source) => Transformed::new(source, true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        })
    })?;
    Ok(replaced.data)
}

/// Whether a call reads only columns of a plan.
pub(super) fn reads_only(call: &Expr, schema: &DFSchema) -> bool {
    call.column_refs().iter().all(|column| schema.has_column(column))
}

/// The columns of a plan as expressions.
pub(super) fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// The expression under a name, if it has another.
pub(super) fn named(expression: Expr, qualifier: Option<&TableReference>, name: &str) -> Expr {
    let (own_qualifier, own_name) = expression.qualified_name();
    if own_qualifier.as_ref() == qualifier && own_name == name {
        return expression;
    }
    expression.alias_qualified(qualifier.cloned(), name)
}

/// A call in an expression, if there is one.
pub(super) fn has_call(expression: &Expr, functions: &KnownFunctions) -> Option<Expr> {
    let mut found = None;
    let visited = expression.apply(|part| {
        Ok(if functions.is_call(part) {
            found = Some(part.clone());
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    visited.ok().and(found)
}

/// Whether an expression reads a variable of a lambda around it: `x + 1` in `x -> x + 1` does, the lambda does not.
pub(super) fn reads_lambda_variable(expression: &Expr) -> bool {
    reads_free_variable(expression, &mut Vec::new())
}

fn reads_free_variable(expression: &Expr, bound: &mut Vec<String>) -> bool {
    match expression {
        Expr::LambdaVariable(variable) => !bound.contains(&variable.name),
        Expr::Lambda(lambda) => {
            let outer = bound.len();
            bound.extend(lambda.params.iter().cloned());
            let found = reads_free_variable(&lambda.body, bound);
            bound.truncate(outer);
            found
        }
        other => {
            let mut found = false;
            let visited = other.apply_children(|child| {
                found = reads_free_variable(child, bound);
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            });
            // Visiting cannot fail.
            found || visited.is_err()
        }
    }
}

pub(super) fn has_subquery(expression: &Expr) -> bool {
    let is_subquery = |part: &Expr| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)));
    // Visiting cannot fail.
    expression.exists(is_subquery).unwrap_or(true)
}

/// Whether an expression is a call whose result is NULL where the row of its columns is. The struct of `rerank_details`
/// never is.
pub(super) fn is_null_with_its_row(expression: &Expr, functions: &KnownFunctions) -> bool {
    let Expr::ScalarFunction(call) = expression else { return false };
    functions.find(&call.func).is_some_and(|function| function.kind().is_null_with_its_texts())
        && call.args.iter().take(2).any(|text| matches!(text, Expr::Column(_)))
}

/// Whether evaluating an expression for a row may be an error: all but columns, constants and their concatenations and
/// conditions may.
pub(super) fn may_fail(expression: &Expr) -> bool {
    match expression {
        Expr::Column(_) | Expr::Literal(..) => false,
        Expr::Alias(alias) => may_fail(&alias.expr),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) | Expr::IsTrue(inner) | Expr::IsNotTrue(inner) => may_fail(inner),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let total = matches!(
                op,
                Operator::StringConcat
                    | Operator::And
                    | Operator::Or
                    | Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq
                    | Operator::IsDistinctFrom
                    | Operator::IsNotDistinctFrom
            );
            !total || may_fail(left) || may_fail(right)
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let branches = when_then_expr.iter().flat_map(|(when, then)| [when, then]);
            expr.iter().chain(branches).chain(else_expr).any(|part| may_fail(part))
        }
        _ => true,
    }
}

/// The most parts of an expression that waits, or of a condition that is passed down: what it stands for is written out
/// at each place that reads it, on each level of a plan.
pub(super) const MOST_NODES: usize = 256;

/// Whether an expression may be evaluated further up, after rows were dropped.
pub(super) fn may_wait(expression: &Expr) -> bool {
    !expression.is_volatile() && !has_subquery(expression) && size(expression) <= MOST_NODES
}

/// The number of an expression's parts.
pub(super) fn size(expression: &Expr) -> usize {
    let mut parts = 0;
    let counted = expression.apply(|_| {
        parts += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    // Visiting cannot fail.
    counted.map_or(usize::MAX, |_| parts)
}
