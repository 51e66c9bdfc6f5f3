//! What all the functions share: arguments in, a scored column out.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, DictionaryArray, Int32Array, new_empty_array};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::datatypes::{DataType, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, Signature, TypeSignature, Volatility,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::call::Call;
use super::config::RerankConfig;
use super::errors::planning;
use super::options;
use super::options::ResultShape;
use crate::engine::is_text;
use crate::error::Error;
use crate::models::Family;
use crate::registry::ModelRegistry;
use crate::reranker::Reranker;
use crate::scores::Scores;

/// Windows of one batch that are under way at once: while one runs, the next is tokenized.
const WINDOWS_IN_FLIGHT: usize = 2;

/// A function by name, with its model baked in or left to the call.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    name: String,
    family: Option<Family>,
    registry: ModelRegistry,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.family == other.family && self.registry.is_same(&other.registry)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// How the scores of some rows become a column.
pub(crate) type MakeColumn = fn(&Scores) -> Result<ArrayRef>;

/// Whether an array is taken for a constant argument if all its rows are equal. Hosts beyond a foreign function
/// interface expand constants to arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Constants {
    Scalars,
    RepeatedRows,
}

impl Function {
    pub(crate) fn new(name: impl Into<String>, family: Option<Family>, registry: ModelRegistry) -> Self {
        Self { name: name.into(), family, registry }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn registry(&self) -> &ModelRegistry {
        &self.registry
    }

    /// Names of the arguments. The first two must be given.
    pub(crate) fn parameters(&self) -> &'static [&'static str] {
        if self.family.is_some() { &["query", "passage", "options"] } else { &["query", "passage", "model", "options"] }
    }

    /// The index of an argument that must be constant.
    pub(crate) fn position(&self, parameter: &str) -> Option<usize> {
        self.parameters().iter().position(|name| *name == parameter)
    }

    /// Any types are let through: [`Self::result_shape`] says more of a wrong one than a signature can, and text of
    /// any layout, dictionaries included, arrives as it is.
    pub(crate) fn signature(&self, volatility: Volatility) -> Signature {
        let parameters = self.parameters();
        let one_of = (2..=parameters.len()).map(TypeSignature::Any).collect();
        let names = parameters.iter().map(|name| (*name).to_owned()).collect();
        let signature = Signature::one_of(one_of, volatility);
        // Fails only if the number of names is not that of the longest alternative.
        signature.clone().with_parameter_names(names).unwrap_or(signature)
    }

    /// Checks what is known of the arguments while planning: types, and the values of literals.
    ///
    /// # Errors
    /// [`DataFusionError::Plan`] naming the argument.
    pub(crate) fn result_shape(&self, args: &ReturnFieldArgs<'_>) -> Result<ResultShape> {
        let mut shape = ResultShape::Score;
        for ((parameter, field), value) in self.parameters().iter().zip(args.arg_fields).zip(args.scalar_arguments) {
            let data_type = field.data_type();
            if *parameter == "options" {
                shape = options::check_type(data_type, *value).map_err(|error| planning(&error))?;
            } else if !is_text(data_type) {
                return Err(planning(&Error::input(format!(
                    "{}: {parameter} is {data_type}, expected text; CAST it to VARCHAR",
                    self.name
                ))));
            }
        }
        Ok(shape)
    }

    /// What the constant arguments ask for; `None` for one that was not given.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub(crate) fn call(&self, model: Option<&ScalarValue>, options: Option<&ScalarValue>) -> Result<Call, Error> {
        let model = match self.family {
            Some(family) => Some(family.name().to_owned()),
            None => model.and_then(ScalarValue::try_as_str).flatten().map(str::to_owned),
        };
        Ok(Call { model, options: options.map(options::from_scalar).transpose()?.unwrap_or_default() })
    }

    /// Scores a batch without blocking the runtime.
    ///
    /// # Errors
    /// As [`Self::prepare`], and those of scoring and of `make_column`.
    pub(crate) async fn score(&self, args: ScalarFunctionArgs, make_column: MakeColumn) -> Result<ColumnarValue> {
        let function = self.clone();
        let scoring = off_runtime(move || function.prepare(&args, Constants::Scalars)).await?;
        let windows: Vec<_> = scoring
            .windows()
            .map(|(queries, passages)| {
                let scores = scoring.reranker.score_rows_async(queries, passages);
                async move { make_column(&scores.await?) }
            })
            .collect();
        let columns = stream::iter(windows).buffered(WINDOWS_IN_FLIGHT).try_collect::<Vec<_>>().await?;
        scoring.finish(&columns)
    }

    /// Scores a batch and blocks until it is done, on whatever thread of whatever runtime, or without one: the work
    /// itself runs on the engine's threads.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub(crate) fn score_blocking(&self, args: &ScalarFunctionArgs, make_column: MakeColumn) -> Result<ColumnarValue> {
        blocking(|| {
            let scoring = self.prepare(args, Constants::RepeatedRows)?;
            let scores = scoring.reranker.score_rows(&scoring.queries, &scoring.passages)?;
            scoring.finish(&[make_column(&scores)?])
        })
    }

    /// Opens the model and lays out the rows.
    ///
    /// # Errors
    /// [`DataFusionError::Execution`] for a model or options that are no constants, and the errors of [`Call::open`].
    fn prepare(&self, args: &ScalarFunctionArgs, constants: Constants) -> Result<Scoring> {
        let constant = |parameter| match self.position(parameter).and_then(|position| args.args.get(position)) {
            None => Ok(None),
            Some(value) => self.constant(parameter, value, constants),
        };
        let call = self.call(constant("model")?.as_ref(), constant("options")?.as_ref())?;
        let [query, passage, ..] = args.args.as_slice() else {
            return Err(DataFusionError::Execution(format!("{} needs a query and a passage", self.name)));
        };
        let rows = args.number_rows;
        // Of a call with nothing but constants one row is scored.
        let distinct_rows = match (query, passage) {
            (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)) => rows.min(1),
            _ => rows,
        };
        Ok(Scoring {
            reranker: call.open(&self.registry, &RerankConfig::of(&args.config_options))?,
            queries: column(query, distinct_rows)?,
            passages: column(passage, distinct_rows)?,
            rows,
            data_type: args.return_type().clone(),
        })
    }

    fn constant(&self, parameter: &str, value: &ColumnarValue, constants: Constants) -> Result<Option<ScalarValue>> {
        match value {
            ColumnarValue::Scalar(value) => Ok(Some(value.clone())),
            ColumnarValue::Array(array) if constants == Constants::RepeatedRows && is_repeated(array) => {
                if array.is_empty() { Ok(None) } else { ScalarValue::try_from_array(array, 0).map(Some) }
            }
            ColumnarValue::Array(_) => Err(DataFusionError::Execution(self.not_constant(parameter))),
        }
    }

    /// The message for a model or options argument that differs from row to row.
    pub(crate) fn not_constant(&self, parameter: &str) -> String {
        format!("{}: {parameter} must be a constant, the same for all rows; write it as a literal", self.name)
    }
}

/// A batch that is ready to be scored.
struct Scoring {
    reranker: Reranker,
    queries: ArrayRef,
    passages: ArrayRef,
    /// Rows of the result: as many as there are queries, or any number of repetitions of a single pair.
    rows: usize,
    /// The type that the query was planned with.
    data_type: DataType,
}

impl Scoring {
    /// The windows of the batch.
    fn windows(&self) -> impl Iterator<Item = (ArrayRef, ArrayRef)> + use<> {
        let (queries, passages) = (Arc::clone(&self.queries), Arc::clone(&self.passages));
        let window_rows = self.reranker.window_rows();
        (0..queries.len()).step_by(window_rows).map(move |first| {
            let length = window_rows.min(queries.len() - first);
            (queries.slice(first, length), passages.slice(first, length))
        })
    }

    /// The columns of all windows as one of the batch's length.
    fn finish(&self, columns: &[ArrayRef]) -> Result<ColumnarValue> {
        let columns: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
        let column = match columns.as_slice() {
            [] => new_empty_array(&self.data_type),
            columns => concat(columns)?,
        };
        check_planned(column.data_type(), &self.data_type)?;
        if column.len() == self.rows {
            return Ok(ColumnarValue::Array(column));
        }
        let repeated = take(&column, &Int32Array::from_value(0, self.rows), None)?;
        Ok(ColumnarValue::Array(repeated))
    }
}

/// Whether a column has the type that the query was planned with.
///
/// # Errors
/// [`DataFusionError::Execution`]: options that were unknown while planning changed the type.
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

fn is_repeated(array: &ArrayRef) -> bool {
    (1..array.len()).all(|row| array.slice(row, 1).as_ref() == array.slice(0, 1).as_ref())
}

/// Runs work that may block for seconds where it holds up no other task.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match Handle::try_current() {
        Ok(handle) => {
            handle.spawn_blocking(work).await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
        }
        Err(_) => work(),
    }
}

/// Runs work that may block for seconds, from a function that cannot wait for it otherwise. A multi-threaded runtime
/// is told, so that it moves other tasks to another thread.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
