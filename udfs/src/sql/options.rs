//! The options argument: a constant struct, or a JSON object as text.

use datafusion::arrow::array::{Array, ArrayRef, StructArray};
use datafusion::arrow::datatypes::{DataType, Fields};
use datafusion::common::ScalarValue;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::options::{Cutoffs, ScoreOptions};

/// Checks what the options' type alone shows: that every option exists, and whether the call returns one score or a
/// list. A struct's fields are known long before their values.
///
/// # Errors
/// [`Error::Option`] for an option that does not exist, [`Error::Input`] for a type that cannot hold options.
pub(crate) fn check_type(data_type: &DataType, value: Option<&ScalarValue>) -> Result<ResultShape> {
    match data_type {
        DataType::Null => Ok(ResultShape::Score),
        DataType::Struct(fields) => {
            // Reading only NULLs finds unknown names.
            ScoreOptions::from_json(&Value::Object(
                fields.iter().map(|field| (field.name().clone(), Value::Null)).collect(),
            ))?;
            // Values are known later than types, but must not change the function's type.
            if let Some(value) = value {
                from_scalar(value)?;
            }
            Ok(ResultShape::of_fields(fields))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let options = value.map(from_scalar).transpose()?.unwrap_or_default();
            Ok(ResultShape::of_options(&options))
        }
        other => Err(Error::input(format!(
            "options is {other}, expected a struct such as {{'max_length': 256}} or the same as JSON text"
        ))),
    }
}

/// Reads options from the value of the argument. NULL stands for none.
///
/// # Errors
/// [`Error::Option`].
pub(crate) fn from_scalar(value: &ScalarValue) -> Result<ScoreOptions> {
    if value.is_null() {
        return Ok(ScoreOptions::default());
    }
    match value {
        ScalarValue::Struct(entries) => ScoreOptions::from_json(&object(entries, 0)?),
        other => match other.try_as_str() {
            Some(Some(text)) => {
                let value = serde_json::from_str(text)
                    .map_err(|error| Error::option("options", format!("'{text}' is not JSON: {error}")))?;
                ScoreOptions::from_json(&value)
            }
            _ => Err(Error::option("options", format!("expected a struct or JSON text, got {}", other.data_type()))),
        },
    }
}

/// What a call returns for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultShape {
    /// One score.
    Score,
    /// A score for each of several cutoff layers.
    List,
}

impl ResultShape {
    fn of_options(options: &ScoreOptions) -> Self {
        if options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list) { Self::List } else { Self::Score }
    }

    fn of_fields(fields: &Fields) -> Self {
        let list = fields.iter().any(|field| field.name() == "cutoff_layers" && is_list(field.data_type()));
        if list { Self::List } else { Self::Score }
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) | DataType::ListView(_)
    )
}

fn object(entries: &StructArray, row: usize) -> Result<Value> {
    let mut object = Map::new();
    for (field, column) in entries.fields().iter().zip(entries.columns()) {
        object.insert(field.name().clone(), json(field.name(), column, row)?);
    }
    Ok(Value::Object(object))
}

/// One value of an option's column as JSON.
fn json(name: &str, column: &ArrayRef, row: usize) -> Result<Value> {
    let unreadable = |reason: String| match ScoreOptions::declaration(name) {
        Some(option) => {
            Error::option(name, format!("its value cannot be read: {reason}; expected {}", option.kind.sql_type()))
        }
        None => Error::option("options", format!("its value cannot be read: {reason}")),
    };
    let value = ScalarValue::try_from_array(column, row).map_err(|error| unreadable(error.to_string()))?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    if let Some(Some(text)) = value.try_as_str() {
        return Ok(Value::from(text));
    }
    let integer = |array: &ArrayRef| {
        let array = datafusion::arrow::compute::cast(array, &DataType::Int64).ok()?;
        let ScalarValue::Int64(number) = ScalarValue::try_from_array(&array, 0).ok()? else { return None };
        number
    };
    match &value {
        ScalarValue::Boolean(Some(flag)) => Ok(Value::from(*flag)),
        ScalarValue::Float64(Some(number)) => Ok(Value::from(*number)),
        ScalarValue::Float32(Some(number)) => Ok(Value::from(*number)),
        ScalarValue::List(list) => elements(name, &list.value(0)),
        ScalarValue::LargeList(list) => elements(name, &list.value(0)),
        ScalarValue::FixedSizeList(list) => elements(name, &list.value(0)),
        other if other.data_type().is_integer() => {
            integer(&column.slice(row, 1)).map(Value::from).ok_or_else(|| unreadable(format!("{other} is too large")))
        }
        other => Err(unreadable(format!("{} is no type of an option", other.data_type()))),
    }
}

fn elements(name: &str, list: &ArrayRef) -> Result<Value> {
    (0..list.len()).map(|row| json(name, list, row)).collect::<Result<Vec<_>>>().map(Value::from)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BooleanArray, Date32Array, Int32Array, ListArray, NullArray, StringViewArray, UInt64Array,
    };
    use datafusion::arrow::datatypes::{Field, Int64Type};
    use serde_json::json;

    use super::*;

    fn structure(entries: Vec<(&str, ArrayRef)>) -> ScalarValue {
        ScalarValue::Struct(Arc::new(StructArray::from(
            entries
                .into_iter()
                .map(|(name, column)| (Arc::new(Field::new(name, column.data_type().clone(), true)), column))
                .collect::<Vec<_>>(),
        )))
    }

    fn list(layers: Vec<i64>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(layers.into_iter().map(Some))]))
    }

    #[test]
    fn structs_and_json_text_say_the_same() {
        let value = structure(vec![
            ("max_length", Arc::new(Int32Array::from(vec![64]))),
            ("query_max_length", Arc::new(UInt64Array::from(vec![16]))),
            ("normalize", Arc::new(BooleanArray::from(vec![true]))),
            ("prompt", Arc::new(StringViewArray::from(vec!["p"]))),
            ("cutoff_layers", list(vec![8, 16])),
            ("heads", Arc::new(NullArray::new(1))),
        ]);
        let text = json!({
            "max_length": 64, "query_max_length": 16, "normalize": true, "prompt": "p", "cutoff_layers": [8, 16]
        });
        let text = ScalarValue::LargeUtf8(Some(text.to_string()));
        assert_eq!(from_scalar(&value).unwrap(), from_scalar(&text).unwrap());
        assert_eq!(check_type(&value.data_type(), None).unwrap(), ResultShape::List);
        assert_eq!(check_type(&text.data_type(), Some(&text)).unwrap(), ResultShape::List);
    }

    #[test]
    fn null_is_no_options() {
        for value in [ScalarValue::Null, ScalarValue::Utf8(None)] {
            assert_eq!(from_scalar(&value).unwrap(), ScoreOptions::default());
            assert_eq!(check_type(&value.data_type(), Some(&value)).unwrap(), ResultShape::Score);
        }
    }

    #[test]
    fn the_type_alone_shows_names_that_do_not_exist() {
        let value = structure(vec![("max_lenght", Arc::new(Int32Array::from(vec![64])))]);
        let error = check_type(&value.data_type(), None).unwrap_err().to_string();
        assert!(error.starts_with("option max_lenght: there is no such option"), "{error}");
        let error = check_type(&DataType::Int64, None).unwrap_err().to_string();
        assert!(error.contains("options is Int64, expected a struct"), "{error}");
    }

    #[test]
    fn values_of_an_unknown_type_name_the_expected_one() {
        let value = structure(vec![("max_length", Arc::new(Date32Array::from(vec![64])))]);
        let error = from_scalar(&value).unwrap_err().to_string();
        assert!(error.starts_with("option max_length: its value cannot be read: "), "{error}");
        assert!(error.ends_with("; expected BIGINT"), "{error}");
    }

    #[test]
    fn unreadable_text_is_an_error() {
        let error = from_scalar(&ScalarValue::from("max_length=3")).unwrap_err().to_string();
        assert!(error.starts_with("option options: 'max_length=3' is not JSON"), "{error}");
        let error = from_scalar(&ScalarValue::from("[1]")).unwrap_err().to_string();
        assert!(error.contains("expected an object of named options"), "{error}");
    }
}
