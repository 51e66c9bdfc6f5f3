//! The options argument: a constant struct, or a JSON object as text.

use std::fmt::{self, Formatter};

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Fields};
use datafusion::common::ScalarValue;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::options::{Cutoffs, ScoreOptions};

const EXPECTED: &str = "expected a struct such as {'max_length': 256} or the same as JSON text";

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
            from_entries(fields.iter().map(|field| (field.name().clone(), Value::Null)))?;
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
        other => Err(Error::input(format!("options is {other}, {EXPECTED}"))),
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
        ScalarValue::Struct(options) => {
            let entries = options.fields().iter().zip(options.columns());
            let entries = entries.map(|(field, column)| Ok((field.name().clone(), json(field.name(), column, 0)?)));
            from_entries(entries.collect::<Result<Vec<_>>>()?)
        }
        other => match other.try_as_str() {
            Some(Some(text)) => {
                let entries: Entries = serde_json::from_str(text)
                    .map_err(|error| Error::input(format!("options is '{text}', {EXPECTED}: {error}")))?;
                from_entries(entries.0)
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

/// Options by name and value. Refuses one that is given twice, also under its other name.
fn from_entries(entries: impl IntoIterator<Item = (String, Value)>) -> Result<ScoreOptions> {
    let mut options = ScoreOptions::default();
    let mut given = Vec::new();
    for (name, value) in entries {
        options.set(&name, &value)?;
        let option = ScoreOptions::declaration(&name).map(|option| option.name);
        if given.contains(&option) {
            return Err(Error::option(name, "it is given twice; keep one"));
        }
        given.push(option);
    }
    Ok(options)
}

/// The entries of a JSON object, those of the same name included.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("an object of named options")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
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
        BooleanArray, Date32Array, Int32Array, ListArray, NullArray, StringViewArray, StructArray, UInt64Array,
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
        let error = |text: &str| from_scalar(&ScalarValue::from(text)).unwrap_err().to_string();
        assert!(error("max_length=3").starts_with("options is 'max_length=3', expected a struct such as"));
        assert!(error("[1]").contains("expected an object of named options"));
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        let twice = |name: &str| format!("option {name}: it is given twice; keep one");
        let error = |text: &str| from_scalar(&ScalarValue::from(text)).unwrap_err().to_string();
        assert_eq!(error(r#"{"normalize": true, "normalize": false}"#), twice("normalize"));
        assert_eq!(error(r#"{"compress_layers": 1, "compress_layer": 1}"#), twice("compress_layer"));
        let length: ArrayRef = Arc::new(Int32Array::from(vec![64]));
        let value = structure(vec![("max_length", Arc::clone(&length)), ("max_length", length)]);
        assert_eq!(from_scalar(&value).unwrap_err().to_string(), twice("max_length"));
        assert_eq!(check_type(&value.data_type(), None).unwrap_err().to_string(), twice("max_length"));
    }
}
