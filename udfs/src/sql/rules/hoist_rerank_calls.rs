//! Moves calls to where they can run, and lets each run once.
//!
//! DataFusion plans asynchronous functions in projections and filters. Elsewhere they fail while running or, in two
//! aggregates at once, give a wrong result. `SELECT q, max(rerank(q, p)), max(rerank(p, q)) FROM t GROUP BY q` becomes
//!
//! ```text
//! Aggregate: groupBy=[[q]], aggr=[[max(__rerank_1), max(__rerank_2)]]
//!   Projection: q, p, rerank(q, p) AS __rerank_1, rerank(p, q) AS __rerank_2
//!     TableScan: t
//! ```
//!
//! A filter is split, so that rows that fail the rest of it are not scored; and a call that a node above repeats is
//! computed below and carried up. `SELECT *, rerank(q, p) AS s FROM t WHERE rerank(q, p) > 1 AND cheap = 0` becomes
//!
//! ```text
//! Projection: q, p, cheap, __rerank_1 AS s
//!   Filter: __rerank_1 > 1
//!     Projection: q, p, cheap, rerank(q, p) AS __rerank_1
//!       Filter: cheap = 0
//!         TableScan: t
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, LogicalPlan, Projection, Sort, SortExpr, SubqueryAlias, Window,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::expressions::{find, replace};
use super::guard_calls::guard_calls;
use crate::sql::catalogue::KnownFunctions;

/// Puts calls into projections and filters. Comes last among the rules: those before it may move the projections and
/// filters back together, once more in every pass.
#[derive(Debug)]
pub(crate) struct HoistRerankCalls {
    functions: KnownFunctions,
}

impl HoistRerankCalls {
    pub(crate) const NAME: &'static str = "HoistRerankCalls";

    pub(crate) fn new(functions: KnownFunctions) -> Self {
        Self { functions }
    }
}

impl OptimizerRule for HoistRerankCalls {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expression| {
                found = found || expression.exists(|part| Ok(self.functions.is_call(part)))?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if !found {
            return Ok(Transformed::no(plan));
        }
        let hoist = Hoist { functions: &self.functions, names: config.alias_generator() };
        hoist.rewrite(plan, &[]).map(|scored| Transformed::yes(scored.plan))
    }
}

/// A plan with score columns after its own.
struct Scored {
    plan: LogicalPlan,
    /// Calls that are columns of the plan, in terms of its own columns.
    columns: Vec<(Expr, Expr)>,
}

struct Hoist<'a> {
    functions: &'a KnownFunctions,
    names: &'a AliasGenerator,
}

impl Hoist<'_> {
    /// Rewrites a plan whose parent would like to have the calls `wanted` as columns. The result has the plan's columns,
    /// in the same order, followed by some of those wanted; without `wanted` it has the same schema.
    fn rewrite(&self, plan: LogicalPlan, wanted: &[Expr]) -> Result<Scored> {
        let plan = plan.map_subqueries(|plan| Ok(Transformed::yes(self.rewrite(plan, &[])?.plan)))?.data;
        match plan {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                self.filter(predicate, Arc::unwrap_or_clone(input), wanted)
            }
            LogicalPlan::Projection(projection) => self.projection(projection, wanted),
            LogicalPlan::Sort(sort) => self.sort(sort, wanted),
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias, wanted),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window, wanted),
            LogicalPlan::Join(join) => self.join(join, wanted),
            plan => {
                self.refuse_in(&plan)?;
                let plan = plan.map_children(|child| Ok(Transformed::yes(self.rewrite(child, &[])?.plan)))?.data;
                Ok(Scored { plan, columns: Vec::new() })
            }
        }
    }

    fn refuse_in(&self, plan: &LogicalPlan) -> Result<()> {
        let place = match plan {
            LogicalPlan::Values(_) => "VALUES; use SELECT",
            LogicalPlan::Repartition(_) => "a partitioning; compute it in a subquery",
            _ => return Ok(()),
        };
        match self.calls(&plan.expressions())?.first() {
            Some(call) => Err(DataFusionError::Plan(format!("{} cannot be used in {place}", name_of(call)))),
            None => Ok(()),
        }
    }

    /// The distinct calls in expressions, those in arguments of others included, and before them.
    fn calls(&self, expressions: &[Expr]) -> Result<Vec<Expr>> {
        let mut calls = Vec::new();
        for expression in expressions {
            self.collect(expression, &mut calls)?;
        }
        Ok(calls)
    }

    fn collect(&self, expression: &Expr, calls: &mut Vec<Expr>) -> Result<()> {
        expression.apply_children(|child| {
            self.collect(child, calls)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if self.functions.is_call(expression) && !calls.contains(expression) {
            calls.push(expression.clone());
        }
        Ok(())
    }

    /// The calls in the arguments of other calls.
    fn nested(&self, calls: &[Expr]) -> Result<Vec<Expr>> {
        let mut nested = Vec::new();
        for call in calls {
            call.apply_children(|argument| {
                self.collect(argument, &mut nested)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(nested)
    }

    /// Adds those calls as columns that are none yet, from the innermost out.
    fn compute(&self, mut scored: Scored, calls: &[Expr]) -> Result<Scored> {
        let mut missing: Vec<&Expr> = calls.iter().filter(|call| find(&scored.columns, call).is_none()).collect();
        while !missing.is_empty() {
            let (mut ready, mut later) = (Vec::new(), Vec::new());
            for call in &missing {
                let inner = self.nested(std::slice::from_ref(*call))?;
                let list = if inner.iter().any(|inner| missing.contains(&inner)) { &mut later } else { &mut ready };
                list.push(*call);
            }
            let mut expressions = columns_of(scored.plan.schema());
            let mut columns = scored.columns;
            let mut added = Vec::new();
            for call in ready {
                let name = self.names.next("__rerank");
                expressions.push(replace(call.clone(), &columns)?.alias(&name));
                added.push((call.clone(), Expr::Column(Column::new_unqualified(name))));
            }
            columns.extend(added);
            let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(scored.plan))?);
            scored = Scored { plan, columns };
            missing = later;
        }
        Ok(scored)
    }

    /// Expressions over a plan, its columns in place of calls and the others conditional where they may be.
    fn guard(&self, expressions: Vec<Expr>, columns: &[(Expr, Expr)], always: &[Expr]) -> Result<Vec<Expr>> {
        let expressions = expressions.into_iter().map(|part| replace(part, columns)).collect::<Result<Vec<_>>>()?;
        let guarded = guard_calls(self.functions, &expressions, always)?;
        expressions.into_iter().map(|part| replace(part, &guarded)).collect()
    }

    fn filter(&self, predicate: Expr, input: LogicalPlan, wanted: &[Expr]) -> Result<Scored> {
        let schema = Arc::clone(input.schema());
        let (parts, input) = self.below_projection(split_conjunction_owned(predicate), input)?;
        let Some(predicate) = conjunction(parts) else { return self.rewrite(input, wanted) };
        let own = self.calls(std::slice::from_ref(&predicate))?;
        let scored = self.rewrite(input, &union(&own, wanted))?;
        self.filter_scored(predicate, scored, &schema, wanted)
    }

    /// Puts conditions below a projection with calls, where they read none of them. DataFusion does so itself, but
    /// takes a field of a call that is a struct (`rerank_details(..)['score']`) further down than any filter.
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

    /// Filters a plan that is rewritten: by what needs no more calls first, then by one call after the other, so that a
    /// row that one of them drops is not scored by the next.
    fn filter_scored(&self, predicate: Expr, scored: Scored, schema: &DFSchema, wanted: &[Expr]) -> Result<Scored> {
        let parts = self.guard(split_conjunction_owned(predicate), &scored.columns, wanted)?;
        let mut stages = self.stages(parts)?.into_iter();
        let mut scored = scored;
        while let Some(stage) = stages.next() {
            let own = self.calls(&stage)?;
            let later = self.calls(&stages.as_slice().concat())?;
            // Calls of this filter alone stay in it; what the parent repeats, and what others need, is a column.
            let shared = own.iter().filter(|call| wanted.contains(call) || later.contains(call));
            let shared = shared.cloned().collect::<Vec<_>>();
            let shared = union(&self.nested(&own)?, &shared);
            let Scored { plan, columns } = self.compute(scored, &union(&self.nested(&shared)?, &shared))?;
            let stage = stage.into_iter().map(|part| replace(part, &columns)).collect::<Result<Vec<_>>>()?;
            scored = Scored { plan: filtered(stage, plan)?, columns };
        }
        keep(scored, schema, wanted)
    }

    /// Conditions in the order in which they are evaluated: those without calls, then for each condition with calls
    /// that none before it has all those that need no others.
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

    fn projection(&self, projection: Projection, wanted: &[Expr]) -> Result<Scored> {
        let sources = sources(&projection);
        let Projection { expr, input, schema, .. } = projection;
        let below: Vec<Expr> = wanted.iter().map(|call| substitute(call.clone(), &sources)).collect::<Result<_>>()?;
        let own = self.calls(&expr)?;
        let scored = self.rewrite(Arc::unwrap_or_clone(input), &union(&own, &below))?;
        let expr = self.guard(expr, &scored.columns, &[])?;
        let Scored { plan, columns } = self.compute(scored, &self.nested(&self.calls(&expr)?)?)?;
        let mut columns_above = Vec::new();
        let mut carried = Vec::new();
        for (call, below) in wanted.iter().zip(&below) {
            // A column of the projection itself may be the call.
            let own = schema.columns().into_iter().find(|column| sources.get(column) == Some(below));
            if let Some(column) = own {
                columns_above.push((call.clone(), Expr::Column(column)));
            } else if let Some(column) = find(&columns, below) {
                columns_above.push((call.clone(), column.clone()));
                if !carried.contains(column) {
                    carried.push(column.clone());
                }
            }
        }
        let mut expressions = Vec::with_capacity(expr.len());
        for (expression, (qualifier, field)) in expr.into_iter().zip(schema.iter()) {
            expressions.push(named(replace(expression, &columns)?, qualifier, field.name()));
        }
        expressions.extend(carried);
        let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?);
        Ok(Scored { plan, columns: columns_above })
    }

    fn sort(&self, sort: Sort, wanted: &[Expr]) -> Result<Scored> {
        let schema = Arc::clone(sort.input.schema());
        let keys: Vec<Expr> = sort.expr.iter().map(|key| key.expr.clone()).collect();
        let own = self.calls(&keys)?;
        let scored = self.rewrite(Arc::unwrap_or_clone(sort.input), &union(&own, wanted))?;
        let keys = self.guard(keys, &scored.columns, wanted)?;
        let Scored { plan, columns } = self.compute(scored, &self.calls(&keys)?)?;
        let keys = keys.into_iter().zip(sort.expr);
        let keys = keys.map(|(expr, key)| Ok(SortExpr { expr: replace(expr, &columns)?, ..key }));
        let expr = keys.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlan::Sort(Sort { expr, input: Arc::new(plan), fetch: sort.fetch });
        keep(Scored { plan, columns }, &schema, wanted)
    }

    fn alias(&self, alias: SubqueryAlias, wanted: &[Expr]) -> Result<Scored> {
        let inner = alias.input.schema().columns().into_iter().map(Expr::Column);
        let sources: HashMap<Column, Expr> = alias.schema.columns().into_iter().zip(inner).collect();
        let below: Vec<Expr> = wanted.iter().map(|call| substitute(call.clone(), &sources)).collect::<Result<_>>()?;
        let Scored { plan, columns } = self.rewrite(Arc::unwrap_or_clone(alias.input), &below)?;
        let positions = plan.schema().columns();
        let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.alias)?);
        let outer: HashMap<Column, Column> = positions.into_iter().zip(plan.schema().columns()).collect();
        let columns = wanted.iter().zip(&below).filter_map(|(call, below)| {
            let Some(Expr::Column(column)) = find(&columns, below) else { return None };
            Some((call.clone(), Expr::Column(outer.get(column)?.clone())))
        });
        Ok(Scored { columns: columns.collect(), plan })
    }

    fn aggregate(&self, aggregate: Aggregate) -> Result<Scored> {
        let groups = aggregate.group_expr.len();
        let expressions = [aggregate.group_expr, aggregate.aggr_expr].concat();
        let scored = self.rewrite(Arc::unwrap_or_clone(aggregate.input), &self.calls(&expressions)?)?;
        let expressions = self.guard(expressions, &scored.columns, &[])?;
        let Scored { plan, columns } = self.compute(scored, &self.calls(&expressions)?)?;
        let mut group_expr = expressions.into_iter().map(|part| replace(part, &columns)).collect::<Result<Vec<_>>>()?;
        let aggr_expr = group_expr.split_off(groups);
        let plan = Aggregate::try_new(Arc::new(plan), group_expr, aggr_expr)?;
        let positions = plan.schema.columns();
        let scored = Scored { plan: LogicalPlan::Aggregate(plan), columns: Vec::new() };
        renamed(scored, positions, &aggregate.schema, &[])
    }

    fn window(&self, window: Window, wanted: &[Expr]) -> Result<Scored> {
        let inputs = window.input.schema().fields().len();
        let own = self.calls(&window.window_expr)?;
        let scored = self.rewrite(Arc::unwrap_or_clone(window.input), &union(&own, wanted))?;
        let expressions = self.guard(window.window_expr, &scored.columns, wanted)?;
        let Scored { plan, columns } = self.compute(scored, &self.calls(&expressions)?)?;
        let added = plan.schema().fields().len() - inputs;
        let expressions = expressions.into_iter().map(|part| replace(part, &columns)).collect::<Result<_>>()?;
        let plan = Window::try_new(expressions, Arc::new(plan))?;
        let mut positions = plan.schema.columns();
        positions.drain(inputs..inputs + added);
        renamed(Scored { plan: LogicalPlan::Window(plan), columns }, positions, &window.schema, wanted)
    }

    /// A call in a condition that reads one side is computed on that side. One that reads both becomes a filter above
    /// an inner join, and is refused in others, whose rows depend on it.
    fn join(&self, join: Join, wanted: &[Expr]) -> Result<Scored> {
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
        let left_wanted = left_side.carries(wanted, left_plan.schema());
        let right_wanted = right_side.carries(wanted, right_plan.schema());
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
            // The inputs are rewritten: the filter finds no more calls below it.
            Some(predicate) => self.filter_scored(predicate, scored, &join.schema, wanted),
        }
    }
}

/// What becomes of the rows of one side of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// They are in the result, or left out of it.
    Kept,
    /// There are NULLs in their place where the other side has no match.
    MayBeNull,
    /// They are not in the result.
    Dropped,
}

impl Side {
    /// Those of `wanted` that have the same value on this side and above the join. A call of which a text is a column
    /// is NULL where the row is.
    fn carries(self, wanted: &[Expr], schema: &DFSchema) -> Vec<Expr> {
        let is_null_with_its_row = |call: &Expr| match call {
            Expr::ScalarFunction(call) => call.args.iter().take(2).any(|text| matches!(text, Expr::Column(_))),
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

fn sides_of(join_type: JoinType) -> [Side; 2] {
    match join_type {
        JoinType::Inner => [Side::Kept, Side::Kept],
        JoinType::Left => [Side::Kept, Side::MayBeNull],
        JoinType::Right => [Side::MayBeNull, Side::Kept],
        JoinType::Full => [Side::MayBeNull, Side::MayBeNull],
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => [Side::Kept, Side::Dropped],
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => [Side::Dropped, Side::Kept],
    }
}

/// The name of the function that an expression calls.
fn name_of(call: &Expr) -> &str {
    match call {
        Expr::ScalarFunction(call) => call.name(),
        _ => "the function",
    }
}

fn union(first: &[Expr], second: &[Expr]) -> Vec<Expr> {
    let mut all = first.to_vec();
    all.extend(second.iter().filter(|call| !first.contains(call)).cloned());
    all
}

/// What the columns of a projection stand for.
fn sources(projection: &Projection) -> HashMap<Column, Expr> {
    let expressions = projection.expr.iter().map(|expr| expr.clone().unalias_nested().data);
    projection.schema.columns().into_iter().zip(expressions).collect()
}

/// The expression in terms of what its columns stand for.
fn substitute(expression: Expr, sources: &HashMap<Column, Expr>) -> Result<Expr> {
    let replaced = expression.transform_down(|part| {
        let source = if let Expr::Column(column) = &part { sources.get(column).cloned() } else { None };
        Ok(match source {
            Some(source) => Transformed::new(source, true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        })
    })?;
    Ok(replaced.data)
}

fn reads_only(call: &Expr, schema: &DFSchema) -> bool {
    call.column_refs().iter().all(|column| schema.has_column(column))
}

fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

fn filtered(conditions: Vec<Expr>, plan: LogicalPlan) -> Result<LogicalPlan> {
    match conjunction(conditions) {
        None => Ok(plan),
        Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?)),
    }
}

/// The expression under a name, if it has another.
fn named(expression: Expr, qualifier: Option<&datafusion::common::TableReference>, name: &str) -> Expr {
    let (own_qualifier, own_name) = expression.qualified_name();
    if own_qualifier.as_ref() == qualifier && own_name == name {
        return expression;
    }
    expression.alias_qualified(qualifier.cloned(), name)
}

/// Drops score columns that nobody above wants.
fn keep(scored: Scored, schema: &DFSchema, wanted: &[Expr]) -> Result<Scored> {
    let Scored { plan, columns } = scored;
    let columns: Vec<(Expr, Expr)> = columns.into_iter().filter(|(call, _)| wanted.contains(call)).collect();
    let mut expressions = columns_of(schema);
    for (_, column) in &columns {
        if !expressions.contains(column) {
            expressions.push(column.clone());
        }
    }
    if columns_of(plan.schema()) == expressions {
        return Ok(Scored { plan, columns });
    }
    let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?);
    Ok(Scored { plan, columns })
}

/// Some columns of a plan under the names of another schema, and the score columns that somebody above wants.
fn renamed(scored: Scored, positions: Vec<Column>, schema: &DFSchema, wanted: &[Expr]) -> Result<Scored> {
    let Scored { plan, columns } = scored;
    if plan.schema().columns() == schema.columns() {
        return Ok(Scored { plan, columns: Vec::new() });
    }
    let columns: Vec<(Expr, Expr)> = columns.into_iter().filter(|(call, _)| wanted.contains(call)).collect();
    let mut expressions: Vec<Expr> = positions
        .into_iter()
        .zip(schema.iter())
        .map(|(column, (qualifier, field))| named(Expr::Column(column), qualifier, field.name()))
        .collect();
    for (_, column) in &columns {
        if !expressions.contains(column) {
            expressions.push(column.clone());
        }
    }
    let plan = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?);
    Ok(Scored { plan, columns })
}
