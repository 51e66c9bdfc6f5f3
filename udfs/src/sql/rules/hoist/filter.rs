//! Filters.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};

use super::calls::{Calls, MOST_LEVELS};
use super::rewrite::Hoist;
use super::scored::{Late, Scored};
use crate::sql::rules::expressions::{sources, substitute};
use crate::sql::rules::needs::{Need, needs, union};

impl Hoist<'_> {
    pub(super) fn filter(&self, predicate: Expr, input: LogicalPlan, wanted: &[Need], late: Late) -> Result<Scored> {
        let (parts, input) = self.below_projection(split_conjunction_owned(predicate), input)?;
        let Some(predicate) = conjunction(parts) else { return self.rewrite(input, wanted, late) };
        let own = needs(self.functions, std::slice::from_ref(&predicate))?;
        let scored = self.rewrite(input, &union(own, wanted.to_vec()), Late::Yes)?;
        let parts = scored.translate_all(split_conjunction_owned(predicate))?;
        let scored = self.filter_scored(parts, scored, wanted)?;
        self.settle(scored, late, wanted)
    }

    /// Moves conditions below a projection with calls if they read none of them. DataFusion does so itself, but moves a
    /// field of a call that returns a struct (`rerank_details(..)['score']`) further down than any filter.
    fn below_projection(&self, parts: Vec<Expr>, input: LogicalPlan) -> Result<(Vec<Expr>, LogicalPlan)> {
        let projection = match input {
            LogicalPlan::Projection(projection) if projection.expr.iter().any(|part| self.scores(part)) => projection,
            input => return Ok((parts, input)),
        };
        let sources = sources(&projection);
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for part in parts {
            let source = substitute(part.clone(), &sources)?;
            if source.is_volatile() || self.scores(&source) {
                above.push(part);
            } else {
                below.push(source);
            }
        }
        let Projection { expr, input, schema, .. } = projection;
        let input = Arc::new(filtered(below, Arc::unwrap_or_clone(input))?);
        Ok((above, LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?)))
    }

    /// Filters a rewritten plan by conditions in terms of it: first by those that need no more calls, then by one call
    /// after the other, so that a row that one of them drops is not scored by the next.
    pub(super) fn filter_scored(&self, parts: Vec<Expr>, mut scored: Scored, wanted: &[Need]) -> Result<Scored> {
        let above = scored.read_above(self, wanted)?;
        let mut calls = self.plan_calls(&parts, &above)?;
        let parts = parts.into_iter().map(|part| calls.replace(part)).collect::<Result<Vec<_>>>()?;
        for stage in stages(parts, &calls) {
            scored = Self::compute(scored, &mut calls, &stage)?;
            scored.plan = filtered(stage, scored.plan)?;
        }
        scored.refresh()
    }
}

/// Groups conditions in the order of evaluation: first those without calls, then, for each condition with new calls,
/// all conditions that need no others. The last of [`MOST_LEVELS`] stages has the rest.
fn stages(conditions: Vec<Expr>, calls: &Calls) -> Vec<Vec<Expr>> {
    let mut known = BTreeSet::new();
    let mut stages = vec![Vec::new()];
    let mut rest: Vec<_> =
        conditions.into_iter().map(|part| (calls.read_by(std::slice::from_ref(&part)), part)).collect();
    while !rest.is_empty() {
        let (ready, waiting): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(read, _)| read.is_subset(&known));
        if let Some(stage) = stages.last_mut() {
            stage.extend(ready.into_iter().map(|(_, condition)| condition));
        }
        let next = if stages.len() < MOST_LEVELS { 1 } else { waiting.len() };
        known.extend(waiting.iter().take(next).flat_map(|(read, _)| read));
        if !waiting.is_empty() {
            stages.push(Vec::new());
        }
        rest = waiting;
    }
    stages
}

fn filtered(conditions: Vec<Expr>, plan: LogicalPlan) -> Result<LogicalPlan> {
    match conjunction(conditions) {
        None => Ok(plan),
        Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?)),
    }
}
