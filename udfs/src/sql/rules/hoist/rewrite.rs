//! Rewrites a plan, node by node.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};

use super::scored::Scored;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::rules::expressions::{columns_of, find, name_of, replace};
use crate::sql::rules::guard_calls::guard_calls;

/// What rewriting needs. Each kind of node is rewritten in a file of its own.
pub(in crate::sql::rules) struct Hoist<'a> {
    pub(super) functions: &'a KnownFunctions,
    names: &'a AliasGenerator,
}

impl<'a> Hoist<'a> {
    /// Moves calls of `functions`, in columns that `names` names.
    pub(in crate::sql::rules) fn new(functions: &'a KnownFunctions, names: &'a AliasGenerator) -> Self {
        Self { functions, names }
    }

    /// Rewrites a plan whose parent would like to have the calls `wanted` as columns. The result has the plan's
    /// columns, in the same order, followed by some of those wanted; without `wanted` it has the same schema.
    pub(in crate::sql::rules) fn rewrite(&self, plan: LogicalPlan, wanted: &[Expr]) -> Result<Scored> {
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

    /// The distinct calls in expressions. Calls in arguments of others are included, before those others.
    pub(super) fn calls(&self, expressions: &[Expr]) -> Result<Vec<Expr>> {
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
    pub(super) fn nested(&self, calls: &[Expr]) -> Result<Vec<Expr>> {
        let mut nested = Vec::new();
        for call in calls {
            call.apply_children(|argument| {
                self.collect(argument, &mut nested)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(nested)
    }

    /// Adds the calls that are not columns yet, from the innermost out.
    pub(super) fn compute(&self, mut scored: Scored, calls: &[Expr]) -> Result<Scored> {
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

    /// Replaces calls in expressions over a plan by its columns, and makes the others conditional where possible.
    pub(super) fn guard(&self, expressions: Vec<Expr>, columns: &[(Expr, Expr)], always: &[Expr]) -> Result<Vec<Expr>> {
        let expressions = expressions.into_iter().map(|part| replace(part, columns)).collect::<Result<Vec<_>>>()?;
        let guarded = guard_calls(self.functions, &expressions, always)?;
        expressions.into_iter().map(|part| replace(part, &guarded)).collect()
    }
}
