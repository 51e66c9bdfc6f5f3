//! A function without its UDF: arguments in, a scored column out.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int32Array, new_empty_array};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, Signature, Volatility};
use futures::{StreamExt, TryStreamExt, stream};

use super::blocking::{blocking, off_runtime};
use super::call::Call;
use super::columns::{check_planned, column, is_repeated};
use super::config::RerankConfig;
use super::errors::planning;
use super::function_kind::FunctionKind;
use super::options::{self, ResultShape};
use crate::engine::is_text;
use crate::error::Error;
use crate::models::Family;
use crate::options::ScoreOptions;
use crate::registry::ModelRegistry;
use crate::reranker::Reranker;
use crate::window::{WINDOWS_IN_FLIGHT, cut_windows};

/// A function by name, with a fixed model or one that the call names.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    name: String,
    family: Option<Family>,
    kind: FunctionKind,
    registry: ModelRegistry,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.family == other.family
            && self.kind == other.kind
            && self.registry.is_same(&other.registry)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The arguments of a function whose calls name a model.
const WITH_MODEL: &[&str] = &["query", "passage", "model", "options"];

/// The arguments of a function with a fixed model.
const WITHOUT_MODEL: &[&str] = &["query", "passage", "options"];

/// Whether an array whose rows are all equal counts as a constant argument. Hosts beyond a foreign function interface
/// expand constants to arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Constants {
    Scalars,
    RepeatedRows,
}

impl Function {
    pub(crate) fn new(name: String, family: Option<Family>, kind: FunctionKind, registry: ModelRegistry) -> Self {
        Self { name, family, kind, registry }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn kind(&self) -> FunctionKind {
        self.kind
    }

    pub(crate) fn registry(&self) -> &ModelRegistry {
        &self.registry
    }

    /// Names of the arguments in order. The first two must be given.
    pub(crate) fn parameters(&self) -> &'static [&'static str] {
        if self.family.is_some() { WITHOUT_MODEL } else { WITH_MODEL }
    }

    /// Names of the arguments after the passage, by their types: a struct in the model's place is the options, if
    /// nothing follows it.
    fn constants<'a>(&self, mut types: impl Iterator<Item = &'a DataType>) -> &'static [&'static str] {
        match (types.next(), types.next()) {
            (Some(DataType::Struct(_)), None) => &WITHOUT_MODEL[2..],
            _ => &self.parameters()[2..],
        }
    }

    /// Accepts any number of arguments of any types: [`Self::result_type`] reports wrong ones better than a signature
    /// can, and text of any layout, dictionaries included, arrives unconverted.
    pub(crate) fn signature(&self, volatility: Volatility) -> Signature {
        let names = self.parameters().iter().map(|name| (*name).to_owned()).collect();
        Signature { parameter_names: Some(names), ..Signature::variadic_any(volatility) }
    }

    /// Checks what planning knows of the arguments (their number and types, and the values of literals). Returns the
    /// type of the result.
    ///
    /// # Errors
    /// [`DataFusionError::Plan`] naming the argument.
    pub(crate) fn result_type(&self, args: &ReturnFieldArgs<'_>) -> Result<DataType> {
        let (given, parameters) = (args.arg_fields.len(), self.parameters());
        if !(2..=parameters.len()).contains(&given) {
            return Err(planning(&Error::input(format!(
                "{0} takes 2 to {1} arguments, {0}({2}); got {given}",
                self.name,
                parameters.len(),
                parameters.join(", ")
            ))));
        }
        let types = || args.arg_fields.iter().map(|field| field.data_type());
        let names = parameters[..2].iter().chain(self.constants(types().skip(2)));
        let mut shape = ResultShape::Score;
        for ((parameter, data_type), value) in names.zip(types()).zip(args.scalar_arguments) {
            if *parameter == "options" {
                shape = options::check_type(data_type, *value).map_err(|error| planning(&error))?;
            } else if !is_text(data_type) {
                let remedy = match data_type {
                    DataType::Struct(_) | DataType::Map(..) if *parameter == "model" => {
                        "options come last, as a struct such as {'max_length': 256}"
                    }
                    _ => "CAST it to VARCHAR",
                };
                return Err(planning(&Error::input(format!(
                    "{}: {parameter} is {data_type}, expected text; {remedy}",
                    self.name
                ))));
            }
        }
        Ok(self.kind.data_type(shape))
    }

    /// The model and options that the arguments after the passage ask for.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub(crate) fn call(&self, constants: &[ScalarValue]) -> Result<Call, Error> {
        let types: Vec<DataType> = constants.iter().map(ScalarValue::data_type).collect();
        let mut call =
            Call { model: self.family.map(|family| family.name().to_owned()), options: ScoreOptions::default() };
        for (parameter, value) in self.constants(types.iter()).iter().zip(constants) {
            if *parameter == "options" {
                call.options = options::from_scalar(value)?;
            } else {
                call.model = value.try_as_str().flatten().map(str::to_owned);
            }
        }
        Ok(call)
    }

    /// Scores a batch without blocking the runtime.
    ///
    /// # Errors
    /// As [`Self::prepare`], and those of scoring and of [`FunctionKind::column`].
    pub(crate) async fn score(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let function = self.clone();
        let scoring = off_runtime(move || function.prepare(&args, Constants::Scalars)).await?;
        let pairs = (Arc::clone(&scoring.queries), Arc::clone(&scoring.passages));
        let windows = cut_windows(pairs, scoring.reranker.window_rows()).into_iter().map(|window| {
            let scores = scoring.reranker.score_pieces_async(window);
            async move { self.kind.column(&scores.await?) }
        });
        let windows: Vec<_> = windows.collect();
        let columns = stream::iter(windows).buffered(WINDOWS_IN_FLIGHT).try_collect::<Vec<_>>().await?;
        scoring.finish(&columns)
    }

    /// Scores a batch and blocks until it is done. Works on any thread of any runtime, or without one: the work itself
    /// runs on the engine's threads.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub(crate) fn score_blocking(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        blocking(|| {
            let scoring = self.prepare(args, Constants::RepeatedRows)?;
            let scores = scoring.reranker.score_rows(&scoring.queries, &scoring.passages)?;
            scoring.finish(&[self.kind.column(&scores)?])
        })
    }

    /// Opens the model and lays out the rows.
    ///
    /// # Errors
    /// [`DataFusionError::Execution`] for a model or options that are not constant, and the errors of [`Call::open`].
    fn prepare(&self, args: &ScalarFunctionArgs, constants: Constants) -> Result<PreparedCall> {
        let [query, passage, others @ ..] = args.args.as_slice() else {
            return Err(DataFusionError::Execution(format!("{} needs a query and a passage", self.name)));
        };
        let others = others.iter().zip(2..).map(|(value, position)| self.constant(position, value, constants));
        let call = self.call(&others.collect::<Result<Vec<_>>>()?)?;
        let rows = args.number_rows;
        // A call with only constants scores one row.
        let distinct_rows = match (query, passage) {
            (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)) => rows.min(1),
            _ => rows,
        };
        Ok(PreparedCall {
            reranker: call.open(&self.registry, &RerankConfig::of(&args.config_options))?,
            queries: column(query, distinct_rows)?,
            passages: column(passage, distinct_rows)?,
            rows,
            data_type: args.return_type().clone(),
        })
    }

    fn constant(&self, position: usize, value: &ColumnarValue, constants: Constants) -> Result<ScalarValue> {
        match value {
            ColumnarValue::Scalar(value) => Ok(value.clone()),
            ColumnarValue::Array(array) if constants == Constants::RepeatedRows && is_repeated(array) => {
                // No rows, no value: but a struct must still be taken for options.
                if array.is_empty() {
                    ScalarValue::try_from(array.data_type())
                } else {
                    ScalarValue::try_from_array(array, 0)
                }
            }
            ColumnarValue::Array(_) => Err(DataFusionError::Execution(self.not_constant(position, "a column"))),
        }
    }

    /// The message for an argument that differs from row to row, and `given` for it.
    pub(crate) fn not_constant(&self, position: usize, given: impl Display) -> String {
        let parameter = self.parameters().get(position).copied().unwrap_or("an argument");
        format!("{}: {parameter} is {given}, but must be the same for all rows; write a literal", self.name)
    }
}

/// A batch that is ready to be scored.
struct PreparedCall {
    reranker: Reranker,
    queries: ArrayRef,
    passages: ArrayRef,
    /// Rows of the result: as many as there are queries, or any number of repetitions of a single pair.
    rows: usize,
    /// The type that the query was planned with.
    data_type: DataType,
}

impl PreparedCall {
    /// Joins the columns of all windows into one of the batch's length.
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
