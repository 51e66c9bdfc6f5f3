//! Projections and aliases of subqueries, which give columns other names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SortExpr, SubqueryAlias};

use super::rewrite::Hoist;
use super::scored::{Late, Scored};
use crate::sql::rules::expressions::{MOST_NODES, find, may_wait, named, size, sources, substitute};
use crate::sql::rules::needs::{Need, needs, union};

impl Hoist<'_> {
    pub(super) fn projection(&self, projection: Projection, wanted: &[Need], late: Late) -> Result<Scored> {
        let sources = sources(&projection);
        let Projection { expr, input, schema, .. } = projection;
        let below = renamed(wanted, &sources)?;
        let own = needs(self.functions, &expr)?;
        let scored = self.rewrite(Arc::unwrap_or_clone(input), &union(own, below.clone()), late)?;

        // Expressions with calls that had better wait, and the others.
        let mut waiting = BTreeMap::new();
        let mut expressions = Vec::new();
        let mut columns = Vec::new();
        for ((expression, column), (qualifier, field)) in expr.into_iter().zip(schema.columns()).zip(schema.iter()) {
            let expression = scored.translate(expression)?;
            let waits = late == Late::Yes && may_wait(&expression);
            if waits && self.scores(&expression) {
                waiting.insert(column, expression.unalias_nested().data);
            } else {
                expressions.push(expression);
                columns.push((column, qualifier, field));
            }
        }
        let waiting_calls: Vec<Expr> = waiting.values().cloned().collect();
        let above = union(scored.read_above(self, &below)?, needs(self.functions, &waiting_calls)?);
        let (scored, expressions) = self.score(scored, expressions, &above)?;
        let mut projected = Vec::with_capacity(expressions.len());
        let mut columns_above = Vec::new();
        // The columns above that stand for columns below.
        let mut outer: HashMap<Expr, Expr> = HashMap::new();
        for (expression, (column, qualifier, field)) in expressions.into_iter().zip(columns) {
            let inner = expression.clone().unalias_nested().data;
            if matches!(inner, Expr::Column(_)) {
                outer.entry(inner).or_insert_with(|| Expr::Column(column));
            }
            projected.push(named(expression, qualifier, field.name()));
        }
        let mut carry = |inner: &Expr| {
            let carried = outer.entry(inner.clone()).or_insert_with(|| {
                let name = self.next_name();
                projected.push(inner.clone().alias(&name));
                Expr::Column(Column::new_unqualified(name))
            });
            carried.clone()
        };
        for (Need { call, .. }, below) in wanted.iter().zip(&below) {
            if let Some(column) = find(&scored.columns, &substitute(below.call.clone(), &scored.sources)?) {
                columns_above.push((call.clone(), carry(column)));
            }
        }
        let mut sources = HashMap::new();
        for (column, source) in waiting {
            let source = scored.translate(source)?;
            let mut carried = HashMap::new();
            let mut columns: Vec<_> = source.column_refs().into_iter().collect();
            columns.sort();
            for inner in columns {
                carried.insert(inner.clone(), carry(&Expr::Column(inner.clone())));
            }
            sources.insert(column, substitute(source, &carried)?);
        }
        let mut order = Vec::new();
        // Only rows whose expressions wait are evaluated further up.
        for key in scored.order.iter().filter(|_| late == Late::Yes) {
            let mut carried = HashMap::new();
            for inner in key.expr.column_refs() {
                carried.insert(inner.clone(), carry(&Expr::Column(inner.clone())));
            }
            order.push(SortExpr { expr: substitute(key.expr.clone(), &carried)?, ..key.clone() });
        }
        let columns = columns_above.into_iter().map(|(call, column)| Ok((substitute(call, &sources)?, column)));
        let columns = columns.collect::<Result<_>>()?;
        let plan = LogicalPlan::Projection(Projection::try_new(projected, Arc::new(scored.plan))?);
        Ok(Scored { plan, columns, sources, order })
    }

    pub(super) fn alias(&self, alias: SubqueryAlias, wanted: &[Need], late: Late) -> Result<Scored> {
        let inner = alias.input.schema().columns().into_iter().map(Expr::Column);
        let names: HashMap<Column, Expr> = alias.schema.columns().into_iter().zip(inner).collect();
        let below = renamed(wanted, &names)?;
        let Scored { plan, columns, sources, order } = self.rewrite(Arc::unwrap_or_clone(alias.input), &below, late)?;
        let positions = plan.schema().columns();
        let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.alias)?);
        let outer: HashMap<Column, Expr> =
            positions.into_iter().zip(plan.schema().columns().into_iter().map(Expr::Column)).collect();
        let mut sources_above = HashMap::new();
        for (of, inner) in names {
            let Expr::Column(inner) = inner else { continue };
            if let Some(source) = sources.get(&inner) {
                sources_above.insert(of, substitute(source.clone(), &outer)?);
            }
        }
        let mut columns_above = Vec::new();
        for (Need { call, .. }, below) in wanted.iter().zip(below) {
            if let Some(column) = find(&columns, &substitute(below.call, &sources)?) {
                columns_above.push((substitute(call.clone(), &sources_above)?, substitute(column.clone(), &outer)?));
            }
        }
        let order = order.into_iter().map(|key| Ok(SortExpr { expr: substitute(key.expr, &outer)?, ..key }));
        Ok(Scored { plan, columns: columns_above, sources: sources_above, order: order.collect::<Result<_>>()? })
    }
}

/// The calls that a node above asks for, in terms of the node's input. Without those that would then be evaluated a
/// second time with another result, or that would be very long.
fn renamed(wanted: &[Need], sources: &HashMap<Column, Expr>) -> Result<Vec<Need>> {
    let mut needs = Vec::with_capacity(wanted.len());
    for need in wanted {
        let need = need.substitute(sources)?;
        let steady = need
            .places
            .iter()
            .flatten()
            .chain([&need.call])
            .all(|part| !part.is_volatile() && size(part) <= MOST_NODES);
        // A call that nothing asks for keeps its place in the list.
        needs.push(if steady { need } else { Need { call: Expr::default(), places: Vec::new() } });
    }
    Ok(needs)
}
