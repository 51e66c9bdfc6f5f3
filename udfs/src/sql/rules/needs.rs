//! Where expressions read calls, and under which conditions.
//!
//! An operator computes a call for all rows before the expression around it is evaluated, so a call within a branch
//! would run for rows of the other branches too. The conditions are therefore moved into the call, whose score is NULL
//! where its query is:
//!
//! ```text
//! CASE WHEN cheap THEN rerank(q, p) ELSE 0 END -> CASE WHEN cheap THEN rerank(CASE WHEN cheap THEN q END, p) ELSE 0 END
//! cheap OR rerank(q, p) > 1               ->  cheap OR rerank(CASE WHEN cheap IS NOT TRUE THEN q END, p) > 1
//! max(rerank(q, p)) FILTER (WHERE cheap)  ->  max(rerank(CASE WHEN cheap THEN q END, p)) FILTER (WHERE cheap)
//! ```
//!
//! A call that is read in several places gets the conditions of all of them, and none if one of them has none.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, Case, WindowFunction};
use datafusion::logical_expr::utils::{split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};

use super::expressions::{has_call, has_subquery, may_fail, reads_lambda_variable, reads_only, replace, substitute};
use crate::sql::catalogue::KnownFunctions;

/// A call, and for each place that reads it the conditions under which it does, from the outside in. Each condition is
/// itself evaluated only for rows for which those before it are true. A place without conditions reads all rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Need {
    pub(super) call: Expr,
    pub(super) places: Vec<Vec<Expr>>,
}

impl Need {
    /// The call and its conditions with columns replaced by what they stand for.
    pub(super) fn substitute(&self, sources: &HashMap<Column, Expr>) -> Result<Self> {
        self.map(|part| substitute(part, sources))
    }

    /// The call and its conditions, each rewritten.
    pub(super) fn map(&self, rewrite: impl Fn(Expr) -> Result<Expr>) -> Result<Self> {
        let place = |place: &Vec<Expr>| place.iter().map(|part| rewrite(part.clone())).collect();
        let places = self.places.iter().map(place).collect::<Result<_>>()?;
        Ok(Self { call: rewrite(self.call.clone())?, places })
    }

    /// With NULL for the call in its own conditions. Where a condition evaluates the call, that place needs it already;
    /// where it does not, its value does not depend on it.
    pub(super) fn without_itself(&self) -> Result<Self> {
        // One that is a column already has its value.
        if !matches!(self.call, Expr::ScalarFunction(_)) {
            return Ok(self.clone());
        }
        let reads_itself = |part: &Expr| part.exists(|part| Ok(*part == self.call));
        let mut null = None;
        let mut need = self.clone();
        for condition in need.places.iter_mut().flatten() {
            if reads_itself(condition)? {
                let null = match &null {
                    Some(null) => null,
                    None => null.insert([(self.call.clone(), null_of(&self.call)?)]),
                };
                *condition = replace(std::mem::take(condition), null)?;
            }
        }
        Ok(need)
    }

    /// Whether evaluating the texts of the call may be an error.
    pub(super) fn may_fail(&self) -> bool {
        let Expr::ScalarFunction(call) = &self.call else { return true };
        call.args.iter().take(2).any(may_fail)
    }

    /// Whether the call and its conditions read only columns of a plan.
    pub(super) fn reads_only(&self, schema: &DFSchema) -> bool {
        let mut all = self.places.iter().flatten().chain([&self.call]);
        all.all(|part| reads_only(part, schema))
    }
}

/// NULL of the type of a call, which its texts do not change.
fn null_of(call: &Expr) -> Result<Expr> {
    let mut call = call.clone();
    if let Expr::ScalarFunction(call) = &mut call {
        call.args.iter_mut().take(2).for_each(|text| *text = lit(""));
    }
    let value = ScalarValue::try_from(call.get_type(&DFSchema::empty())?)?;
    Ok(Expr::Literal(value, None))
}

/// The distinct calls in `expressions`. Calls in arguments of others and in conditions come before those that depend on
/// them.
pub(super) fn needs(functions: &KnownFunctions, expressions: &[Expr]) -> Result<Vec<Need>> {
    let mut places = Places { functions, found: Vec::new() };
    for expression in expressions {
        places.visit(expression, &[])?;
    }
    Ok(places.found)
}

/// The calls of both.
pub(super) fn union(mut first: Vec<Need>, second: Vec<Need>) -> Vec<Need> {
    for Need { call, places } in second {
        match first.iter_mut().find(|need| need.call == call) {
            Some(need) => need.places.extend(places),
            None => first.push(Need { call, places }),
        }
    }
    first
}

/// What was found so far.
struct Places<'a> {
    functions: &'a KnownFunctions,
    found: Vec<Need>,
}

impl Places<'_> {
    fn visit(&mut self, expression: &Expr, conditions: &[Expr]) -> Result<()> {
        match expression {
            Expr::Case(case) => self.visit_case(case, conditions),
            Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
                self.visit_junction(expression, *op, conditions)
            }
            Expr::AggregateFunction(AggregateFunction { params, .. }) => {
                let within = self.visit_filter(params.filter.as_deref(), conditions)?;
                let keys = params.order_by.iter().map(|key| &key.expr);
                params.args.iter().chain(keys).try_for_each(|part| self.visit(part, &within))
            }
            Expr::WindowFunction(function) => {
                let WindowFunction { params, .. } = function.as_ref();
                let within = self.visit_filter(params.filter.as_deref(), conditions)?;
                params.args.iter().try_for_each(|part| self.visit(part, &within))?;
                let keys = params.order_by.iter().map(|key| &key.expr);
                params.partition_by.iter().chain(keys).try_for_each(|part| self.visit(part, conditions))
            }
            expression => {
                expression.apply_children(|child| {
                    self.visit(child, conditions)?;
                    Ok(TreeNodeRecursion::Continue)
                })?;
                if self.functions.is_call(expression) {
                    self.record(expression, conditions);
                }
                Ok(())
            }
        }
    }

    fn record(&mut self, call: &Expr, conditions: &[Expr]) {
        // A lambda's variables have values within it only, and the call is computed for the row.
        // Without such a condition, one behind it must not be evaluated where it fails.
        let known = conditions.iter().take_while(|part| !reads_lambda_variable(part)).count();
        let (before, behind) = conditions.split_at(known);
        let behind = behind.iter().flat_map(split_conjunction);
        let behind = behind.filter(|part| !reads_lambda_variable(part) && !may_fail(part));
        let place: Vec<Expr> = before.iter().chain(behind).cloned().collect();
        match self.found.iter_mut().find(|found| found.call == *call) {
            Some(found) if found.places.contains(&place) => {}
            Some(found) => found.places.push(place),
            None => self.found.push(Need { call: call.clone(), places: vec![place] }),
        }
    }

    /// The conditions under which the arguments of an aggregate with a FILTER are read.
    fn visit_filter(&mut self, filter: Option<&Expr>, conditions: &[Expr]) -> Result<Vec<Expr>> {
        let mut within = conditions.to_vec();
        if let Some(filter) = filter {
            self.visit(filter, conditions)?;
            extend(&mut within, filter.clone());
        }
        Ok(within)
    }

    fn visit_case(&mut self, case: &Case, conditions: &[Expr]) -> Result<()> {
        let mut conditions = conditions.to_vec();
        if let Some(base) = &case.expr {
            self.visit(base, &conditions)?;
        }
        for (when, then) in &case.when_then_expr {
            self.visit(when, &conditions)?;
            let taken = match &case.expr {
                Some(base) => base.as_ref().clone().eq(when.as_ref().clone()),
                None => when.as_ref().clone(),
            };
            let mut within = conditions.clone();
            // One by one, the cheap ones first: those before a call protect its arguments.
            let (costly, cheap): (Vec<_>, Vec<_>) = split_conjunction_owned(taken.clone())
                .into_iter()
                .partition(|part| has_call(part, self.functions).is_some());
            for part in cheap.into_iter().chain(costly) {
                extend(&mut within, part);
            }
            self.visit(then, &within)?;
            extend(&mut conditions, Expr::IsNotTrue(Box::new(taken)));
        }
        case.else_expr.iter().try_for_each(|otherwise| self.visit(otherwise, &conditions))
    }

    /// Operands of AND and OR. Those without calls come first. Each operand is evaluated only for rows that the ones
    /// before it leave undecided.
    fn visit_junction(&mut self, expression: &Expr, op: Operator, conditions: &[Expr]) -> Result<()> {
        let mut operands = Vec::new();
        flatten(expression, op, &mut operands);
        let mut cheap = Vec::new();
        let mut costly = Vec::new();
        for operand in operands {
            if has_call(operand, self.functions).is_some() { &mut costly } else { &mut cheap }.push(operand);
        }
        let mut conditions = conditions.to_vec();
        for operand in cheap.into_iter().chain(costly) {
            self.visit(operand, &conditions)?;
            let operand = Box::new(operand.clone());
            let undecided = if op == Operator::And { Expr::IsNotFalse(operand) } else { Expr::IsNotTrue(operand) };
            extend(&mut conditions, undecided);
        }
        Ok(())
    }
}

fn flatten<'a>(expression: &'a Expr, junction: Operator, operands: &mut Vec<&'a Expr>) {
    match expression {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if *op == junction => {
            flatten(left, junction, operands);
            flatten(right, junction, operands);
        }
        operand => operands.push(operand),
    }
}

/// Adds a condition, unless a second evaluation could differ or is not possible.
fn extend(conditions: &mut Vec<Expr>, condition: Expr) {
    if !condition.is_volatile() && !has_subquery(&condition) {
        conditions.push(condition);
    }
}
