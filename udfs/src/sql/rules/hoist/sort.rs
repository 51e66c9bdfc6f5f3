//! Sorts.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Sort, SortExpr};

use super::rewrite::Hoist;
use super::scored::{Scored, keep};
use crate::sql::rules::expressions::{replace, union};

impl Hoist<'_> {
    pub(super) fn sort(&self, sort: Sort, wanted: &[Expr]) -> Result<Scored> {
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
}
