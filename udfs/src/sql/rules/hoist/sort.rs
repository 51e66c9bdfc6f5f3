//! Sorts and limits.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Limit, LogicalPlan, Sort, SortExpr};

use super::rewrite::Hoist;
use super::scored::{Late, Scored};
use crate::sql::rules::needs::{Need, needs, union};

impl Hoist<'_> {
    /// A sort that keeps only the first rows is a limit.
    pub(super) fn sort(&self, sort: Sort, wanted: &[Need], late: Late) -> Result<Scored> {
        let keys: Vec<Expr> = sort.expr.iter().map(|key| key.expr.clone()).collect();
        let own = needs(self.functions, &keys)?;
        let below = if sort.fetch.is_some() { Late::Yes } else { late };
        let scored = self.rewrite(Arc::unwrap_or_clone(sort.input), &union(own, wanted.to_vec()), below)?;
        let keys = scored.translate_all(keys)?;
        let above = scored.read_above(self, wanted)?;
        let (mut scored, keys) = self.score(scored, keys, &above)?;
        // Where rows are spread over partitions, DataFusion does not find every expression again in the order of its
        // input.
        let keys = if scored.sources.is_empty() { keys } else { self.columns_for(&mut scored, keys)? };
        let expr: Vec<_> = keys.into_iter().zip(sort.expr).map(|(expr, key)| SortExpr { expr, ..key }).collect();
        scored.order.clone_from(&expr);
        scored.plan = LogicalPlan::Sort(Sort { expr, input: Arc::new(scored.plan), fetch: sort.fetch });
        self.settle(scored.refresh()?, late, wanted)
    }

    pub(super) fn limit(&self, limit: Limit, wanted: &[Need], late: Late) -> Result<Scored> {
        let Limit { skip, fetch, input } = limit;
        let mut scored = self.rewrite(Arc::unwrap_or_clone(input), wanted, Late::Yes)?;
        scored.plan = LogicalPlan::Limit(Limit { skip, fetch, input: Arc::new(scored.plan) });
        self.settle(scored, late, wanted)
    }
}
