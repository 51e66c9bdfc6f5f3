//! Joins.

use std::sync::Arc;

use datafusion::common::{DFSchema, JoinType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Join, LogicalPlan};

use super::calls::Calls;
use super::rewrite::Hoist;
use super::scored::{Late, Scored};
use crate::sql::catalogue::KnownFunctions;
use crate::sql::rules::expressions::{has_call, is_null_with_its_row, name_of, reads_only};
use crate::sql::rules::needs::{Need, needs, union};

impl Hoist<'_> {
    /// A call in a condition of an inner join runs above the join, for the rows that the other conditions leave. In
    /// other joins, a call that reads one side runs on that side. One that reads both decides which rows have a match:
    /// see [`Self::existence`]; outer joins refuse it.
    pub(super) fn join(&self, join: Join, wanted: &[Need], late: Late) -> Result<Scored> {
        let (join, waiting, _) = self.join_filters(join)?;
        if let Some(predicate) = conjunction(waiting) {
            return self.filter(predicate, LogicalPlan::Join(join), wanted, late);
        }
        let is_inner_by_keys = self.adds_no_pairs(&join);
        let mut own = [Vec::new(), Vec::new()];
        for (left, right) in &join.on {
            for (own, key) in own.iter_mut().zip([left, right]) {
                *own = union(std::mem::take(own), needs(self.functions, std::slice::from_ref(key))?);
            }
        }
        let (mut kept, mut above) = (Vec::new(), Vec::new());
        for condition in join.filter.clone().map(split_conjunction_owned).unwrap_or_default() {
            let of_condition = needs(self.functions, std::slice::from_ref(&condition))?;
            let inputs = [&join.left, &join.right].map(|input| input.schema());
            // Without all of its conditions, an argument might be evaluated where it fails.
            let is_of = |need: &Need, input: &DFSchema| {
                reads_only(&need.call, input) && (!need.may_fail() || need.reads_only(input))
            };
            let sides: Vec<_> =
                of_condition.iter().map(|need| inputs.iter().position(|input| is_of(need, input))).collect();
            // One that cannot leave the join with the others still waits.
            let waits = is_inner_by_keys && !of_condition.is_empty();
            if waits || sides.contains(&None) {
                above.push(condition);
                continue;
            }
            for (need, side) in of_condition.into_iter().zip(sides) {
                let Some(side) = side else { continue };
                own[side] = union(std::mem::take(&mut own[side]), vec![need.within(inputs[side])]);
            }
            kept.push(condition);
        }
        match join.join_type {
            _ if above.is_empty() => {}
            JoinType::Inner => {}
            JoinType::Left | JoinType::Right | JoinType::Full => return Err(refused(&above, self.functions, &join)),
            _ if join.null_aware => return Err(refused(&above, self.functions, &join)),
            _ => return self.existence(join, kept, above, own),
        }
        let [left_side, right_side] = sides_of(join.join_type);
        let [left_own, right_own] = own;
        let drops = is_inner_by_keys
            || matches!(
                join.join_type,
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::RightSemi | JoinType::RightAnti
            );
        let below = if drops { Late::Yes } else { late };
        let left_wanted = left_side.carries(wanted, join.left.schema(), self.functions);
        let right_wanted = right_side.carries(wanted, join.right.schema(), self.functions);
        let left = self.side(join.left, left_side, &left_own, &left_wanted, below)?;
        let right = self.side(join.right, right_side, &right_own, &right_wanted, below)?;
        let both = |part: Expr| right.translate(left.translate(part)?);
        let on = join
            .on
            .into_iter()
            .map(|(left_key, right_key)| Ok((left.translate(left_key)?, right.translate(right_key)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let kept = kept.into_iter().map(both).collect::<Result<Vec<_>>>()?;
        let above = above.into_iter().map(both).collect::<Result<Vec<_>>>()?;
        let (left, right) = (left.scored, right.scored);
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on,
            conjunction(kept),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let mut scored = Scored { columns: left.columns, sources: left.sources, ..Scored::of(plan) };
        if left_side == JoinInput::Dropped {
            (scored.columns, scored.sources) = Default::default();
        }
        if right_side != JoinInput::Dropped {
            scored.columns.extend(right.columns);
            scored.sources.extend(right.sources);
        }
        let scored = if above.is_empty() { scored } else { self.filter_scored(above, scored, wanted)? };
        self.settle(scored, late, wanted)
    }

    /// Rewrites one side of a join, and computes the calls `own` of the join's condition.
    fn side(&self, plan: Arc<LogicalPlan>, side: JoinInput, own: &[Need], wanted: &[Need], late: Late) -> Result<Side> {
        let late = if side == JoinInput::Dropped { Late::No } else { late };
        let scored = self.rewrite(Arc::unwrap_or_clone(plan), &union(own.to_vec(), wanted.to_vec()), late)?;
        let below = Scored { columns: scored.columns.clone(), sources: scored.sources.clone(), ..Scored::default() };
        let own = own.iter().map(|need| need.map(|part| below.translate(part))).collect::<Result<_>>()?;
        let above = scored.read_above(self, wanted)?;
        let mut calls = self.plan_needs(own, &above)?;
        let all = calls.columns();
        let mut scored = Self::compute(scored, &mut calls, &all)?.refresh()?;
        if side == JoinInput::MayBeNull {
            // Where the other side has no match, what is evaluated above must be NULL too.
            scored = self.materialize(scored, |source| {
                matches!(source, Expr::Column(_)) || is_null_with_its_row(source, self.functions)
            })?;
            scored.columns.retain(|(call, _)| is_null_with_its_row(call, self.functions));
        }
        Ok(Side { scored, below, calls })
    }

    /// Rewrites a side and computes all its calls there.
    pub(super) fn scored_side(&self, plan: Arc<LogicalPlan>, own: &[Need]) -> Result<Side> {
        self.side(plan, JoinInput::Kept, own, &[], Late::No)
    }
}

/// One side of a join, with the calls of the join's condition.
pub(super) struct Side {
    pub(super) scored: Scored,
    /// What stands for the columns of the original plan in the terms of `calls`, which do not have their columns yet.
    below: Scored,
    calls: Calls,
}

impl Side {
    /// A condition in terms of this side. Columns of the other side stay as they are.
    pub(super) fn translate(&self, condition: Expr) -> Result<Expr> {
        self.calls.replace(self.below.translate(condition)?)
    }
}

impl Need {
    /// With the conditions that a side of a join can evaluate.
    fn within(mut self, schema: &DFSchema) -> Self {
        for place in &mut self.places {
            let known = place.iter().take_while(|condition| reads_only(condition, schema)).count();
            place.truncate(known);
        }
        self
    }
}

fn refused(conditions: &[Expr], functions: &KnownFunctions, join: &Join) -> DataFusionError {
    let call = conditions.iter().find_map(|condition| has_call(condition, functions));
    let name = call.as_ref().map_or("the function", name_of);
    let remedy = if join.null_aware {
        "write NOT EXISTS instead, which differs where a value is NULL"
    } else {
        "join without it in a subquery, compute the score there, and filter on its column"
    };
    let join = if join.null_aware { "NOT IN".to_owned() } else { format!("{} JOIN", join.join_type) };
    DataFusionError::Plan(format!(
        "{name} cannot read both sides of a {} in its condition; {remedy}",
        join.to_uppercase()
    ))
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
    fn carries(self, wanted: &[Need], schema: &DFSchema, functions: &KnownFunctions) -> Vec<Need> {
        let carried = wanted.iter().filter(|need| match self {
            Self::Kept => need.reads_only(schema),
            Self::MayBeNull => need.reads_only(schema) && is_null_with_its_row(&need.call, functions),
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
