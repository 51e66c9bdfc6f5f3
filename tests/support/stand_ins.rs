//! Synchronous functions in place of calls: each looks its pair up among scores computed through the Rust API.
//!
//! A statement has its calls as marks, `⟨0 query, passage 0⟩`, where the number is one of [`VARIANTS`]. [`real`] and
//! [`stored`] write the statement that DataFusion gets.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array, new_empty_array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Float32Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions, Scores};

use super::models;

/// One device batch for each pair. A score then has the same bits whatever is scored beside it, so that rows that are
/// grouped, ordered and compared by their scores are the same in both statements.
pub(crate) const BATCH_TOKENS: usize = 1;

/// What a call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    Score,
    List,
    Details,
}

/// A way to write a call.
pub(crate) struct Variant {
    pub(crate) returns: Returns,
    function: &'static str,
    /// The arguments after the texts.
    arguments: &'static str,
    model: &'static str,
    options: &'static str,
}

pub(crate) const VARIANTS: [Variant; 8] = [
    Variant { returns: Returns::Score, function: "rerank", arguments: "", model: "m3", options: "{}" },
    Variant {
        returns: Returns::Score,
        function: "rerank",
        arguments: ", 'm3', {'normalize': true}",
        model: "m3",
        options: r#"{"normalize": true}"#,
    },
    Variant { returns: Returns::Score, function: "rerank", arguments: ", 'gemma'", model: "gemma", options: "{}" },
    Variant {
        returns: Returns::Score,
        function: "rerank_m3",
        arguments: r#", '{"max_length": 12}'"#,
        model: "m3",
        options: r#"{"max_length": 12}"#,
    },
    Variant {
        returns: Returns::List,
        function: "rerank",
        arguments: ", 'minicpm', {'cutoff_layers': [2, 4]}",
        model: "minicpm",
        options: r#"{"cutoff_layers": [2, 4]}"#,
    },
    Variant { returns: Returns::Details, function: "rerank_details", arguments: "", model: "m3", options: "{}" },
    Variant {
        returns: Returns::Details,
        function: "rerank_details",
        arguments: ", 'm3', {'normalize': true}",
        model: "m3",
        options: r#"{"normalize": true}"#,
    },
    Variant {
        returns: Returns::Details,
        function: "rerank_details",
        arguments: ", 'gemma'",
        model: "gemma",
        options: "{}",
    },
];

/// The statement with calls of the library.
pub(crate) fn real(marked: &str) -> String {
    VARIANTS.iter().enumerate().fold(marked.to_owned(), |sql, (number, variant)| {
        sql.replace(&format!("⟨{number} "), &format!("{}(", variant.function))
            .replace(&format!(" {number}⟩"), &format!("{})", variant.arguments))
    })
}

/// The statement with calls of the stand-ins.
pub(crate) fn stored(marked: &str) -> String {
    (0..VARIANTS.len()).fold(marked.to_owned(), |sql, number| {
        sql.replace(&format!("⟨{number} "), &format!("stored_{number}(")).replace(&format!(" {number}⟩"), ")")
    })
}

/// The scores of pairs, computed when they are first asked for.
#[derive(Clone)]
pub(crate) struct StoredScores(Arc<Vec<Store>>);

struct Store {
    returns: Returns,
    reranker: Reranker,
    /// One row for each pair.
    results: Mutex<HashMap<Pair, ArrayRef>>,
}

type Pair = (Option<String>, Option<String>);

impl StoredScores {
    pub(crate) fn new() -> Self {
        let registry = models();
        let engine = EngineOptions::default().with_batch_tokens(BATCH_TOKENS);
        let stores = VARIANTS.iter().map(|variant| {
            let options = ScoreOptions::from_json(&serde_json::from_str(variant.options).unwrap()).unwrap();
            let reranker = registry.open(variant.model, &engine).unwrap().with_options(&options).unwrap();
            Store { returns: variant.returns, reranker, results: Mutex::default() }
        });
        Self(Arc::new(stores.collect()))
    }

    /// The functions `stored_0`, `stored_1`, ..
    pub(crate) fn functions(&self) -> impl Iterator<Item = ScalarUDF> + '_ {
        (0..VARIANTS.len()).map(|number| {
            ScalarUDF::new_from_impl(StandIn {
                name: format!("stored_{number}"),
                number,
                scores: self.clone(),
                signature: Signature::new(TypeSignature::Any(2), Volatility::Immutable),
            })
        })
    }

    /// Scores all pairs of some texts. Returns values between those scores, from low to high, for a variant that
    /// returns scores; of those that return more than a score, values between their (first) scores.
    pub(crate) fn levels(&self, number: usize, queries: &[String], passages: &[String]) -> Vec<f32> {
        let pairs: Vec<Pair> = queries
            .iter()
            .flat_map(|query| passages.iter().map(|passage| (Some(query.clone()), Some(passage.clone()))))
            .collect();
        let store = &self.0[number];
        let results = store.results(&pairs).unwrap();
        let scores = match store.returns {
            Returns::Score => results,
            Returns::List => Arc::clone(results.as_list::<i32>().values()),
            Returns::Details => Arc::clone(results.as_struct().column(0)),
        };
        let mut scores: Vec<f32> = scores.as_primitive::<Float32Type>().iter().flatten().collect();
        scores.sort_by(f32::total_cmp);
        let gaps = scores.windows(2).filter(|pair| pair[1] - pair[0] >= 1e-3);
        gaps.map(|pair| f32::midpoint(pair[0], pair[1])).collect()
    }
}

impl Store {
    fn results(&self, pairs: &[Pair]) -> Result<ArrayRef> {
        let mut results = self.results.lock().unwrap();
        let mut missing: Vec<Pair> = pairs.iter().filter(|pair| !results.contains_key(pair)).cloned().collect();
        missing.sort();
        missing.dedup();
        if !missing.is_empty() {
            let (queries, passages): (Vec<_>, Vec<_>) = missing.iter().cloned().unzip();
            let scores = self.reranker.score_rows(&StringArray::from(queries), &StringArray::from(passages));
            let scores = scores.map_err(|error| DataFusionError::External(Box::new(error)))?;
            let column: ArrayRef = match self.returns {
                Returns::Details => Arc::new(scores.to_details()),
                Returns::Score | Returns::List => scores.to_array(),
            };
            results.extend(missing.into_iter().enumerate().map(|(row, pair)| (pair, column.slice(row, 1))));
        }
        let rows: Vec<&dyn Array> = pairs.iter().map(|pair| results[pair].as_ref()).collect();
        if rows.is_empty() { Ok(new_empty_array(&data_type(self.returns))) } else { Ok(concat(&rows)?) }
    }
}

fn data_type(returns: Returns) -> DataType {
    match returns {
        Returns::Score => DataType::Float32,
        Returns::List => Scores::list_type(),
        Returns::Details => DataType::Struct(Scores::details_fields()),
    }
}

/// A stand-in for the calls of one variant.
#[derive(Clone)]
struct StandIn {
    name: String,
    number: usize,
    scores: StoredScores,
    signature: Signature,
}

impl std::fmt::Debug for StandIn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl PartialEq for StandIn {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for StandIn {}

impl Hash for StandIn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl ScalarUDFImpl for StandIn {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(data_type(VARIANTS[self.number].returns))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [queries, passages] = columns.as_slice() else {
            return Err(DataFusionError::Internal(format!("{} takes two texts", self.name)));
        };
        let (queries, passages) = (cast(queries, &DataType::Utf8)?, cast(passages, &DataType::Utf8)?);
        let texts = |column: &ArrayRef| -> Vec<Option<String>> {
            column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
        };
        let pairs: Vec<Pair> = texts(&queries).into_iter().zip(texts(&passages)).collect();
        let result = self.scores.0[self.number].results(&pairs)?;
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        if constant && args.number_rows != result.len() {
            let rows = UInt32Array::from_value(0, args.number_rows);
            return Ok(ColumnarValue::Array(take(&result, &rows, None)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}
