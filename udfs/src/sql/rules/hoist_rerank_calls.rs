//! Moves calls to where they can run, and runs each once.
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
//! A filter is split, so that rows that fail the rest of it are not scored. A call that a node above repeats is
//! computed below and carried up. `SELECT *, rerank(q, p) AS s FROM t WHERE rerank(q, p) > 1 AND cheap = 0` becomes
//!
//! ```text
//! Projection: q, p, cheap, __rerank_1 AS s
//!   Filter: __rerank_1 > 1
//!     Projection: q, p, cheap, rerank(q, p) AS __rerank_1
//!       Filter: cheap = 0
//!         TableScan: t
//! ```

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::expressions::has_call;
use super::hoist::{Hoist, has_nested};
use crate::sql::catalogue::KnownFunctions;

/// Moves calls into projections and filters. It runs last: other rules would merge the projections and filters again,
/// in every pass.
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
        let (mut found, mut nested) = (false, false);
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expression| {
                found = found || has_call(expression, &self.functions).is_some();
                nested = nested || has_nested(expression, &self.functions)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if !found && !nested {
            return Ok(Transformed::no(plan));
        }
        let hoist = Hoist::new(&self.functions, config.alias_generator(), &plan)?;
        let plan = if found { hoist.rewrite_all(plan)? } else { plan };
        hoist.unnest(plan).map(|plan| Transformed::yes(plan.data))
    }
}
