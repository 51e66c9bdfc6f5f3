//! Scores of a batch of rows, and the Arrow arrays made of them.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanArray, Float32Array, Float32Builder, ListArray, StringArray, StructArray,
    UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};

use crate::engine::{RowScore, ScoreStats, WindowScores};
use crate::error::{Error, Result};

/// The result of each row of a call, in row order.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    windows: Vec<WindowScores>,
    normalize: bool,
    list: bool,
}

impl Scores {
    pub(crate) fn new(windows: Vec<WindowScores>, normalize: bool, list: bool) -> Self {
        Self { windows, normalize, list }
    }

    /// The cost of scoring them.
    pub fn stats(&self) -> ScoreStats {
        let mut total = ScoreStats::default();
        for window in &self.windows {
            total += window.stats;
        }
        total
    }

    /// The reason for each failed row, with its row number. A NaN score is a failure too: the model's arithmetic
    /// overflowed.
    pub fn errors(&self) -> impl Iterator<Item = (usize, String)> {
        self.rows().enumerate().filter_map(|(row, score)| Some((row, score.error()?)))
    }

    /// The number of tokens of each row: query and passage with their instructions, without special tokens and prompt.
    /// `None` where query or passage is NULL or the row failed before it was run.
    pub fn pair_tokens(&self) -> impl Iterator<Item = Option<u32>> {
        self.rows().map(|row| Some(row.query_tokens()? + row.passage_tokens()?))
    }

    /// One score per row: `Float32`, NULL where query or passage is NULL or the row failed.
    ///
    /// # Errors
    /// [`Error::Input`] if several cutoff layers were asked for; use [`Self::to_array`].
    pub fn to_float32(&self) -> Result<Float32Array> {
        if self.list {
            return Err(Error::input("several cutoff layers give a list of scores a row, not one"));
        }
        Ok(self.rows().map(|row| row.scores().and_then(|mut scores| scores.next())).collect())
    }

    /// The score column: `Float32`, or `List<Float32>` with one score per cutoff layer in the order asked.
    pub fn to_array(&self) -> ArrayRef {
        match self.to_float32() {
            Ok(scores) => Arc::new(scores),
            Err(_) => Arc::new(self.to_list()),
        }
    }

    fn to_list(&self) -> ListArray {
        let mut values = Float32Builder::new();
        let mut lengths = Vec::new();
        let mut valid = Vec::new();
        for row in self.rows() {
            let before = values.len();
            let scores = row.scores();
            valid.push(scores.is_some());
            scores.into_iter().flatten().for_each(|score| values.append_value(score));
            lengths.push(values.len() - before);
        }
        ListArray::new(
            score_item(),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(values.finish()),
            Some(NullBuffer::from(valid)),
        )
    }

    /// Everything known about each row: a struct of the fields [`Scores::details_fields`]. The struct is never NULL.
    pub fn to_details(&self) -> StructArray {
        let rows = || self.rows();
        // With several exits, `score` is the first one asked for.
        let score: Float32Array = rows().map(|row| row.scores().and_then(|mut scores| scores.next())).collect();
        StructArray::new(
            Self::details_fields(),
            vec![
                Arc::new(score),
                Arc::new(self.to_list()),
                Arc::new(rows().map(|row| row.query_tokens()).collect::<UInt32Array>()),
                Arc::new(rows().map(|row| row.passage_tokens()).collect::<UInt32Array>()),
                Arc::new(rows().map(|row| row.truncated()).collect::<BooleanArray>()),
                Arc::new(rows().map(|row| row.error()).collect::<StringArray>()),
            ],
            None,
        )
    }

    /// The fields of [`Self::to_details`]: `score`, `scores` (one per cutoff layer), `query_tokens`,
    /// `passage_tokens` (instructions included, special tokens not), `truncated`, `error`.
    pub fn details_fields() -> Fields {
        Fields::from(vec![
            Field::new("score", DataType::Float32, true),
            Field::new("scores", DataType::List(score_item()), true),
            Field::new("query_tokens", DataType::UInt32, true),
            Field::new("passage_tokens", DataType::UInt32, true),
            Field::new("truncated", DataType::Boolean, true),
            Field::new("error", DataType::Utf8, true),
        ])
    }

    /// The type of [`Self::to_array`] for calls with several cutoff layers.
    pub fn list_type() -> DataType {
        DataType::List(score_item())
    }

    fn rows(&self) -> impl Iterator<Item = RowView<'_>> {
        let normalize = self.normalize;
        self.windows
            .iter()
            .flat_map(move |window| window.rows.iter().map(move |row| RowView { window, row, normalize }))
    }
}

fn score_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Float32, true))
}

struct RowView<'a> {
    window: &'a WindowScores,
    row: &'a RowScore,
    normalize: bool,
}

impl<'a> RowView<'a> {
    fn logits(&self) -> Option<&'a [f32]> {
        let RowScore::Pair { index, .. } = self.row else { return None };
        let start = *index as usize * self.window.columns;
        Some(&self.window.logits[start..start + self.window.columns])
    }

    /// The row's scores, unless it is NULL or failed.
    fn scores(&self) -> Option<impl Iterator<Item = f32> + use<'a>> {
        let logits = self.logits()?;
        let normalize = self.normalize;
        (!logits.iter().any(|logit| logit.is_nan()))
            .then(|| logits.iter().map(move |&logit| if normalize { sigmoid(logit) } else { logit }))
    }

    fn query_tokens(&self) -> Option<u32> {
        let RowScore::Pair { query_tokens, .. } = self.row else { return None };
        Some(*query_tokens)
    }

    fn passage_tokens(&self) -> Option<u32> {
        let RowScore::Pair { passage_tokens, .. } = self.row else { return None };
        Some(*passage_tokens)
    }

    fn truncated(&self) -> Option<bool> {
        let RowScore::Pair { truncated, .. } = self.row else { return None };
        Some(*truncated)
    }

    fn error(&self) -> Option<String> {
        match self.row {
            RowScore::Null => None,
            RowScore::Failed(reason) => Some(reason.to_string()),
            RowScore::Pair { .. } => self
                .logits()
                .is_some_and(|logits| logits.iter().any(|logit| logit.is_nan()))
                .then(|| "the score is not a number: the model's arithmetic overflowed".to_owned()),
        }
    }
}

/// `1 / (1 + exp(-logit))` in f64.
/// (`sigmoid`, FlagEmbedding 1.4.2, `inference/reranker/encoder_only/base.py`)
fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float32Type;

    use super::*;

    fn pair(index: u32) -> RowScore {
        RowScore::Pair { index, query_tokens: 2, passage_tokens: 3, truncated: index == 0 }
    }

    fn scores(columns: usize, logits: Vec<f32>, normalize: bool) -> Scores {
        let rows = vec![pair(0), RowScore::Null, pair(0), RowScore::Failed("bad".into()), pair(1)];
        let window = WindowScores { rows, columns, logits, stats: ScoreStats::default() };
        Scores::new(vec![window.clone(), window], normalize, columns > 1)
    }

    #[test]
    fn rows_share_the_scores_of_their_pair() {
        let array = scores(1, vec![0.5, -1.0], false).to_float32().unwrap();
        let window = [Some(0.5), None, Some(0.5), None, Some(-1.0)];
        assert_eq!(array.iter().collect::<Vec<_>>(), [window, window].concat());
    }

    #[test]
    fn rows_that_were_run_have_tokens() {
        let scores = scores(1, vec![0.5, -1.0], false);
        let tokens: Vec<_> = scores.pair_tokens().take(5).collect();
        assert_eq!(tokens, [Some(5), None, Some(5), None, Some(5)]);
    }

    #[test]
    fn several_exits_make_a_list() {
        let array = scores(2, vec![1.0, 2.0, 3.0, 4.0], false).to_array();
        let list = array.as_list::<i32>();
        assert_eq!(list.value(2).as_primitive::<Float32Type>().values(), &[1.0, 2.0]);
        assert_eq!(list.value(4).as_primitive::<Float32Type>().values(), &[3.0, 4.0]);
        assert!(list.is_null(1) && list.is_null(3));
    }

    #[test]
    fn not_a_number_is_an_error_of_its_row() {
        let scores = scores(1, vec![f32::NAN, 0.0], true);
        let rows: Vec<usize> = scores.errors().map(|(row, _)| row).collect();
        assert_eq!(rows, [0, 2, 3, 5, 7, 8]);
        assert_eq!(scores.to_float32().unwrap().value(4), 0.5);
        let details = scores.to_details();
        assert!(details.column_by_name("error").unwrap().as_string::<i32>().value(0).contains("not a number"));
        assert_eq!(details.column_by_name("error").unwrap().as_string::<i32>().value(3), "bad");
    }

    #[test]
    fn sigmoid_keeps_its_precision_at_the_ends() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert!(sigmoid(-50.0) > 0.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
    }
}
