//! `get_field` that stays where it is.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ExprSchema;
use datafusion::error::Result;
use datafusion::functions::core::get_field;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, lit,
};

use crate::scores::Scores;

/// DataFusion's `get_field`, for structs that hold or make scores. DataFusion moves its own towards the tables, on the
/// assumption that a struct is a column there, and would move a call that makes the struct with it: below limits and
/// filters, and into one branch of a UNION only.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct KeptField {
    signature: Signature,
}

impl KeptField {
    /// The expression with this function in place of `get_field`, if it is one over details; else `None`.
    pub(super) fn replace(expression: &Expr, schema: &dyn ExprSchema) -> Option<Expr> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expression else { return None };
        let is_details = args.first()?.get_type(schema).ok()? == DataType::Struct(Scores::details_fields());
        if *func != get_field() || !is_details {
            return None;
        }
        Some(Self::udf().call(args.clone()))
    }

    /// A field of a struct.
    pub(super) fn of(structure: Expr, field: &str) -> Expr {
        Self::udf().call(vec![structure, lit(field)])
    }

    fn udf() -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { signature: get_field().signature().clone() })
    }
}

/// All but `placement`, `simplify` and the type of bounds as DataFusion has it.
impl ScalarUDFImpl for KeptField {
    fn name(&self) -> &'static str {
        "get_field"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        get_field().schema_name(args)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        get_field().return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        get_field().return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        get_field().invoke_with_args(args)
    }

    /// Any value of the field's type. DataFusion's own has bounds of no type, with which a comparison of the field
    /// cannot be analyzed: a window partitioned by it then fails while planning.
    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        let [details, key] = inputs else { return Interval::make_unbounded(&DataType::Null) };
        let (DataType::Struct(fields), Some(Some(name))) = (details.data_type(), key.lower().try_as_str()) else {
            return Interval::make_unbounded(&DataType::Null);
        };
        let field = fields.find(name).map_or(DataType::Null, |(_, field)| field.data_type().clone());
        Interval::make_unbounded(&field)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        get_field().coerce_types(arg_types)
    }
}
