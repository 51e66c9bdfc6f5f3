//! A call in a physical plan.

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;

use super::call_model::CallModel;
use crate::sql::function_kind::FunctionKind;

/// One score column.
#[derive(Debug, Clone)]
pub(crate) struct RerankCall {
    /// The call as DataFusion planned it, with the name of its column.
    pub(crate) expression: Arc<AsyncFuncExpr>,
    pub(crate) query: Arc<dyn PhysicalExpr>,
    pub(crate) passage: Arc<dyn PhysicalExpr>,
    /// The model with the options in force when the query was planned.
    pub(crate) model: CallModel,
    /// What the scores become.
    pub(crate) kind: FunctionKind,
}
