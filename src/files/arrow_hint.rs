//! The Arrow schema that many writers keep in a Parquet footer, under the key `ARROW:schema`.
//!
//! It says what Parquet's own types do not: dictionaries, 64-bit offsets, views, durations.

use anyhow::{Context, Result, anyhow, bail};
use arrow::datatypes::{FieldRef, Schema};
use arrow_ipc::{Type, convert, root_as_message};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema};
use parquet::file::metadata::KeyValue;

use super::arrow_file::CONTINUATION;

/// The Arrow schema among the key-value metadata of a footer, if there is one.
///
/// # Errors
/// If it cannot be decoded, or has a column of a type that this program does not know.
pub(super) fn arrow_hint(metadata: Option<&Vec<KeyValue>>) -> Result<Option<Schema>> {
    let mut values = metadata.into_iter().flatten().filter(|entry| entry.key == ARROW_SCHEMA_META_KEY);
    let Some(text) = values.next().and_then(|entry| entry.value.as_deref()) else { return Ok(None) };
    decode_arrow_schema(text).with_context(|| format!("the footer's {ARROW_SCHEMA_META_KEY} cannot be used")).map(Some)
}

/// The schema that [`encode_arrow_schema`] encoded.
pub(crate) fn decode_arrow_schema(text: &str) -> Result<Schema> {
    let bytes = BASE64_STANDARD.decode(text)?;
    let message = if bytes.starts_with(&CONTINUATION) { bytes.get(8..).unwrap_or_default() } else { &bytes };
    let message = root_as_message(message).map_err(|error| anyhow!("{error}"))?;
    let schema = message.header_as_schema().context("it is not a schema")?;
    for field in schema.fields().into_iter().flatten() {
        check(field).with_context(|| format!("column '{}'", field.name().unwrap_or_default()))?;
    }
    Ok(convert::fb_to_schema(schema))
}

/// Refuses types at which the conversion would panic.
fn check(field: arrow_ipc::Field<'_>) -> Result<()> {
    if let (Type::Int, Some(int)) = (field.type_type(), field.type_as_int())
        && !matches!(int.bitWidth(), 8 | 16 | 32 | 64)
    {
        let sign = if int.is_signed() { "Int" } else { "UInt" };
        bail!("is of type {sign}{}, which Arrow does not have; cast it to another", int.bitWidth());
    }
    if field.type_type() > Type::LargeListView {
        bail!("is of an Arrow type of a later version; cast it to another");
    }
    field.children().into_iter().flatten().try_for_each(check)
}

/// The Arrow schema with fields appended, as it stands in a footer.
pub(super) fn with_fields(hint: &Schema, added: &[FieldRef]) -> String {
    let fields: Vec<FieldRef> = hint.fields().iter().chain(added).cloned().collect();
    encode_arrow_schema(&Schema::new_with_metadata(fields, hint.metadata().clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn schema() -> Schema {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let fields = vec![Field::new("a", dictionary, true), Field::new("b", DataType::LargeUtf8, false)];
        Schema::new_with_metadata(fields, [("origin".to_owned(), "test".to_owned())].into())
    }

    #[test]
    fn fields_are_appended_and_the_rest_is_kept() {
        let entry = |value: String| vec![KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), value)];
        let hint = arrow_hint(Some(&entry(encode_arrow_schema(&schema())))).unwrap().unwrap();
        assert_eq!(hint, schema());
        let added = [Arc::new(Field::new("score", DataType::Float32, true))];
        let extended = arrow_hint(Some(&entry(with_fields(&hint, &added)))).unwrap().unwrap();
        assert_eq!(extended.fields()[..2], schema().fields()[..]);
        assert_eq!((extended.fields()[2].name().as_str(), extended.metadata()), ("score", schema().metadata()));
        assert!(arrow_hint(None).unwrap().is_none());
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for text in ["not base 64!", "AAAA", ""] {
            let metadata = vec![KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), text.to_owned())];
            let error = format!("{:#}", arrow_hint(Some(&metadata)).unwrap_err());
            assert!(error.starts_with("the footer's ARROW:schema cannot be used: "), "{error}");
        }
    }
}
