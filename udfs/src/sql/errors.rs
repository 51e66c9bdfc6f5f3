//! The library's errors as DataFusion's.

use datafusion::error::DataFusionError;

use crate::error::Error;

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

/// An error in the text of a query, found before it runs.
pub(crate) fn planning(error: &Error) -> DataFusionError {
    DataFusionError::Plan(error.to_string())
}
