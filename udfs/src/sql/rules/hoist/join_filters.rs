//! Filters by scores below joins, which wait until the join has dropped rows.
//!
//! DataFusion pushes filters below joins, where a condition with a call scores every row of its side. `SELECT id FROM t
//! JOIN u USING (k) WHERE rerank(q, p) > 1` becomes a join of `id, k, q, p` with `u`, and a filter above it. The price
//! is that the join passes the texts of all rows on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection, SubqueryAlias};

use super::rewrite::Hoist;
use crate::sql::rules::expressions::{may_fail, may_wait, substitute};

impl Hoist<'_> {
    /// Takes the conditions with calls out of the inputs of a join that only drops rows of them, and then out of the
    /// join itself. They are in terms of the join's result, which may have more columns than before. The columns that
    /// are returned with them stand for expressions with calls.
    ///
    /// Leaves them where they are if the join scores pairs to decide which rows match, since a filter below it saves
    /// those, and if it may fail, since the filter may drop the rows that make it fail.
    pub(super) fn join_filters(&self, join: Join) -> Result<(Join, Vec<Expr>, HashSet<Column>)> {
        let takes = match join.join_type {
            JoinType::Inner => [self.adds_no_pairs(&join); 2],
            JoinType::LeftSemi | JoinType::LeftAnti => [true, false],
            JoinType::RightSemi | JoinType::RightAnti => [false, true],
            JoinType::Left | JoinType::Right | JoinType::Full | JoinType::LeftMark | JoinType::RightMark => [false; 2],
        };
        if self.needs_filters_below(&join) {
            return Ok((join, Vec::new(), HashSet::new()));
        }
        let read: HashSet<Column> = self.read_by(&join).flat_map(Expr::column_refs).cloned().collect();
        let (mut taken, mut scored) = (Vec::new(), HashSet::new());
        let mut inputs = Vec::with_capacity(2);
        for (input, takes) in [&join.left, &join.right].into_iter().zip(takes) {
            let below = takes.then(|| self.take_conditions(LogicalPlan::clone(input))).transpose()?;
            match below {
                // A score that the join reads is computed below it.
                Some(below) if below.scored.is_disjoint(&read) => {
                    taken.extend(below.conditions);
                    scored.extend(below.scored);
                    inputs.push(Arc::new(below.plan));
                }
                _ => inputs.push(Arc::clone(input)),
            }
        }
        let mut filter = join.filter.clone();
        if join.join_type == JoinType::Inner && takes[0] {
            let (own, stays) = filter.map(|condition| self.split(condition)).unwrap_or_default();
            taken.extend(own);
            filter = stays;
        }
        let ([left, right], false) = (inputs.as_slice(), taken.is_empty()) else {
            return Ok((join, taken, scored));
        };
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let Join { on, join_type, join_constraint, null_equality, null_aware, .. } = join;
        let join = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
        Ok((join, taken, scored))
    }

    /// Whether a join scores pairs or may fail while it looks for matches.
    fn needs_filters_below(&self, join: &Join) -> bool {
        self.read_by(join).any(|part| self.scores(part) || may_fail(part))
    }

    /// What a join evaluates while it looks for matches. Not the conditions of an inner join that score: they leave it too.
    fn read_by<'a>(&'a self, join: &'a Join) -> impl Iterator<Item = &'a Expr> {
        let is_inner = join.join_type == JoinType::Inner;
        let conditions = join.filter.iter().flat_map(split_conjunction);
        let own = conditions.filter(move |condition| !is_inner || !self.scores(condition));
        join.on.iter().flat_map(|(left, right)| [left, right]).chain(own)
    }

    /// Takes conditions with calls out of the filters at the top of a plan, below names and further joins.
    fn take_conditions(&self, plan: LogicalPlan) -> Result<Taken> {
        match plan {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let (mut taken, stays) = self.split(predicate);
                let below = self.take_conditions(Arc::unwrap_or_clone(input))?;
                taken.extend(below.conditions);
                let plan = match stays {
                    Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(below.plan))?),
                    None => below.plan,
                };
                Ok(Taken { plan, conditions: taken, scored: below.scored })
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                let Taken { plan, conditions, scored } = self.take_conditions(Arc::unwrap_or_clone(input))?;
                let inner = plan.schema().columns();
                let alias = SubqueryAlias::try_new(Arc::new(plan), alias)?;
                let outer = alias.schema.columns();
                let scored = inner.iter().zip(&outer).filter(|(inner, _)| scored.contains(*inner));
                let scored = scored.map(|(_, outer)| outer.clone()).collect();
                let names = inner.into_iter().zip(outer.into_iter().map(Expr::Column)).collect();
                let conditions = in_terms_of(conditions, &names)?;
                Ok(Taken { plan: LogicalPlan::SubqueryAlias(alias), conditions, scored })
            }
            // What stays here is evaluated for the rows that the filters below leave.
            LogicalPlan::Projection(projection)
                if projection.expr.iter().any(|part| self.stays(part) || !self.scores(part) && may_fail(part)) =>
            {
                Ok(Taken::nothing(LogicalPlan::Projection(projection)))
            }
            LogicalPlan::Projection(Projection { mut expr, input, schema, .. }) => {
                let Taken { plan: input, conditions: taken, scored: below } =
                    self.take_conditions(Arc::unwrap_or_clone(input))?;
                let scores =
                    |part: &Expr| self.scores(part) || part.column_refs().iter().any(|read| below.contains(*read));
                let scored = expr.iter().zip(schema.columns()).filter(|(part, _)| scores(part));
                let scored: HashSet<Column> = scored.map(|(_, column)| column).collect();
                if taken.is_empty() {
                    let plan = LogicalPlan::Projection(Projection::try_new_with_schema(expr, Arc::new(input), schema)?);
                    return Ok(Taken { plan, conditions: taken, scored });
                }
                let mut names = HashMap::new();
                for (expression, column) in expr.iter().zip(schema.columns()) {
                    if let Expr::Column(inner) = expression.clone().unalias_nested().data {
                        names.entry(inner).or_insert(Expr::Column(column));
                    }
                }
                let mut read: Vec<_> = taken.iter().flat_map(Expr::column_refs).cloned().collect();
                read.sort();
                for inner in read {
                    names.entry(inner).or_insert_with_key(|inner| {
                        let name = self.next_name();
                        expr.push(Expr::Column(inner.clone()).alias(&name));
                        Expr::Column(Column::new_unqualified(name))
                    });
                }
                let plan = LogicalPlan::Projection(Projection::try_new(expr, Arc::new(input))?);
                Ok(Taken { plan, conditions: in_terms_of(taken, &names)?, scored })
            }
            LogicalPlan::Join(join) => {
                let (join, conditions, scored) = self.join_filters(join)?;
                Ok(Taken { plan: LogicalPlan::Join(join), conditions, scored })
            }
            plan => Ok(Taken::nothing(plan)),
        }
    }

    /// The parts of a condition that wait, and the rest of it. None waits if the rest scores too.
    fn split(&self, condition: Expr) -> (Vec<Expr>, Option<Expr>) {
        let parts = split_conjunction_owned(condition);
        if parts.iter().any(|part| self.stays(part)) {
            return (Vec::new(), conjunction(parts));
        }
        let (waiting, stays): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| self.scores(part));
        (waiting, conjunction(stays))
    }

    /// Whether an expression has calls and cannot wait.
    fn stays(&self, expression: &Expr) -> bool {
        self.scores(expression) && !may_wait(expression)
    }

    /// Whether a join of both inputs has no more pairs to score than they have. A row that an inner join repeats is
    /// scored once, but only if the query keeps its scores.
    pub(super) fn adds_no_pairs(&self, join: &Join) -> bool {
        join.join_type == JoinType::Inner && !join.on.is_empty() && self.keeps_scores
    }
}

/// A plan without some conditions of its filters.
struct Taken {
    plan: LogicalPlan,
    conditions: Vec<Expr>,
    /// Columns that stand for expressions with calls.
    scored: HashSet<Column>,
}

impl Taken {
    fn nothing(plan: LogicalPlan) -> Self {
        Self { plan, conditions: Vec::new(), scored: HashSet::new() }
    }
}

fn in_terms_of(conditions: Vec<Expr>, names: &HashMap<Column, Expr>) -> Result<Vec<Expr>> {
    conditions.into_iter().map(|condition| substitute(condition, names)).collect()
}
