//! What a function returns.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;

use super::options::ResultShape;
use crate::error::Error;
use crate::scores::Scores;

/// How the scores of some rows become a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FunctionKind {
    /// The score of each row, NULL where query or passage is NULL. A row that cannot be scored fails the query.
    Score,
    /// A struct for each row: score, token counts, and the reason if it could not be scored.
    Details,
}

impl FunctionKind {
    /// The type of the column.
    pub(super) fn data_type(self, shape: ResultShape) -> DataType {
        match (self, shape) {
            (Self::Score, ResultShape::Score) => DataType::Float32,
            (Self::Score, ResultShape::List) => Scores::list_type(),
            (Self::Details, _) => DataType::Struct(Scores::details_fields()),
        }
    }

    /// Whether the result is NULL where query or passage is. The struct of [`Self::Details`] never is.
    pub(crate) fn is_null_with_its_texts(self) -> bool {
        self == Self::Score
    }

    /// The column.
    ///
    /// # Errors
    /// Of [`Self::Score`], [`Error::Input`] for a row that cannot be scored. It does not number the row: which rows are
    /// scored together, and where they come from, is up to the plan.
    pub(super) fn column(self, scores: &Scores) -> Result<ArrayRef> {
        match (self, scores.errors().next()) {
            (Self::Details, _) => Ok(Arc::new(scores.to_details())),
            (Self::Score, None) => Ok(scores.to_array()),
            (Self::Score, Some((_, reason))) => Err(Error::input(format!(
                "a pair cannot be scored: {reason}; rerank_details(..)['error'] is the reason as a value and finds the rows"
            ))
            .into()),
        }
    }
}
