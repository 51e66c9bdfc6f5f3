//! `rerank_details(query, passage [, model [, options]])`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::function::Function;
use super::sync::SyncImpl;
use crate::scores::Scores;

/// Everything known of each row: score, token counts, and the reason why it could not be scored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RerankDetails {
    function: Function,
    signature: Signature,
}

impl RerankDetails {
    pub(crate) fn new(function: Function) -> Self {
        let signature = function.signature(Volatility::Stable);
        Self { function, signature }
    }
}

impl ScalarUDFImpl for RerankDetails {
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
        self.function.result_shape(&args)?;
        Ok(Arc::new(Field::new(self.name(), DataType::Struct(Scores::details_fields()), true)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{} runs asynchronously", self.name())))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for RerankDetails {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.score(args, details_column).await
    }
}

impl SyncImpl for RerankDetails {
    fn invoke_blocking(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.score_blocking(args, details_column)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "has the type of a column maker, which may fail")]
pub(crate) fn details_column(scores: &Scores) -> Result<ArrayRef> {
    Ok(Arc::new(scores.to_details()))
}
