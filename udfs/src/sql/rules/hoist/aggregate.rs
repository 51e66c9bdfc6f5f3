//! Aggregates and window functions, whose columns are named after their expressions.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Window};

use super::rewrite::Hoist;
use super::scored::{Scored, renamed};
use crate::sql::rules::expressions::{replace, union};

impl Hoist<'_> {
    pub(super) fn aggregate(&self, aggregate: Aggregate) -> Result<Scored> {
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

    pub(super) fn window(&self, window: Window, wanted: &[Expr]) -> Result<Scored> {
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
}
