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
//!
//! # When a call moves up
//!
//! An expression with calls waits above nodes that drop rows and do not read it: it is evaluated for the rows that are
//! left. `SELECT id, rerank(q, p) AS s FROM t ORDER BY bm25 LIMIT 100` becomes
//!
//! ```text
//! Projection: id, __rerank_3 AS s
//!   Projection: id, bm25, __rerank_1, __rerank_2, rerank(__rerank_1, __rerank_2) AS __rerank_3
//!     Sort: bm25, fetch=100
//!       Projection: id, bm25, q AS __rerank_1, p AS __rerank_2
//!         TableScan: t
//! ```
//!
//! | node | a call below it |
//! |---|---|
//! | `Limit`, `Sort` with a limit, `Filter` | moves above, unless the node reads its score |
//! | semi-join and anti-join | moves above, on the side that is kept |
//! | inner join by keys | moves above, unless `rerank.score_cache` holds fewer scores than four windows have rows |
//! | inner join without keys, outer join, `Sort`, window function, projection, alias | moves above only if a node further up drops rows. On a side of an outer join where NULLs may take the place of rows, only a call that is then NULL does |
//! | aggregate | stays; but `first_value(call ORDER BY ..)`, which is what `DISTINCT ON` becomes, chooses the call's columns, and the call runs for the chosen row |
//! | `UNION`, `DISTINCT`, subqueries in expressions, all others | stays |
//!
//! A condition with calls moves as the call does: a filter that DataFusion has pushed below a semi-join, an anti-join or an
//! inner join by keys moves above it again, unless the join itself scores pairs to find its matches, or an expression on
//! the way could fail for rows that the filter drops. Rows that an inner join repeats are scored once, as long as the
//! query's cache has their scores. The join passes the texts on, so a filter that drops most rows by their scores may be
//! better below a large join: `SET rerank.score_cache = 0` leaves it there.
//!
//! An expression with a volatile function stays where it is. Rows that were sorted stay in order: the sort is repeated
//! above the call, and DataFusion drops it where nothing has changed the order.
//!
//! A call that has its place is a function of its own, which is volatile: no other rule, in this pass or a later one,
//! moves or repeats it, and this rule leaves it alone.

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::expressions::has_call;
use super::hoist::{Hoist, has_nested_call};
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
                nested = nested || has_nested_call(expression, &self.functions)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if !found && !nested {
            return Ok(Transformed::no(plan));
        }
        let hoist = Hoist::new(&self.functions, config, &plan)?;
        let plan = if found { hoist.rewrite_all(plan)? } else { plan };
        hoist.separate_nested_calls(plan).map(|plan| Transformed::yes(plan.data))
    }
}
