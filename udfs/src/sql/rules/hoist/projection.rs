//! Projections and aliases of subqueries, which give columns other names.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SubqueryAlias};

use super::rewrite::Hoist;
use super::scored::Scored;
use crate::sql::rules::expressions::{find, named, replace, sources, substitute, union};

impl Hoist<'_> {
    pub(super) fn projection(&self, projection: Projection, wanted: &[Expr]) -> Result<Scored> {
        let sources = sources(&projection);
        let Projection { expr, input, schema, .. } = projection;
        let below: Vec<Expr> = wanted.iter().map(|call| substitute(call.clone(), &sources)).collect::<Result<_>>()?;
        let own = self.calls(&expr)?;
        let scored = self.rewrite(Arc::unwrap_or_clone(input), &union(&own, &below))?;
        let expr = self.guard(expr, &scored.columns, &[])?;
        let Scored { plan, columns } = self.compute(scored, &self.nested(&self.calls(&expr)?)?)?;
        let mut columns_above = Vec::new();
        let mut carried = Vec::new();
        for (call, below) in wanted.iter().zip(&below) {
            // A column of the projection itself may be the call.
            let own = schema.columns().into_iter().find(|column| sources.get(column) == Some(below));
            if let Some(column) = own {
                columns_above.push((call.clone(), Expr::Column(column)));
            } else if let Some(column) = find(&columns, below) {
                columns_above.push((call.clone(), column.clone()));
                if !carried.contains(column) {
                    carried.push(column.clone());
                }
            }
        }
        let mut expressions = Vec::with_capacity(expr.len());
        for (expression, (qualifier, field)) in expr.into_iter().zip(schema.iter()) {
            expressions.push(named(replace(expression, &columns)?, qualifier, field.name()));
        }
        expressions.extend(carried);
        let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?);
        Ok(Scored { plan, columns: columns_above })
    }

    pub(super) fn alias(&self, alias: SubqueryAlias, wanted: &[Expr]) -> Result<Scored> {
        let inner = alias.input.schema().columns().into_iter().map(Expr::Column);
        let sources: HashMap<Column, Expr> = alias.schema.columns().into_iter().zip(inner).collect();
        let below: Vec<Expr> = wanted.iter().map(|call| substitute(call.clone(), &sources)).collect::<Result<_>>()?;
        let Scored { plan, columns } = self.rewrite(Arc::unwrap_or_clone(alias.input), &below)?;
        let positions = plan.schema().columns();
        let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.alias)?);
        let outer: HashMap<Column, Column> = positions.into_iter().zip(plan.schema().columns()).collect();
        let columns = wanted.iter().zip(&below).filter_map(|(call, below)| {
            let Some(Expr::Column(column)) = find(&columns, below) else { return None };
            Some((call.clone(), Expr::Column(outer.get(column)?.clone())))
        });
        Ok(Scored { columns: columns.collect(), plan })
    }
}
