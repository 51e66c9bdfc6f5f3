//! Window functions.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, Window};

use super::rewrite::Hoist;
use super::scored::{Late, Scored};
use crate::sql::rules::needs::{Need, needs, union};

impl Hoist<'_> {
    /// Rows pass a window function unchanged. Calls that it does not read may wait for a filter on its result.
    pub(super) fn window(&self, window: Window, wanted: &[Need], late: Late) -> Result<Scored> {
        let functions = window.window_expr.len();
        let own = needs(self.functions, &window.window_expr)?;
        let input = Arc::clone(window.input.schema());
        let wanted: Vec<Need> = wanted.iter().filter(|wanted| wanted.reads_only(&input)).cloned().collect();
        let scored = self.rewrite(Arc::unwrap_or_clone(window.input), &union(own, wanted.clone()), late)?;
        let expressions = scored.translate_all(window.window_expr)?;
        let above = scored.read_above(self, &wanted)?;
        let (mut scored, mut expressions) = self.score(scored, expressions, &above)?;
        self.tell_apart(&mut expressions);
        scored.plan = LogicalPlan::Window(Window::try_new(expressions, Arc::new(scored.plan))?);
        // A window function sorts the rows for itself.
        scored.order.clear();
        let last = |mut columns: Vec<_>| columns.split_off(columns.len() - functions);
        let columns = last(scored.plan.schema().columns());
        scored.stand_for(last(window.schema.columns()), columns);
        self.settle(scored.refresh()?, late, &wanted)
    }
}
