//! Calls exchanged for columns, inside of expressions.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

/// The expression with columns in place of calls.
pub(super) fn replace(expression: Expr, columns: &[(Expr, Expr)]) -> Result<Expr> {
    let replaced = expression.transform_down(|part| {
        Ok(match find(columns, &part) {
            Some(column) => Transformed::new(column.clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(part),
        })
    })?;
    Ok(replaced.data)
}

/// The column that stands for a call.
pub(super) fn find<'a>(columns: &'a [(Expr, Expr)], call: &Expr) -> Option<&'a Expr> {
    columns.iter().find(|(of, _)| of == call).map(|(_, column)| column)
}
