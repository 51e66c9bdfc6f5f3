//! The functions that the rules look for.

use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::function::{Function, MakeColumn};

/// A function as the session has it, and what it does.
#[derive(Debug, Clone)]
pub(crate) struct KnownFunction {
    pub(crate) udf: ScalarUDF,
    pub(crate) function: Function,
    pub(crate) make_column: MakeColumn,
}

/// The asynchronous functions of a session.
#[derive(Debug, Clone)]
pub(crate) struct KnownFunctions(Vec<KnownFunction>);

impl KnownFunctions {
    pub(crate) fn new(functions: Vec<KnownFunction>) -> Self {
        Self(functions)
    }

    pub(crate) fn find(&self, udf: &ScalarUDF) -> Option<&KnownFunction> {
        self.0.iter().find(|known| known.udf == *udf)
    }

    /// Whether an expression is itself a call of one of the functions.
    pub(crate) fn is_call(&self, expression: &Expr) -> bool {
        matches!(expression, Expr::ScalarFunction(ScalarFunction { func, .. }) if self.find(func).is_some())
    }
}
