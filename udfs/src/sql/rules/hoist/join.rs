//! Joins.

use std::sync::Arc;

use datafusion::common::{DFSchema, JoinType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Join, LogicalPlan};

use super::rewrite::Hoist;
use super::scored::{Scored, keep};
use crate::sql::catalogue::KnownFunctions;
use crate::sql::rules::expressions::{name_of, reads_only, replace, union};

impl Hoist<'_> {
    /// Computes a call in a condition that reads one side on that side. A call that reads both becomes a filter above
    /// an inner join; other joins refuse it, because their rows depend on it.
    pub(super) fn join(&self, join: Join, wanted: &[Expr]) -> Result<Scored> {
        let mut conditions = join.filter.map(split_conjunction_owned).unwrap_or_default();
        let mut above = Vec::new();
        let mut sides = [Vec::new(), Vec::new()];
        for (left, right) in &join.on {
            sides[0] = union(&sides[0], &self.calls(std::slice::from_ref(left))?);
            sides[1] = union(&sides[1], &self.calls(std::slice::from_ref(right))?);
        }
        let mut kept = Vec::new();
        for condition in conditions.drain(..) {
            let calls = self.calls(std::slice::from_ref(&condition))?;
            let mut both = None;
            for call in &calls {
                let side = [&join.left, &join.right].iter().position(|input| reads_only(call, input.schema()));
                match side {
                    Some(side) => sides[side] = union(&sides[side], std::slice::from_ref(call)),
                    None => both = Some(call),
                }
            }
            match both {
                None => kept.push(condition),
                Some(_) if join.join_type == JoinType::Inner => above.push(condition),
                Some(call) => {
                    return Err(DataFusionError::Plan(format!(
                        "{} cannot be used in the ON condition of a {} JOIN; compute it in a subquery and filter on its column",
                        name_of(call),
                        join.join_type.to_string().to_uppercase()
                    )));
                }
            }
        }
        let [left_calls, right_calls] = sides;
        let [left_side, right_side] = sides_of(join.join_type);
        let (left_plan, right_plan) = (Arc::unwrap_or_clone(join.left), Arc::unwrap_or_clone(join.right));
        let left_wanted = left_side.carries(wanted, left_plan.schema(), self.functions);
        let right_wanted = right_side.carries(wanted, right_plan.schema(), self.functions);
        let left = self.compute(self.rewrite(left_plan, &union(&left_calls, &left_wanted))?, &left_calls)?;
        let right = self.compute(self.rewrite(right_plan, &union(&right_calls, &right_wanted))?, &right_calls)?;
        let mut carried = left.columns.clone();
        carried.retain(|(call, _)| left_wanted.contains(call));
        carried.extend(right.columns.iter().filter(|(call, _)| right_wanted.contains(call)).cloned());
        let columns = [left.columns, right.columns].concat();
        let on = join.on.into_iter().map(|(l, r)| Ok((replace(l, &columns)?, replace(r, &columns)?)));
        let joined = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on.collect::<Result<_>>()?,
            conjunction(kept.into_iter().map(|part| replace(part, &columns)).collect::<Result<Vec<_>>>()?),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let scored = keep(Scored { plan: joined, columns: carried }, &join.schema, wanted)?;
        match conjunction(above) {
            None => Ok(scored),
            // The inputs are already rewritten, so the filter finds no more calls below it.
            Some(predicate) => self.filter_scored(predicate, scored, &join.schema, wanted),
        }
    }
}

/// What a join does with the rows of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinInput {
    /// They are in the result unchanged, or left out of it.
    Kept,
    /// NULLs take their place where the other side has no match.
    MayBeNull,
    /// They are not in the result.
    Dropped,
}

impl JoinInput {
    /// The calls of `wanted` that have the same value on this side and above the join. A score whose
    /// query or passage is a column is NULL where the row is; the struct of `rerank_details` is not.
    fn carries(self, wanted: &[Expr], schema: &DFSchema, functions: &KnownFunctions) -> Vec<Expr> {
        let is_null_with_its_row = |call: &Expr| match call {
            Expr::ScalarFunction(call) => {
                functions.find(&call.func).is_some_and(|function| function.kind().is_null_with_its_texts())
                    && call.args.iter().take(2).any(|text| matches!(text, Expr::Column(_)))
            }
            _ => false,
        };
        let carried = wanted.iter().filter(|call| match self {
            Self::Kept => reads_only(call, schema),
            Self::MayBeNull => reads_only(call, schema) && is_null_with_its_row(call),
            Self::Dropped => false,
        });
        carried.cloned().collect()
    }
}

fn sides_of(join_type: JoinType) -> [JoinInput; 2] {
    match join_type {
        JoinType::Inner => [JoinInput::Kept, JoinInput::Kept],
        JoinType::Left => [JoinInput::Kept, JoinInput::MayBeNull],
        JoinType::Right => [JoinInput::MayBeNull, JoinInput::Kept],
        JoinType::Full => [JoinInput::MayBeNull, JoinInput::MayBeNull],
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => [JoinInput::Kept, JoinInput::Dropped],
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => [JoinInput::Dropped, JoinInput::Kept],
    }
}
