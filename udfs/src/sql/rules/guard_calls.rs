//! Keeps calls from scoring rows whose result is not used.
//!
//! An operator computes a call for all rows before the expression around it is evaluated, so a call within a branch
//! would run for rows of the other branches too. The condition is therefore moved into the call, whose score is NULL
//! where its query is:
//!
//! ```text
//! CASE WHEN cheap THEN rerank(q, p) ELSE 0 END  ->  CASE WHEN cheap THEN rerank(CASE WHEN cheap THEN q END, p) ELSE 0 END
//! cheap OR rerank(q, p) > 1               ->  cheap OR rerank(CASE WHEN cheap IS NOT TRUE THEN q END, p) > 1
//! max(rerank(q, p)) FILTER (WHERE cheap)  ->  max(rerank(CASE WHEN cheap THEN q END, p)) FILTER (WHERE cheap)
//! ```
//!
//! A call that is needed in several places gets the conditions of all of them, and none if one of them has none.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, Case, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::expressions::replace;
use crate::sql::catalogue::KnownFunctions;

/// The calls in `expressions` that need not run for all rows, each with its replacement. Calls in `always` stay
/// unchanged.
///
/// A replacement contains the replacements of calls before it: [`replace`] makes them all at once.
pub(super) fn guard_calls(
    functions: &KnownFunctions,
    expressions: &[Expr],
    always: &[Expr],
) -> Result<Vec<(Expr, Expr)>> {
    let mut places = Places { functions, found: Vec::new() };
    for expression in expressions {
        places.visit(expression, &[])?;
    }
    let calls: Vec<Expr> = places.found.iter().map(|(call, _)| call.clone()).collect();
    let mut guarded = Vec::new();
    for (position, (call, places)) in places.found.into_iter().enumerate() {
        let mut needs: Vec<Vec<Expr>> = Vec::new();
        for conditions in places {
            let conditions = known_before(conditions, &calls[position..])?;
            if !needs.contains(&conditions) {
                needs.push(conditions);
            }
        }
        let for_all_rows = always.contains(&call) || needs.iter().any(Vec::is_empty);
        if let (Expr::ScalarFunction(inner), false) = (&call, for_all_rows) {
            let inner = with_conditions(inner.clone(), &needs);
            let arguments =
                inner.args.into_iter().map(|argument| replace(argument, &guarded)).collect::<Result<_>>()?;
            guarded.push((call, Expr::ScalarFunction(ScalarFunction { args: arguments, ..inner })));
        }
    }
    Ok(guarded)
}

/// Where each distinct call stands. Calls in arguments of others and in conditions come before those that depend on
/// them.
struct Places<'a> {
    functions: &'a KnownFunctions,
    /// For each place, the conditions under which it is evaluated, from the outside in. Each condition is itself
    /// evaluated only for rows for which those before it are true.
    found: Vec<(Expr, Vec<Vec<Expr>>)>,
}

impl Places<'_> {
    fn visit(&mut self, expression: &Expr, conditions: &[Expr]) -> Result<()> {
        match expression {
            Expr::Case(case) => self.visit_case(case, conditions),
            Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
                self.visit_junction(expression, *op, conditions)
            }
            Expr::AggregateFunction(AggregateFunction { params, .. }) => {
                let mut within = conditions.to_vec();
                if let Some(filter) = &params.filter {
                    self.visit(filter, conditions)?;
                    extend(&mut within, filter.as_ref().clone());
                }
                let keys = params.order_by.iter().map(|key| &key.expr);
                params.args.iter().chain(keys).try_for_each(|part| self.visit(part, &within))
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
        match self.found.iter_mut().find(|(found, _)| found == call) {
            Some((_, places)) => places.push(conditions.to_vec()),
            None => self.found.push((call.clone(), vec![conditions.to_vec()])),
        }
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
            extend(&mut within, taken.clone());
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
            let has_calls = operand.exists(|part| Ok(self.functions.is_call(part)))?;
            if has_calls { &mut costly } else { &mut cheap }.push(operand);
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
    let subquery =
        condition.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))));
    if !condition.is_volatile() && !subquery.unwrap_or(true) {
        conditions.push(condition);
    }
}

/// The conditions up to the first that itself needs one of `later`, the call and those that come after it. With fewer
/// conditions, more rows are scored than necessary.
fn known_before(mut conditions: Vec<Expr>, later: &[Expr]) -> Result<Vec<Expr>> {
    for (count, condition) in conditions.iter().enumerate() {
        if condition.exists(|part| Ok(later.contains(part)))? {
            conditions.truncate(count);
            break;
        }
    }
    Ok(conditions)
}

/// The call with NULL arguments unless all conditions of one of the places `needs` are true. Plans are optimized
/// several times, so a call that already has this form is left alone.
fn with_conditions(mut call: ScalarFunction, needs: &[Vec<Expr>]) -> ScalarFunction {
    if call.args.first().is_some_and(is_conditional) {
        return call;
    }
    // The passage of a NULL query is not read, but evaluating it may fail where the call was not meant to be evaluated.
    for (position, argument) in call.args.iter_mut().take(2).enumerate() {
        if position == 0 || !matches!(argument, Expr::Column(_) | Expr::Literal(..)) {
            let places = needs.iter().rev().map(|conditions| conditional(argument, conditions));
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

/// Whether an argument was made by [`with_conditions`].
fn is_conditional(argument: &Expr) -> bool {
    let Expr::Case(Case { expr: None, else_expr, .. }) = argument else { return false };
    else_expr.as_ref().is_none_or(|otherwise| is_conditional(otherwise))
}

fn case(condition: Expr, then: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case(Case::new(None, vec![(Box::new(condition), Box::new(then))], otherwise.map(Box::new)))
}
