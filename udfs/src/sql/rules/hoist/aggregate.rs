//! Aggregates.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, lit};

use super::rewrite::Hoist;
use super::scored::{Late, Scored};
use crate::sql::kept_field::KeptField;
use crate::sql::rules::expressions::{has_subquery, substitute};
use crate::sql::rules::needs::needs;

impl Hoist<'_> {
    /// A call in `first_value(.. ORDER BY ..)`, which is what DISTINCT ON becomes, waits for the row that is chosen:
    /// its columns are chosen instead, as a struct, so that they come from one row.
    pub(super) fn aggregate(&self, aggregate: Aggregate, late: Late) -> Result<Scored> {
        let groups = aggregate.group_expr.len();
        let expressions = [aggregate.group_expr, aggregate.aggr_expr].concat();
        let own = needs(self.functions, &expressions)?;
        let scored = self.rewrite(Arc::unwrap_or_clone(aggregate.input), &own, Late::Yes)?;
        let mut expressions = scored.translate_all(expressions)?;
        // Without groups, or with a set of none, there may be a row without a chosen one.
        let chooses = groups > 0 && !expressions.iter().any(|part| matches!(part, Expr::GroupingSet(_)));
        // For each aggregate, the place of what is computed for it, and what is evaluated above in terms of that.
        let mut computed_at = Vec::new();
        let mut kept: Vec<Expr> = Vec::new();
        for expression in expressions.split_off(groups) {
            let expression = without_repeated_keys(expression);
            let (expression, value) = match self.choose_columns(&expression).filter(|_| chooses) {
                Some((columns, value)) => (columns, Some(value)),
                None => (expression, None),
            };
            // Two values may be chosen from the same columns.
            let same = value.as_ref().and_then(|_| kept.iter().position(|other| *other == expression));
            computed_at.push((same.unwrap_or(kept.len()), value));
            if same.is_none() {
                kept.push(expression);
            }
        }
        for (place, _) in computed_at.iter().filter(|(_, value)| value.is_some()) {
            if !matches!(kept[*place], Expr::Alias(_)) {
                kept[*place] = std::mem::take(&mut kept[*place]).alias(self.next_name());
            }
        }
        expressions.extend(kept);
        let (scored, mut group_expr) = self.score(scored, expressions, &[])?;
        self.tell_apart(&mut group_expr);
        let aggr_expr = group_expr.split_off(groups);
        let computed = aggr_expr.len();
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(scored.plan), group_expr, aggr_expr)?);
        let mut scored = Scored::of(plan);
        let (mut original, mut columns) = (aggregate.schema.columns(), scored.plan.schema().columns());
        let aggregates = original.split_off(original.len() - computed_at.len());
        // Grouping sets have more columns than expressions.
        let computed = columns.split_off(columns.len() - computed);
        for (of, (place, value)) in aggregates.into_iter().zip(computed_at) {
            let column = Expr::Column(computed[place].clone());
            match value {
                Some(value) => {
                    let chosen = HashMap::from([(chosen_columns(), column)]);
                    scored.sources.insert(of, substitute(value, &chosen)?);
                }
                None => scored.stand_for(vec![of], vec![computed[place].clone()]),
            }
        }
        scored.stand_for(original, columns);
        self.settle(scored, late, &[])
    }

    /// For `first_value(e)` or `last_value(e)` of an expression with calls: the same function of a struct of the
    /// columns of `e`, and `e` in terms of it.
    fn choose_columns(&self, expression: &Expr) -> Option<(Expr, Expr)> {
        let inner = if let Expr::Alias(alias) = expression { &alias.expr } else { expression };
        let Expr::AggregateFunction(function) = inner else { return None };
        let params = &function.params;
        let [value] = params.args.as_slice() else { return None };
        let waits = matches!(function.func.name(), "first_value" | "last_value")
            && !params.distinct
            && params.filter.is_none()
            && params.null_treatment != Some(NullTreatment::IgnoreNulls)
            && self.scores(value)
            && !params.order_by.iter().any(|key| self.scores(&key.expr))
            && !value.is_volatile()
            && !has_subquery(value);
        if !waits {
            return None;
        }
        let mut columns: Vec<Column> = value.column_refs().into_iter().cloned().collect();
        columns.sort();
        let (mut fields, mut sources) = (Vec::new(), HashMap::new());
        for (place, column) in columns.into_iter().enumerate() {
            let field = format!("c{place}");
            fields.extend([lit(&field), Expr::Column(column.clone())]);
            sources.insert(column, KeptField::of(Expr::Column(chosen_columns()), &field));
        }
        if fields.is_empty() {
            return None;
        }
        let mut function = function.clone();
        function.params.args = vec![named_struct(fields)];
        Some((Expr::AggregateFunction(function), substitute(value.clone(), &sources).ok()?))
    }
}

/// The aggregate sorted by each key once. `DISTINCT ON` repeats its expressions among the keys, and where these are
/// columns of scores, DataFusion 55 panics.
fn without_repeated_keys(mut expression: Expr) -> Expr {
    let inner = if let Expr::Alias(alias) = &mut expression { alias.expr.as_mut() } else { &mut expression };
    if let Expr::AggregateFunction(function) = inner {
        let keys = &mut function.params.order_by;
        let mut known: Vec<Expr> = Vec::with_capacity(keys.len());
        keys.retain(|key| {
            let is_new = !known.contains(&key.expr);
            known.extend(is_new.then(|| key.expr.clone()));
            is_new
        });
    }
    expression
}

/// Stands for the struct of chosen columns until its name is known.
fn chosen_columns() -> Column {
    Column::new_unqualified("__rerank_chosen")
}
