//! Rewrites a plan, node by node.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{DmlStatement, Expr, Filter, LogicalPlan, WriteOp};
use datafusion::optimizer::OptimizerConfig;

use super::scored::{Late, Scored};
use crate::reranker::ScoreCache;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::config::RerankConfig;
use crate::sql::rules::expressions::{has_call, name_of};
use crate::sql::rules::needs::Need;

/// A cache that holds fewer windows than this forgets a score before a join repeats its row.
const KEPT_WINDOWS: usize = 4;

/// Prefix of the columns that the rule adds.
const PREFIX: &str = "__rerank";

/// What rewriting needs. Each kind of node is rewritten in a file of its own.
pub(in crate::sql::rules) struct Hoist<'a> {
    pub(super) functions: &'a KnownFunctions,
    names: &'a AliasGenerator,
    /// Whether the query keeps its scores, so that rows which a join repeats are scored once.
    pub(super) keeps_scores: bool,
    /// Names that the plan has already.
    taken: HashSet<String>,
}

impl<'a> Hoist<'a> {
    /// Moves calls of `functions` in a plan.
    pub(in crate::sql::rules) fn new(
        functions: &'a KnownFunctions,
        config: &'a dyn OptimizerConfig,
        plan: &LogicalPlan,
    ) -> Result<Self> {
        let mut taken = HashSet::new();
        plan.apply_with_subqueries(|node| {
            let columns = node.schema().fields().iter().map(|field| field.name());
            taken.extend(columns.filter(|name| name.starts_with(PREFIX)).cloned());
            Ok(TreeNodeRecursion::Continue)
        })?;
        let settings = RerankConfig::of(&config.options());
        let keeps_scores = ScoreCache::scores_in(settings.score_cache) / KEPT_WINDOWS >= settings.window_rows;
        Ok(Self { functions, names: config.alias_generator(), keeps_scores, taken })
    }

    /// A column name that is nowhere in the plan.
    pub(super) fn next_name(&self) -> String {
        loop {
            let name = self.names.next(PREFIX);
            if !self.taken.contains(&name) {
                return name;
            }
        }
    }

    /// Rewrites a whole plan, or a subquery. The result has the same schema.
    pub(in crate::sql::rules) fn rewrite_all(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let schema = Arc::clone(plan.schema());
        self.rewrite(plan, &[], Late::No)?.restore(&schema)
    }

    /// Rewrites a plan whose parent reads the calls `wanted`: those that the plan computes for itself become columns of
    /// the result.
    pub(super) fn rewrite(&self, plan: LogicalPlan, wanted: &[Need], late: Late) -> Result<Scored> {
        let plan = plan.map_subqueries(|plan| Ok(Transformed::yes(self.rewrite_all(plan)?)))?.data;
        match plan {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                self.filter(predicate, Arc::unwrap_or_clone(input), wanted, late)
            }
            LogicalPlan::Projection(projection) => self.projection(projection, wanted, late),
            LogicalPlan::Sort(sort) => self.sort(sort, wanted, late),
            LogicalPlan::Limit(limit) => self.limit(limit, wanted, late),
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias, wanted, late),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, late),
            LogicalPlan::Window(window) => self.window(window, wanted, late),
            LogicalPlan::Join(join) => self.join(join, wanted, late),
            plan => {
                self.refuse_in(&plan)?;
                let plan = plan.map_children(|child| Ok(Transformed::yes(self.rewrite_all(child)?)))?.data;
                Ok(Scored::of(plan))
            }
        }
    }

    fn refuse_in(&self, plan: &LogicalPlan) -> Result<()> {
        let refused = |expressions: &[Expr], place: &str| match expressions
            .iter()
            .find_map(|part| has_call(part, self.functions))
        {
            Some(call) => Err(DataFusionError::Plan(format!("{} cannot be used in {place}", name_of(&call)))),
            None => Ok(()),
        };
        match plan {
            LogicalPlan::Values(_) => refused(&plan.expressions(), "VALUES; use SELECT"),
            LogicalPlan::Repartition(_) => refused(&plan.expressions(), "a partitioning; compute it in a subquery"),
            // Tables evaluate these themselves, row by row.
            LogicalPlan::Dml(DmlStatement {
                op: op @ (WriteOp::Delete | WriteOp::Update | WriteOp::MergeInto(_)),
                input,
                ..
            }) => {
                let place = format!(
                    "{}; store the scores first, with CREATE TABLE .. AS SELECT, and use that table's column",
                    op.name().to_uppercase()
                );
                input.apply_with_subqueries(|node| {
                    refused(&node.expressions(), &place)?;
                    Ok(TreeNodeRecursion::Continue)
                })?;
                refused(&plan.expressions(), &place)
            }
            _ => Ok(()),
        }
    }

    /// Whether an expression has calls.
    pub(super) fn scores(&self, expression: &Expr) -> bool {
        has_call(expression, self.functions).is_some()
    }
}
