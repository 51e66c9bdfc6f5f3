//! The Arrow types that the columns of a Parquet file are read as.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit as ParquetTimeUnit, Type as PhysicalType};
use parquet::schema::types::Type;

use super::layout::with_inner_fields;

/// The types that Parquet and the Arrow schema in a footer suggest, `suggested`, with changes where a value might not
/// survive:
///
/// - Dictionaries have 32-bit keys: each row group may have other values than the one before.
/// - INT96 timestamps are in microseconds: nanoseconds end in 2262.
/// - Dates are 32-bit numbers of days, as Parquet has them.
/// - ENUM is text.
/// - Timestamps have the time zone that the Arrow schema in the footer, `hint`, says, whatever its unit.
pub(super) fn readable(suggested: &Schema, parquet: &Type, hint: Option<&Schema>) -> Schema {
    let fields = suggested.fields().iter().zip(parquet.get_fields()).enumerate();
    let fields: Vec<FieldRef> = fields
        .map(|(index, (field, column))| {
            let data_type = match column.is_primitive() {
                true => leaf(field.data_type(), column),
                false if holds(column, &is_int96) && !holds(column, &is_nanoseconds) => {
                    in_microseconds(&widened(field.data_type()))
                }
                false => widened(field.data_type()),
            };
            let zone = hint.and_then(|hint| hint.fields().get(index)).map(|hint| hint.data_type());
            let data_type = match (data_type, zone) {
                (DataType::Timestamp(unit, Some(_)), Some(DataType::Timestamp(_, Some(zone)))) => {
                    DataType::Timestamp(unit, Some(Arc::clone(zone)))
                }
                (data_type, _) => data_type,
            };
            Arc::new(field.as_ref().clone().with_data_type(data_type))
        })
        .collect();
    Schema::new_with_metadata(fields, suggested.metadata().clone())
}

fn leaf(data_type: &DataType, column: &Type) -> DataType {
    let info = column.get_basic_info();
    let is_enum = info.logical_type_ref() == Some(&LogicalType::Enum) || info.converted_type() == ConvertedType::ENUM;
    match (data_type, column.get_physical_type()) {
        (DataType::Timestamp(TimeUnit::Nanosecond, zone), PhysicalType::INT96) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        (DataType::Date64, PhysicalType::INT32) => DataType::Date32,
        (DataType::Binary, PhysicalType::BYTE_ARRAY) if is_enum => DataType::Utf8,
        _ => widened(data_type),
    }
}

/// The key that marks the field of a column whose type or values an output would not keep. Its value says which type
/// the column has, because what is made of the column may be kept.
const MARK: &str = "rerank:not-kept";

/// The fields with those marked that an output which encodes them would not keep.
pub(super) fn marked(schema: &Schema, parquet: &Type) -> SchemaRef {
    let is_kept = |column: &Type| !holds(column, &is_variant) && !holds(column, &is_utc_time);
    let fields = schema.fields().iter().zip(parquet.get_fields()).map(|(field, column)| -> FieldRef {
        if is_kept(column) && !(holds(column, &is_int96) && holds(column, &is_nanoseconds)) {
            return Arc::clone(field);
        }
        let mut metadata = field.metadata().clone();
        metadata.insert(MARK.to_owned(), field.data_type().to_string());
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// # Errors
/// If a column would not be kept.
pub(crate) fn check_kept(field: &Field) -> Result<()> {
    if field.metadata().get(MARK) == Some(&field.data_type().to_string()) {
        bail!(
            "column '{}' is or has inside a VARIANT, a TIME that is adjusted to UTC, or INT96 beside other timestamps, which --sql cannot write again; leave it out or cast it",
            field.name()
        );
    }
    Ok(())
}

/// Whether the column or one inside of it is such.
fn holds(column: &Type, is_such: &dyn Fn(&Type) -> bool) -> bool {
    is_such(column) || !column.is_primitive() && column.get_fields().iter().any(|column| holds(column, is_such))
}

fn is_variant(column: &Type) -> bool {
    matches!(column.get_basic_info().logical_type_ref(), Some(LogicalType::Variant { .. }))
}

fn is_utc_time(column: &Type) -> bool {
    match column.get_basic_info().logical_type_ref() {
        Some(LogicalType::Time(time)) => time.is_adjusted_to_u_t_c,
        _ => false,
    }
}

fn is_int96(column: &Type) -> bool {
    column.is_primitive() && column.get_physical_type() == PhysicalType::INT96
}

fn is_nanoseconds(column: &Type) -> bool {
    match column.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(timestamp)) => timestamp.unit == ParquetTimeUnit::NANOS,
        _ => false,
    }
}

/// The type with 32-bit keys in all dictionaries.
fn widened(data_type: &DataType) -> DataType {
    use DataType::{Dictionary, Int8, Int16, Int32, UInt8, UInt16};
    mapped(data_type, &|data_type| match data_type {
        Dictionary(keys, values) if matches!(**keys, Int8 | Int16 | UInt8 | UInt16) => {
            Dictionary(Box::new(Int32), values.clone())
        }
        other => other.clone(),
    })
}

/// The type with timestamps in microseconds in place of nanoseconds.
fn in_microseconds(data_type: &DataType) -> DataType {
    mapped(data_type, &|data_type| match data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    })
}

/// The type with `other` applied to each type inside of it, and to itself.
fn mapped(data_type: &DataType, other: &dyn Fn(&DataType) -> DataType) -> DataType {
    other(&with_inner_fields(data_type, |field| {
        Arc::new(Field::clone(field).with_data_type(mapped(field.data_type(), other)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_widened_inside_of_types_too() {
        let words = |keys| DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8));
        let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        assert_eq!(widened(&list(words(DataType::UInt8))), list(words(DataType::Int32)));
        for same in [words(DataType::Int32), words(DataType::UInt64), list(DataType::Int8)] {
            assert_eq!(widened(&same), same);
        }
    }
}
