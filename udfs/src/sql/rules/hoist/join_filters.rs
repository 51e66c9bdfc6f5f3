//! Filters by scores below joins, which wait until the join has dropped rows.
//!
//! DataFusion pushes filters below joins, where a condition with a call scores every row of its side. `SELECT id FROM t
//! JOIN u USING (k) WHERE rerank(q, p) > 1` becomes a join of `id, k, q, p` with `u`, and a filter above it. The price
//! is that the join passes the texts of all rows on.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection, SubqueryAlias};

use super::rewrite::Hoist;
use crate::sql::rules::expressions::{may_fail, may_wait, substitute};

impl Hoist<'_> {
    /// Takes the conditions with calls out of the inputs of a join that only drops rows of them, and then out of the
    /// join itself. They are in terms of the join's result, which may have more columns than before.
    ///
    /// Leaves them where they are if the join scores pairs to decide which rows match, since a filter below it saves
    /// those, and if it may fail, since the filter may drop the rows that make it fail.
    pub(super) fn join_filters(&self, join: Join) -> Result<(Join, Vec<Expr>)> {
        let takes = match join.join_type {
            JoinType::Inner => [self.adds_no_pairs(&join); 2],
            JoinType::LeftSemi | JoinType::LeftAnti => [true, false],
            JoinType::RightSemi | JoinType::RightAnti => [false, true],
            JoinType::Left | JoinType::Right | JoinType::Full | JoinType::LeftMark | JoinType::RightMark => [false; 2],
        };
        if self.needs_filters_below(&join) {
            return Ok((join, Vec::new()));
        }
        let mut taken = Vec::new();
        let mut inputs = Vec::with_capacity(2);
        for (input, takes) in [&join.left, &join.right].into_iter().zip(takes) {
            if takes {
                let (input, conditions) = self.take_conditions(LogicalPlan::clone(input))?;
                taken.extend(conditions);
                inputs.push(Arc::new(input));
            } else {
                inputs.push(Arc::clone(input));
            }
        }
        let mut filter = join.filter.clone();
        if join.join_type == JoinType::Inner && takes[0] {
            let (own, stays) = filter.map(|condition| self.split(condition)).unwrap_or_default();
            taken.extend(own);
            filter = stays;
        }
        let ([left, right], false) = (inputs.as_slice(), taken.is_empty()) else { return Ok((join, taken)) };
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let Join { on, join_type, join_constraint, null_equality, null_aware, .. } = join;
        let join = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
        Ok((join, taken))
    }

    /// Whether a join scores pairs or may fail while it looks for matches. Conditions of an inner join that score do not
    /// count: they leave it too.
    fn needs_filters_below(&self, join: &Join) -> bool {
        let is_inner = join.join_type == JoinType::Inner;
        let conditions = join.filter.iter().flat_map(split_conjunction);
        let own = conditions.filter(|condition| !is_inner || !self.scores(condition));
        let keys = join.on.iter().flat_map(|(left, right)| [left, right]);
        keys.chain(own).any(|part| self.scores(part) || may_fail(part))
    }

    /// Takes conditions with calls out of the filters at the top of a plan, below names and further joins.
    fn take_conditions(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Expr>)> {
        match plan {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let (mut taken, stays) = self.split(predicate);
                let (input, below) = self.take_conditions(Arc::unwrap_or_clone(input))?;
                taken.extend(below);
                let plan = match stays {
                    Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?),
                    None => input,
                };
                Ok((plan, taken))
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                let (input, taken) = self.take_conditions(Arc::unwrap_or_clone(input))?;
                let inner = input.schema().columns();
                let alias = SubqueryAlias::try_new(Arc::new(input), alias)?;
                let outer = alias.schema.columns().into_iter().map(Expr::Column);
                let names: HashMap<Column, Expr> = inner.into_iter().zip(outer).collect();
                Ok((LogicalPlan::SubqueryAlias(alias), in_terms_of(taken, &names)?))
            }
            // What stays here is evaluated for the rows that the filters below leave.
            LogicalPlan::Projection(projection)
                if projection.expr.iter().any(|part| self.stays(part) || !self.scores(part) && may_fail(part)) =>
            {
                Ok((LogicalPlan::Projection(projection), Vec::new()))
            }
            LogicalPlan::Projection(Projection { mut expr, input, schema, .. }) => {
                let (input, taken) = self.take_conditions(Arc::unwrap_or_clone(input))?;
                if taken.is_empty() {
                    let projection = Projection::try_new_with_schema(expr, Arc::new(input), schema)?;
                    return Ok((LogicalPlan::Projection(projection), taken));
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
                Ok((plan, in_terms_of(taken, &names)?))
            }
            LogicalPlan::Join(join) => {
                let (join, taken) = self.join_filters(join)?;
                Ok((LogicalPlan::Join(join), taken))
            }
            plan => Ok((plan, Vec::new())),
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

    fn scores(&self, expression: &Expr) -> bool {
        self.has_calls(std::slice::from_ref(expression))
    }

    /// Whether a join of both inputs has no more pairs to score than they have. A row that an inner join repeats is
    /// scored once, but only if the query keeps its scores.
    pub(super) fn adds_no_pairs(&self, join: &Join) -> bool {
        join.join_type == JoinType::Inner && !join.on.is_empty() && self.keeps_scores
    }
}

fn in_terms_of(conditions: Vec<Expr>, names: &HashMap<Column, Expr>) -> Result<Vec<Expr>> {
    conditions.into_iter().map(|condition| substitute(condition, names)).collect()
}
