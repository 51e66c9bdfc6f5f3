//! The calls of a node: their columns, their conditions, and the projections that compute them.
//!
//! A call whose arguments or conditions read other calls is computed above those. For a chain such as
//! `rerank(a, b) > 0 OR rerank(c, d) > 0 OR ..`, each call is computed for the rows that those before it leave
//! undecided, one projection per call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::rewrite::Hoist;
use super::scored::Scored;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::rules::expressions::{columns_of, may_fail};
use crate::sql::rules::needs::{Need, needs};

/// How many projections of calls, or filters by calls, may stand on each other because of conditions. Each is an
/// operator with windows of its own, streams nest on the stack, and DataFusion's `eliminate_outer_join` expands what a
/// filter reads through all of them. Further calls are computed under fewer conditions, so for more rows than
/// necessary, unless their arguments could fail for the others.
pub(super) const MOST_LEVELS: usize = 8;

/// The calls in some expressions, inner ones first.
#[derive(Debug, Default)]
pub(super) struct Calls {
    planned: Vec<PlannedCall>,
    places: HashMap<Expr, usize>,
}

#[derive(Debug)]
struct PlannedCall {
    call: Expr,
    /// The name of its column.
    name: String,
    /// What computes it: inner calls are columns, and its arguments are NULL where no place reads it.
    expression: Expr,
    /// Calls that must be columns before.
    reads: BTreeSet<usize>,
    /// Projections below and including its own.
    level: usize,
    /// Whether the column can also stand for the call above the node.
    shared: bool,
    computed: bool,
}

impl Hoist<'_> {
    /// Plans the calls in `expressions`, which are over the columns of a node's input. `wanted` are the calls that
    /// nodes above read: if they are among those in `expressions`, their places count too.
    pub(super) fn plan_calls(&self, expressions: &[Expr], wanted: &[Need]) -> Result<Calls> {
        self.plan_needs(needs(self.functions, expressions)?, wanted)
    }

    /// Like [`Self::plan_calls`] for calls that were collected before.
    pub(super) fn plan_needs(&self, own: Vec<Need>, wanted: &[Need]) -> Result<Calls> {
        let mut calls = Calls::default();
        for need in dependent_last(own)? {
            let fails = need.may_fail();
            let Need { call, places } = need.without_itself()?;
            let Expr::ScalarFunction(inner) = &call else { continue };
            let mut conditions = Vec::new();
            for place in &places {
                conditions.push(calls.known(self.functions, place, fails)?.0);
            }
            let wanted = wanted.iter().find(|wanted| wanted.call == call).map(Need::without_itself).transpose()?;
            let mut wanted_conditions = Vec::new();
            for place in wanted.iter().flat_map(|wanted| &wanted.places) {
                wanted_conditions.push(calls.known(self.functions, place, fails)?);
            }
            // With fewer conditions, an argument might be evaluated where it fails.
            let shared = wanted.is_some() && !(fails && wanted_conditions.iter().any(|(_, all)| !all));
            if shared {
                conditions.extend(wanted_conditions.into_iter().map(|(conditions, _)| conditions));
            }
            let everywhere = conditions.iter().any(Vec::is_empty);
            let mut distinct: Vec<Vec<Expr>> = Vec::new();
            for conditions in conditions.into_iter().filter(|_| !everywhere) {
                if !distinct.contains(&conditions) {
                    distinct.push(conditions);
                }
            }
            let args = inner.args.iter().map(|argument| calls.replace(argument.clone())).collect::<Result<_>>()?;
            let expression = with_conditions(ScalarFunction { func: Arc::clone(&inner.func), args }, &distinct);
            let reads = calls.read_by(&expression.args);
            let level = 1 + reads.iter().map(|place| calls.planned[*place].level).max().unwrap_or(0);
            calls.places.insert(call.clone(), calls.planned.len());
            calls.planned.push(PlannedCall {
                call,
                name: self.next_name(),
                expression: self.functions.place(expression),
                reads,
                level,
                shared: shared || everywhere,
                computed: false,
            });
        }
        Ok(calls)
    }

    /// Adds the columns of the calls that `expressions` read, which [`Calls::replace`] made. Those that nodes above may
    /// read too are listed in the result.
    pub(super) fn compute(mut scored: Scored, calls: &mut Calls, expressions: &[Expr]) -> Result<Scored> {
        let mut missing = calls.missing(expressions);
        while !missing.is_empty() {
            let ready = |place: &usize| calls.planned[*place].reads.is_disjoint(&missing);
            let (ready, later): (BTreeSet<usize>, BTreeSet<usize>) = missing.iter().partition(|place| ready(place));
            let mut projected = columns_of(scored.plan.schema());
            for place in ready {
                let planned = &mut calls.planned[place];
                planned.computed = true;
                projected.push(planned.expression.clone().alias(&planned.name));
                if planned.shared {
                    scored.columns.push((planned.call.clone(), planned.column()));
                }
            }
            scored.plan = LogicalPlan::Projection(Projection::try_new(projected, Arc::new(scored.plan))?);
            missing = later;
        }
        Ok(scored)
    }

    /// Replaces the calls in expressions by columns, which it adds to the plan.
    pub(super) fn score(&self, scored: Scored, expressions: Vec<Expr>, wanted: &[Need]) -> Result<(Scored, Vec<Expr>)> {
        let mut calls = self.plan_calls(&expressions, wanted)?;
        let expressions = expressions.into_iter().map(|part| calls.replace(part)).collect::<Result<Vec<_>>>()?;
        let scored = Self::compute(scored, &mut calls, &expressions)?;
        Ok((scored, expressions))
    }
}

impl PlannedCall {
    fn column(&self) -> Expr {
        Expr::Column(Column::new_unqualified(&self.name))
    }
}

impl Calls {
    /// The expression with the columns of calls in place of the calls.
    pub(super) fn replace(&self, expression: Expr) -> Result<Expr> {
        if self.places.is_empty() {
            return Ok(expression);
        }
        let replaced = expression.transform_down(|part| {
            let place = if matches!(part, Expr::ScalarFunction(_)) { self.places.get(&part) } else { None };
            Ok(match place {
                Some(place) => Transformed::new(self.planned[*place].column(), true, TreeNodeRecursion::Jump),
                None => Transformed::no(part),
            })
        })?;
        Ok(replaced.data)
    }

    /// The columns of all calls.
    pub(super) fn columns(&self) -> Vec<Expr> {
        self.planned.iter().map(PlannedCall::column).collect()
    }

    /// The calls whose columns are in expressions.
    pub(super) fn read_by(&self, expressions: &[Expr]) -> BTreeSet<usize> {
        let columns = expressions.iter().flat_map(Expr::column_refs).filter(|column| column.relation.is_none());
        let place = |column: &Column| self.planned.iter().position(|planned| planned.name == column.name);
        columns.filter_map(place).collect()
    }

    /// The calls that must be computed before expressions can be evaluated.
    fn missing(&self, expressions: &[Expr]) -> BTreeSet<usize> {
        let mut missing = BTreeSet::new();
        let mut waiting: Vec<usize> = self.read_by(expressions).into_iter().collect();
        while let Some(place) = waiting.pop() {
            if !self.planned[place].computed && missing.insert(place) {
                waiting.extend(&self.planned[place].reads);
            }
        }
        missing
    }

    /// The conditions of a place, with columns in place of calls, up to the first that needs a call that is planned
    /// later, because it reads this one, or that, unless the arguments may fail, stands too high. Tells whether these
    /// are all of them. With fewer conditions, more rows are scored than necessary.
    fn known(&self, functions: &KnownFunctions, place: &[Expr], fails: bool) -> Result<(Vec<Expr>, bool)> {
        let mut known = Vec::with_capacity(place.len());
        for condition in place {
            let condition = self.replace(condition.clone())?;
            let read = self.read_by(std::slice::from_ref(&condition));
            let too_high = !fails && read.iter().any(|place| self.planned[*place].level >= MOST_LEVELS);
            if too_high || condition.exists(|part| Ok(functions.is_call(part)))? {
                return Ok((known, false));
            }
            known.push(condition);
        }
        Ok((known, true))
    }
}

/// The calls, those that others read in their arguments and conditions first. `needs` has those in arguments first; where
/// two read each other, its order stays.
fn dependent_last(needs: Vec<Need>) -> Result<Vec<Need>> {
    let positions: HashMap<&Expr, usize> = needs.iter().enumerate().map(|(place, need)| (&need.call, place)).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    let mut unknown = vec![0_usize; needs.len()];
    for (place, need) in needs.iter().enumerate() {
        let mut read: BTreeSet<usize> = BTreeSet::new();
        for part in need.places.iter().flatten().chain([&need.call]) {
            part.apply(|part| {
                let call = if matches!(part, Expr::ScalarFunction(_)) { positions.get(part) } else { None };
                read.extend(call.filter(|call| **call != place));
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        unknown[place] = read.len();
        for call in read {
            readers[call].push(place);
        }
    }
    let mut waiting: BTreeSet<usize> = (0..needs.len()).collect();
    let mut ready: BTreeSet<usize> = waiting.iter().copied().filter(|place| unknown[*place] == 0).collect();
    let mut needs: Vec<_> = needs.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(needs.len());
    while let Some(place) = ready.pop_first().or_else(|| waiting.first().copied()) {
        waiting.remove(&place);
        ordered.extend(needs[place].take());
        for reader in &readers[place] {
            unknown[*reader] -= 1;
            if unknown[*reader] == 0 && waiting.contains(reader) {
                ready.insert(*reader);
            }
        }
    }
    Ok(ordered)
}

/// The call with NULL arguments unless all conditions of one of the `places` are true. The call itself if there are no
/// places.
fn with_conditions(mut call: ScalarFunction, places: &[Vec<Expr>]) -> ScalarFunction {
    // The passage of a NULL query is not read, but evaluating it may fail where the call was not meant to be evaluated.
    for (position, argument) in call.args.iter_mut().take(2).enumerate() {
        if position == 0 || may_fail(argument) {
            let places = places.iter().rev().map(|conditions| conditional(argument, conditions));
            let places = places.reduce(|later, place| {
                let found = Expr::IsNotNull(Box::new(place.clone()));
                case(found, place, Some(later))
            });
            *argument = places.unwrap_or_else(|| std::mem::take(argument));
        }
    }
    call
}

/// `CASE WHEN condition THEN CASE WHEN condition THEN text END END`. One CASE over a boolean would be simplified to a
/// conjunction, which evaluates its right side for all rows.
fn conditional(text: &Expr, conditions: &[Expr]) -> Expr {
    conditions.iter().rev().fold(text.clone(), |inner, condition| case(condition.clone(), inner, None))
}

fn case(condition: Expr, then: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case(Case::new(None, vec![(Box::new(condition), Box::new(then))], otherwise.map(Box::new)))
}
