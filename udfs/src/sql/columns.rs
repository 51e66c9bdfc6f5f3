//! Columns of texts, and of what is returned.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, DictionaryArray, Int32Array};
use datafusion::arrow::datatypes::{DataType, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;

/// Checks that a column has the type that the query was planned with.
///
/// # Errors
/// [`DataFusionError::Execution`] if options that were unknown while planning changed the type.
pub(crate) fn check_planned(data_type: &DataType, planned: &DataType) -> Result<()> {
    if data_type == planned {
        return Ok(());
    }
    Err(DataFusionError::Execution(format!(
        "option cutoff_layers: its value makes the result {data_type}, but the query was planned for {planned}; write it as a literal"
    )))
}

/// A text argument as a column. A constant becomes a dictionary of one value, which is encoded once.
pub(crate) fn column(value: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(ScalarValue::Dictionary(_, value)) => {
            column(&ColumnarValue::Scalar(value.as_ref().clone()), rows)
        }
        ColumnarValue::Scalar(value) => {
            let keys = Int32Array::from_value(0, rows);
            Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, value.to_array()?)?))
        }
    }
}

/// Whether all rows are equal.
pub(super) fn is_repeated(array: &ArrayRef) -> bool {
    (1..array.len()).all(|row| array.slice(row, 1).as_ref() == array.slice(0, 1).as_ref())
}
