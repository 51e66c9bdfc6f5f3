//! The Arrow types that the columns of a Parquet file are read as.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::schema::types::Type;

/// The types that Parquet and the Arrow schema in a footer suggest, `suggested`, with changes where a value might not
/// survive:
///
/// - Dictionaries have 32-bit keys: each row group may have other values than the one before.
/// - INT96 timestamps are in microseconds: nanoseconds end in 2262.
/// - Dates are 32-bit numbers of days, as Parquet has them.
/// - ENUM is text.
pub(super) fn readable(suggested: &Schema, parquet: &Type) -> Schema {
    let fields = suggested.fields().iter().zip(parquet.get_fields());
    let fields: Vec<FieldRef> = fields
        .map(|(field, column)| {
            let data_type = match column.is_primitive() {
                true => leaf(field.data_type(), column),
                false => widened(field.data_type()),
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

/// The type with 32-bit keys in all dictionaries.
fn widened(data_type: &DataType) -> DataType {
    use DataType::{
        Dictionary, FixedSizeList, Int8, Int16, Int32, LargeList, LargeListView, List, ListView, Map, Struct, UInt8,
        UInt16,
    };
    let field =
        |field: &FieldRef| -> FieldRef { Arc::new(Field::clone(field).with_data_type(widened(field.data_type()))) };
    match data_type {
        Dictionary(keys, values) if matches!(**keys, Int8 | Int16 | UInt8 | UInt16) => {
            Dictionary(Box::new(Int32), values.clone())
        }
        List(item) => List(field(item)),
        LargeList(item) => LargeList(field(item)),
        ListView(item) => ListView(field(item)),
        LargeListView(item) => LargeListView(field(item)),
        FixedSizeList(item, size) => FixedSizeList(field(item), *size),
        Map(entries, sorted) => Map(field(entries), *sorted),
        Struct(fields) => Struct(fields.iter().map(field).collect::<Fields>()),
        other => other.clone(),
    }
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
