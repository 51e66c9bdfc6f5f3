//! A plan with score columns.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use crate::sql::rules::expressions::{columns_of, named};

/// A plan with score columns after its own.
pub(in crate::sql::rules) struct Scored {
    pub(in crate::sql::rules) plan: LogicalPlan,
    /// Calls that are columns of the plan, in terms of its own columns.
    pub(super) columns: Vec<(Expr, Expr)>,
}

/// Drops score columns that no node above wants.
pub(super) fn keep(scored: Scored, schema: &DFSchema, wanted: &[Expr]) -> Result<Scored> {
    let Scored { plan, columns } = scored;
    let columns: Vec<(Expr, Expr)> = columns.into_iter().filter(|(call, _)| wanted.contains(call)).collect();
    let mut expressions = columns_of(schema);
    for (_, column) in &columns {
        if !expressions.contains(column) {
            expressions.push(column.clone());
        }
    }
    if columns_of(plan.schema()) == expressions {
        return Ok(Scored { plan, columns });
    }
    let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?);
    Ok(Scored { plan, columns })
}

/// Some columns of a plan under the names of another schema, and the score columns that a node above wants.
pub(super) fn renamed(scored: Scored, positions: Vec<Column>, schema: &DFSchema, wanted: &[Expr]) -> Result<Scored> {
    let Scored { plan, columns } = scored;
    if plan.schema().columns() == schema.columns() {
        return Ok(Scored { plan, columns: Vec::new() });
    }
    let columns: Vec<(Expr, Expr)> = columns.into_iter().filter(|(call, _)| wanted.contains(call)).collect();
    let mut expressions: Vec<Expr> = positions
        .into_iter()
        .zip(schema.iter())
        .map(|(column, (qualifier, field))| named(Expr::Column(column), qualifier, field.name()))
        .collect();
    for (_, column) in &columns {
        if !expressions.contains(column) {
            expressions.push(column.clone());
        }
    }
    let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?);
    Ok(Scored { plan, columns })
}
