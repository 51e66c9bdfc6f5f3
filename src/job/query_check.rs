//! Checks that a job can run a query unit by unit.

use anyhow::{Result, bail};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{JoinType, LogicalPlan};

use super::query_error::root_error;
use super::query_table::INPUT;

/// Refuses a query whose result for a unit depends on other units.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let scans = scans(plan)?;
    if scans != 1 {
        bail!("--sql: the query reads {INPUT} {scans} times; it must read it once, as its rows are read once");
    }
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::TableScan(_) => return Ok(()),
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Unnest(unnest) => &unnest.input,
            LogicalPlan::Join(join) => {
                use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
                let on_the_left = self::scans(&join.left)? == 1;
                let side = if on_the_left { &join.left } else { &join.right };
                match (on_the_left, join.join_type) {
                    (_, Inner)
                    | (true, Left | LeftSemi | LeftAnti | LeftMark)
                    | (false, Right | RightSemi | RightAnti | RightMark) => side,
                    (_, kind) => bail!(
                        "--sql: a {} JOIN must keep the rows of {INPUT}, or which rows it adds would depend on the unit; turn it round",
                        kind.to_string().to_uppercase()
                    ),
                }
            }
            other => bail!(
                "--sql: {} needs all rows of {INPUT} at once, and a unit has only its own; do it in a query over OUTPUT",
                operation(other)
            ),
        };
    }
}

/// How many times a plan and its subqueries read the input.
fn scans(plan: &LogicalPlan) -> Result<usize> {
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans += usize::from(scan.table_name.table() == INPUT);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| root_error(&error))?;
    Ok(scans)
}

/// The SQL name of an operator.
fn operation(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "an aggregate, GROUP BY or DISTINCT",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Union(_) => "UNION",
        _ => "this statement",
    }
}
