//! Filters.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};

use super::rewrite::Hoist;
use super::scored::{Scored, keep};
use crate::sql::rules::expressions::{replace, sources, substitute, union};

impl Hoist<'_> {
    pub(super) fn filter(&self, predicate: Expr, input: LogicalPlan, wanted: &[Expr]) -> Result<Scored> {
        let schema = Arc::clone(input.schema());
        let (parts, input) = self.below_projection(split_conjunction_owned(predicate), input)?;
        let Some(predicate) = conjunction(parts) else { return self.rewrite(input, wanted) };
        let own = self.calls(std::slice::from_ref(&predicate))?;
        let scored = self.rewrite(input, &union(&own, wanted))?;
        self.filter_scored(predicate, scored, &schema, wanted)
    }

    /// Moves conditions below a projection with calls if they read none of them. DataFusion does so itself, but moves a
    /// field of a call that returns a struct (`rerank_details(..)['score']`) further down than any filter.
    fn below_projection(&self, parts: Vec<Expr>, input: LogicalPlan) -> Result<(Vec<Expr>, LogicalPlan)> {
        let projection = match input {
            LogicalPlan::Projection(projection) if !self.calls(&projection.expr)?.is_empty() => projection,
            input => return Ok((parts, input)),
        };
        let sources = sources(&projection);
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for part in parts {
            let source = substitute(part.clone(), &sources)?;
            if source.is_volatile() || !self.calls(std::slice::from_ref(&source))?.is_empty() {
                above.push(part);
            } else {
                below.push(source);
            }
        }
        let Projection { expr, input, schema, .. } = projection;
        let input = Arc::new(filtered(below, Arc::unwrap_or_clone(input))?);
        Ok((above, LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?)))
    }

    /// Filters a rewritten plan: first by the conditions that need no more calls, then by one call after the other, so
    /// that a row that one of them drops is not scored by the next.
    pub(super) fn filter_scored(
        &self,
        predicate: Expr,
        scored: Scored,
        schema: &DFSchema,
        wanted: &[Expr],
    ) -> Result<Scored> {
        let parts = self.guard(split_conjunction_owned(predicate), &scored.columns, wanted)?;
        let mut stages = self.stages(parts)?.into_iter();
        let mut scored = scored;
        while let Some(stage) = stages.next() {
            let own = self.calls(&stage)?;
            let later = self.calls(&stages.as_slice().concat())?;
            // A call that only this filter reads stays in it. One that the parent repeats, or that others need, becomes
            // a column.
            let shared = own.iter().filter(|call| wanted.contains(call) || later.contains(call));
            let shared = shared.cloned().collect::<Vec<_>>();
            let shared = union(&self.nested(&own)?, &shared);
            let Scored { plan, columns } = self.compute(scored, &union(&self.nested(&shared)?, &shared))?;
            let stage = stage.into_iter().map(|part| replace(part, &columns)).collect::<Result<Vec<_>>>()?;
            scored = Scored { plan: filtered(stage, plan)?, columns };
        }
        keep(scored, schema, wanted)
    }

    /// Groups conditions in the order of evaluation: first those without calls, then, for each condition with new
    /// calls, all conditions that need no others.
    fn stages(&self, conditions: Vec<Expr>) -> Result<Vec<Vec<Expr>>> {
        let mut known = Vec::new();
        let mut stages = vec![Vec::new()];
        let with_calls = |part| Ok((self.calls(std::slice::from_ref(&part))?, part));
        let mut rest = conditions.into_iter().map(with_calls).collect::<Result<Vec<_>>>()?;
        while !rest.is_empty() {
            let (ready, waiting): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|(calls, _)| calls.iter().all(|call| known.contains(call)));
            if let Some(stage) = stages.last_mut() {
                stage.extend(ready.into_iter().map(|(_, condition)| condition));
            }
            if let Some((calls, _)) = waiting.first() {
                known.extend(calls.iter().cloned());
                stages.push(Vec::new());
            }
            rest = waiting;
        }
        Ok(stages)
    }
}

fn filtered(conditions: Vec<Expr>, plan: LogicalPlan) -> Result<LogicalPlan> {
    match conjunction(conditions) {
        None => Ok(plan),
        Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?)),
    }
}
