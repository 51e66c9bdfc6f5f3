//! Filters by scores below joins, which wait until the join has dropped rows.
//!
//! DataFusion pushes filters below joins, where a condition with a call scores every row of its side. `SELECT id FROM t JOIN
//! u USING (k) WHERE rerank(q, p) > 1` becomes a join of `id, k, q, p` with `u`, and a filter above it.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection, SubqueryAlias};

use super::rewrite::Hoist;
use crate::sql::rules::expressions::{has_subquery, substitute};

impl Hoist<'_> {
    /// Takes the conditions with calls out of the inputs of a join, if the join only drops rows of that input. They are
    /// in terms of the join's result, which may have more columns than before.
    pub(super) fn join_filters(&self, join: Join) -> Result<(Join, Vec<Expr>)> {
        let [take_left, take_right] = match join.join_type {
            JoinType::Inner => [self.adds_no_pairs(&join); 2],
            JoinType::LeftSemi | JoinType::LeftAnti => [true, false],
            JoinType::RightSemi | JoinType::RightAnti => [false, true],
            JoinType::Left | JoinType::Right | JoinType::Full | JoinType::LeftMark | JoinType::RightMark => [false; 2],
        };
        let mut taken = Vec::new();
        let mut inputs = Vec::with_capacity(2);
        for (input, takes) in [(&join.left, take_left), (&join.right, take_right)] {
            if takes {
                let (input, conditions) = self.take_conditions(LogicalPlan::clone(input))?;
                taken.extend(conditions);
                inputs.push(Arc::new(input));
            } else {
                inputs.push(Arc::clone(input));
            }
        }
        let ([left, right], false) = (inputs.as_slice(), taken.is_empty()) else { return Ok((join, taken)) };
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let Join { on, filter, join_type, join_constraint, null_equality, null_aware, .. } = join;
        let join = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
        Ok((join, taken))
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
                Ok((LogicalPlan::SubqueryAlias(alias), renamed(taken, &names)?))
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
                Ok((plan, renamed(taken, &names)?))
            }
            LogicalPlan::Join(join) => {
                let (mut join, mut taken) = self.join_filters(join)?;
                if self.adds_no_pairs(&join)
                    && let Some(condition) = join.filter.take()
                {
                    let (own, stays) = self.split(condition);
                    taken.extend(own);
                    join.filter = stays;
                }
                Ok((LogicalPlan::Join(join), taken))
            }
            plan => Ok((plan, Vec::new())),
        }
    }

    /// The parts of a condition that wait, and the rest of it.
    fn split(&self, condition: Expr) -> (Vec<Expr>, Option<Expr>) {
        let waits =
            |part: &Expr| self.has_calls(std::slice::from_ref(part)) && !part.is_volatile() && !has_subquery(part);
        let (waiting, stays): (Vec<_>, Vec<_>) = split_conjunction_owned(condition).into_iter().partition(waits);
        (waiting, conjunction(stays))
    }

    /// Whether a join of both inputs has no more pairs to score than they have. A row that an inner join repeats is scored
    /// once, but only if the query keeps its scores.
    pub(super) fn adds_no_pairs(&self, join: &Join) -> bool {
        join.join_type == JoinType::Inner && !join.on.is_empty() && self.keeps_scores
    }
}

fn renamed(conditions: Vec<Expr>, names: &HashMap<Column, Expr>) -> Result<Vec<Expr>> {
    conditions.into_iter().map(|condition| substitute(condition, names)).collect()
}
