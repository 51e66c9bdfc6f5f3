//! `EXISTS`, `NOT EXISTS` and `IN` whose condition calls with texts of both sides.
//!
//! Such a join has no rows to score: it only asks whether there is a match. It becomes an outer join whose rows are
//! scored, and an aggregate that asks for each row of the first side whether one of its matches counts:
//!
//! ```text
//! LeftSemi Join: t.id = u.id Filter: rerank(t.q, u.p) > 0
//!   t
//!   u
//! ```
//!
//! becomes
//!
//! ```text
//! Filter: found IS TRUE
//!   Aggregate: groupBy=[row], aggr=[bool_or(matched AND rerank(t.q, u.p) > 0) AS found, first_value(t.q), ..]
//!     Left Join: t.id = u.id
//!       Window: row_number() AS row
//!         t
//!       Projection: .., true AS matched
//!         u
//! ```

use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{bool_or, first_value};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, LogicalPlan, Projection, Window, lit};

use super::rewrite::Hoist;
use super::scored::Scored;
use crate::sql::rules::expressions::{columns_of, named};
use crate::sql::rules::needs::Need;

/// What a join keeps of its first side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MatchKind {
    /// Rows with a match.
    Semi,
    /// Rows without one.
    Anti,
    /// All rows, with a column that tells whether there is a match.
    Mark,
}

impl Hoist<'_> {
    /// Rewrites a semi, anti or mark join. `kept` are the conditions without calls over both sides, `above` the others,
    /// and `own` the calls of each side.
    pub(super) fn existence(
        &self,
        join: Join,
        kept: Vec<Expr>,
        above: Vec<Expr>,
        own: [Vec<Need>; 2],
    ) -> Result<Scored> {
        let kind = match join.join_type {
            JoinType::LeftAnti | JoinType::RightAnti => MatchKind::Anti,
            JoinType::LeftMark | JoinType::RightMark => MatchKind::Mark,
            _ => MatchKind::Semi,
        };
        let from_left = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark);
        let [left_own, right_own] = own;
        let (first, first_own, second, second_own) = if from_left {
            (join.left, left_own, join.right, right_own)
        } else {
            (join.right, right_own, join.left, left_own)
        };
        let schema = Arc::clone(first.schema());
        let first = self.scored_side(first, &first_own)?;
        let second = self.scored_side(second, &second_own)?;
        let on = join.on.into_iter().map(|(left, right)| if from_left { (left, right) } else { (right, left) });
        let on = on.map(|(key, other)| Ok((first.translate(key)?, second.translate(other)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let both = |part: Expr| second.translate(first.translate(part)?);
        let kept = kept.into_iter().map(both).collect::<Result<Vec<_>>>()?;
        let above = above.into_iter().map(both).collect::<Result<Vec<_>>>()?;
        let (first, second) = (first.scored, second.scored);

        let (row, matched, found) = (self.next_name(), self.next_name(), self.next_name());
        let generated = |name: &str| Expr::Column(Column::new_unqualified(name));
        let rows = with_row_numbers(first.plan, &row)?;
        let mut projected = columns_of(second.plan.schema());
        projected.push(lit(true).alias(&matched));
        let others = LogicalPlan::Projection(Projection::try_new(projected, Arc::new(second.plan))?);
        let joined = Join::try_new(
            Arc::new(rows),
            Arc::new(others),
            on,
            conjunction(kept),
            JoinType::Left,
            join.join_constraint,
            join.null_equality,
            false,
        )?;
        let counts = conjunction(std::iter::once(generated(&matched).is_not_null()).chain(above));
        let counts = counts.into_iter().collect();
        let (scored, counts) = self.score(Scored::of(LogicalPlan::Join(joined)), counts, &[])?;

        let mut aggregates: Vec<Expr> = counts.into_iter().map(|counts| bool_or(counts).alias(&found)).collect();
        let mut columns = Vec::new();
        for column in schema.columns() {
            let name = self.next_name();
            let source = first.sources.get(&column).cloned().unwrap_or(Expr::Column(column));
            aggregates.push(first_value(source, Vec::new()).alias(&name));
            columns.push(generated(&name));
        }
        let mut plan =
            LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(scored.plan), vec![generated(&row)], aggregates)?);
        let found = generated(&found).is_true();
        let condition = match kind {
            MatchKind::Semi => Some(found.clone()),
            MatchKind::Anti => Some(found.clone().is_not_true()),
            MatchKind::Mark => None,
        };
        if let Some(condition) = condition {
            plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
        }
        if kind == MatchKind::Mark {
            columns.push(found);
        }
        let projected = columns.into_iter().zip(join.schema.iter());
        let projected = projected.map(|(column, (qualifier, field))| named(column, qualifier, field.name())).collect();
        Ok(Scored::of(LogicalPlan::Projection(Projection::try_new(projected, Arc::new(plan))?)))
    }
}

/// The plan with a column that numbers its rows.
fn with_row_numbers(plan: LogicalPlan, name: &str) -> Result<LogicalPlan> {
    let mut projected = columns_of(plan.schema());
    let numbered = LogicalPlan::Window(Window::try_new(vec![row_number()], Arc::new(plan))?);
    let number = numbered.schema().columns().pop().map(|number| Expr::Column(number).alias(name));
    projected.extend(number);
    Ok(LogicalPlan::Projection(Projection::try_new(projected, Arc::new(numbered))?))
}
