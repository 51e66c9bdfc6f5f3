//! A plan with score columns.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Sort, SortExpr};

use super::rewrite::Hoist;
use crate::sql::rules::expressions::{columns_of, named, replace, substitute};
use crate::sql::rules::needs::{Need, needs, union};

/// A rewritten plan. It may have more columns than before, in another order; those of its own have generated names.
#[derive(Default)]
pub(in crate::sql::rules) struct Scored {
    pub(in crate::sql::rules) plan: LogicalPlan,
    /// Calls that are columns of the plan, in terms of its columns.
    pub(super) columns: Vec<(Expr, Expr)>,
    /// What stands for the columns that the plan no longer has: another column, or an expression that is evaluated
    /// further up, calls included.
    pub(super) sources: HashMap<Column, Expr>,
    /// How the rows are sorted, if they are and what is evaluated above must keep it.
    pub(super) order: Vec<SortExpr>,
}

/// Whether rows are dropped further up, so that a call had better wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql::rules) enum Late {
    /// Calls are columns of the result.
    No,
    /// Calls may be among [`Scored::sources`].
    Yes,
}

impl Scored {
    pub(super) fn of(plan: LogicalPlan) -> Self {
        Self { plan, columns: Vec::new(), sources: HashMap::new(), order: Vec::new() }
    }

    /// An expression over the columns of the original plan, in terms of this one. Calls that are columns are replaced.
    pub(super) fn translate(&self, expression: Expr) -> Result<Expr> {
        replace(substitute(expression, &self.sources)?, &self.columns)
    }

    pub(super) fn translate_all(&self, expressions: impl IntoIterator<Item = Expr>) -> Result<Vec<Expr>> {
        expressions.into_iter().map(|part| self.translate(part)).collect()
    }

    /// The calls that nodes above read, in terms of this plan: those that they ask for, and those in its sources.
    pub(super) fn read_above(&self, hoist: &Hoist<'_>, wanted: &[Need]) -> Result<Vec<Need>> {
        let (_, sources) = self.sorted_sources();
        Ok(union(self.translate_needs(wanted)?, needs(hoist.functions, &sources)?))
    }

    /// In a fixed order, so that a query always has the same plan.
    fn sorted_sources(&self) -> (Vec<Column>, Vec<Expr>) {
        let mut sources: Vec<_> = self.sources.clone().into_iter().collect();
        sources.sort_by(|(one, _), (other, _)| one.cmp(other));
        sources.into_iter().unzip()
    }

    pub(super) fn translate_needs(&self, wanted: &[Need]) -> Result<Vec<Need>> {
        wanted.iter().map(|need| need.substitute(&self.sources)).collect()
    }

    /// Uses the columns that have been added in the meantime.
    pub(super) fn refresh(mut self) -> Result<Self> {
        let columns = &self.columns;
        self.sources =
            self.sources.into_iter().map(|(of, source)| Ok((of, replace(source, columns)?))).collect::<Result<_>>()?;
        Ok(self)
    }

    /// Makes columns stand for those of the original plan that had another name, unless something else does already.
    pub(super) fn stand_for(&mut self, original: Vec<Column>, columns: Vec<Column>) {
        for (original, column) in original.into_iter().zip(columns) {
            if original != column {
                self.sources.entry(original).or_insert(Expr::Column(column));
            }
        }
    }

    /// Exactly the columns of the original plan.
    pub(super) fn restore(self, schema: &DFSchema) -> Result<LogicalPlan> {
        let columns = schema.columns();
        if self.plan.schema().columns() == columns {
            return Ok(self.plan);
        }
        let expressions = columns.into_iter().zip(schema.iter()).map(|(column, (qualifier, field))| {
            let source = self.sources.get(&column).cloned().unwrap_or(Expr::Column(column));
            named(source, qualifier, field.name())
        });
        Ok(LogicalPlan::Projection(Projection::try_new(expressions.collect(), Arc::new(self.plan))?))
    }
}

impl Hoist<'_> {
    /// Computes the calls in sources, unless they had better wait.
    pub(super) fn settle(&self, scored: Scored, late: Late, wanted: &[Need]) -> Result<Scored> {
        if late == Late::Yes || scored.sources.is_empty() {
            return Ok(scored);
        }
        let wanted = scored.translate_needs(wanted)?;
        let (of, sources) = scored.sorted_sources();
        let (mut scored, sources) = self.score(scored, sources, &wanted)?;
        scored.sources = of.into_iter().zip(sources).collect();
        if scored.order.is_empty() {
            return Ok(scored);
        }
        // DataFusion spreads rows over more partitions to evaluate expressions, unless a sort above needs their order.
        // If they stay in order, it drops the sort.
        let mut scored = self.materialize(scored, |source| matches!(source, Expr::Column(_)))?;
        let expr = std::mem::take(&mut scored.order);
        scored.plan = LogicalPlan::Sort(Sort { expr, input: Arc::new(scored.plan), fetch: None });
        Ok(scored)
    }

    /// Makes columns of the sources that do not satisfy a condition.
    pub(super) fn materialize(&self, scored: Scored, stays: impl Fn(&Expr) -> bool) -> Result<Scored> {
        let mut leaving: Vec<Column> =
            scored.sources.iter().filter(|(_, source)| !stays(source)).map(|(of, _)| of.clone()).collect();
        leaving.sort();
        if leaving.is_empty() {
            return Ok(scored);
        }
        let sources = leaving.iter().map(|of| scored.sources[of].clone()).collect();
        let (mut scored, sources) = self.score(scored, sources, &[])?;
        let columns = self.columns_for(&mut scored, sources)?;
        scored.sources.extend(leaving.into_iter().zip(columns));
        Ok(scored)
    }

    /// Makes columns of expressions that are not.
    pub(super) fn columns_for(&self, scored: &mut Scored, expressions: Vec<Expr>) -> Result<Vec<Expr>> {
        let is_column = |expression: &Expr| matches!(expression, Expr::Column(_));
        if expressions.iter().all(is_column) {
            return Ok(expressions);
        }
        let mut projected = columns_of(scored.plan.schema());
        let mut columns = Vec::with_capacity(expressions.len());
        for expression in expressions {
            if is_column(&expression) {
                columns.push(expression);
                continue;
            }
            let name = self.next_name();
            projected.push(expression.alias(&name));
            columns.push(Expr::Column(Column::new_unqualified(name)));
        }
        let plan = std::mem::take(&mut scored.plan);
        scored.plan = LogicalPlan::Projection(Projection::try_new(projected, Arc::new(plan))?);
        Ok(columns)
    }

    /// Names expressions that have become the same, because they read the same call: a node has no two columns of a
    /// name.
    pub(super) fn tell_apart(&self, expressions: &mut [Expr]) {
        for place in 1..expressions.len() {
            let (before, rest) = expressions.split_at_mut(place);
            if before.contains(&rest[0]) && !matches!(rest[0], Expr::GroupingSet(_)) {
                rest[0] = std::mem::take(&mut rest[0]).alias(self.next_name());
            }
        }
    }
}
