//! `rerank(query, passage [, model [, options]])`, and `rerank_<family>(query, passage [, options])`.

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
use super::options::ResultShape;
use super::sync::SyncImpl;
use crate::error::Error;
use crate::scores::Scores;

/// The score of each row, NULL where query or passage is NULL. A row that cannot be scored fails the query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rerank {
    function: Function,
    signature: Signature,
}

impl Rerank {
    pub(crate) fn new(function: Function) -> Self {
        // Stable, not immutable: planning must not fold it, nor prune partitions by it.
        let signature = function.signature(Volatility::Stable);
        Self { function, signature }
    }
}

impl ScalarUDFImpl for Rerank {
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
        let data_type = match self.function.result_shape(&args)? {
            ResultShape::Score => DataType::Float32,
            ResultShape::List => Scores::list_type(),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{} runs asynchronously", self.name())))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Rerank {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.score(args, score_column).await
    }
}

impl SyncImpl for Rerank {
    fn invoke_blocking(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.score_blocking(args, score_column)
    }
}

/// The score column of `rerank`. A row that cannot be scored is an error, which does not number it: which rows are scored
/// together, and where they come from, is up to the plan.
pub(crate) fn score_column(scores: &Scores) -> Result<ArrayRef> {
    match scores.errors().next() {
        None => Ok(scores.to_array()),
        Some((_, reason)) => Err(Error::input(format!(
            "a pair cannot be scored: {reason}; rerank_details(..)['error'] is the reason as a value and finds the rows"
        ))
        .into()),
    }
}
