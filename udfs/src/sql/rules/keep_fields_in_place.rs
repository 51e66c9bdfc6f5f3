//! Keeps the fields of details where they are read.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::AnalyzerRule;

use crate::sql::kept_field::KeptField;

/// Replaces `get_field` over what `rerank_details` returns by [`KeptField`].
#[derive(Debug)]
pub(crate) struct KeepFieldsInPlace;

impl KeepFieldsInPlace {
    pub(crate) const NAME: &'static str = "KeepFieldsInPlace";
}

impl AnalyzerRule for KeepFieldsInPlace {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let replaced = plan.transform_up_with_subqueries(|node| {
            let mut schema = DFSchema::empty();
            for input in node.inputs() {
                schema.merge(input.schema());
            }
            node.map_expressions(|expression| {
                expression.transform_up(|part| {
                    Ok(KeptField::replace(&part, &schema).map_or_else(|| Transformed::no(part), Transformed::yes))
                })
            })
        })?;
        Ok(replaced.data)
    }
}
