//! Text columns of any layout as string slices.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;

use crate::error::{Error, Result};

/// Whether columns of a type can be scored: `Utf8`, `LargeUtf8`, `Utf8View`, `Null` (every row is NULL), and
/// dictionaries of them.
pub fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// The rows of a text column, `None` where it is NULL.
///
/// # Errors
/// [`Error::Input`] for a column that is not [text](is_text).
pub(crate) fn texts<'a>(argument: &str, array: &'a dyn Array) -> Result<Vec<Option<&'a str>>> {
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().collect()),
        DataType::LargeUtf8 => Ok(array.as_string::<i64>().iter().collect()),
        DataType::Utf8View => Ok(array.as_string_view().iter().collect()),
        DataType::Null => Ok(vec![None; array.len()]),
        DataType::Dictionary(_, values) if is_text(values) => {
            let dictionary = array.as_any_dictionary();
            if dictionary.values().is_empty() {
                return Ok(vec![None; array.len()]);
            }
            let values = texts(argument, dictionary.values().as_ref())?;
            let keys = dictionary.normalized_keys();
            let nulls = array.nulls();
            Ok(keys
                .into_iter()
                .enumerate()
                .map(|(row, key)| if nulls.is_some_and(|nulls| nulls.is_null(row)) { None } else { values[key] })
                .collect())
        }
        other => Err(Error::input(format!("{argument} is a column of {other}, expected text; CAST it to VARCHAR"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, LargeStringArray, NullArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn all_layouts_give_the_same_rows() {
        let rows = vec![Some("a"), None, Some(""), Some("a")];
        let keys = Int32Array::from(vec![Some(0), None, Some(2), Some(0)]);
        let values = Arc::new(StringArray::from(vec![Some("a"), None, Some("")]));
        let arrays: [&dyn Array; 4] = [
            &StringArray::from(rows.clone()),
            &LargeStringArray::from(rows.clone()),
            &StringViewArray::from(rows.clone()),
            &DictionaryArray::<Int32Type>::new(keys, values),
        ];
        for array in arrays {
            assert_eq!(texts("query", array).unwrap(), rows, "{}", array.data_type());
        }
        assert_eq!(texts("query", &NullArray::new(2)).unwrap(), vec![None, None]);
    }

    #[test]
    fn nulls_hide_in_dictionary_values_too() {
        let values = Arc::new(StringArray::from(vec![None::<&str>]));
        let array = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0]), values);
        assert_eq!(texts("query", &array).unwrap(), vec![None]);
        let empty = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![None]), Arc::new(StringArray::new_null(0)));
        assert_eq!(texts("query", &empty).unwrap(), vec![None]);
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let error = texts("passage", &Int32Array::from(vec![1])).unwrap_err().to_string();
        assert!(error.contains("passage is a column of Int32"), "{error}");
        let numbers = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0]), Arc::new(Int32Array::from(vec![1])));
        let error = texts("passage", &numbers).unwrap_err().to_string();
        assert!(error.contains("passage is a column of Dictionary(Int32, Int32)"), "{error}");
    }
}
