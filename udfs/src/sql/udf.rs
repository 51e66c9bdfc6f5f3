//! The functions as DataFusion calls them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::function::Function;

/// A function with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RerankUdf {
    function: Function,
    signature: Signature,
}

impl RerankUdf {
    /// The function for hosts that await it.
    pub(super) fn asynchronous(function: Function) -> ScalarUDF {
        // Stable, not immutable: planning must not fold it, nor prune partitions by it.
        AsyncScalarUDF::new(Arc::new(Self::new(function, Volatility::Stable))).into_scalar_udf()
    }

    /// The function in calls that the rules have placed. Volatile: no other rule duplicates or moves such a call.
    pub(super) fn placed(function: Function) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(Self::new(function, Volatility::Volatile))).into_scalar_udf()
    }

    /// The function for hosts that accept only synchronous ones, such as those behind a foreign function interface. It
    /// blocks its caller until the batch is scored.
    pub(super) fn synchronous(function: Function) -> ScalarUDF {
        // Volatile: otherwise planning would run a call with constant arguments, model and all, to fold it.
        ScalarUDF::new_from_impl(Self::new(function, Volatility::Volatile))
    }

    fn new(function: Function, volatility: Volatility) -> Self {
        let signature = function.signature(volatility);
        Self { function, signature }
    }
}

impl ScalarUDFImpl for RerankUdf {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal(format!("{} has return_field_from_args", self.name())))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.function.result_type(&args)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.score_blocking(&args)
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for RerankUdf {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.score(args).await
    }
}
