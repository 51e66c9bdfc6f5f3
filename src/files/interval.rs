//! INTERVAL columns of Parquet files: months, days and milliseconds, 12 bytes.
//!
//! The Parquet library reads either the months or the rest of them and cannot write all three. So it is shown plain
//! bytes here, in both directions, and Arrow arrays of months, days and nanoseconds are made from these. Only columns
//! of their own are covered, not intervals inside of lists and structs.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryBuilder, IntervalMonthDayNanoArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema, SchemaRef,
};
use arrow::error::ArrowError;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{ConvertedType, Type as PhysicalType};
use parquet::schema::types::{SchemaDescriptor, Type};

/// Bytes of a value: months, days and milliseconds as unsigned 32-bit little-endian integers.
const VALUE_BYTES: i32 = 12;

const NANOS_OF_A_MILLI: i64 = 1_000_000;

/// The Arrow type of intervals that have all three parts.
pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The schema with plain bytes in place of intervals; `None` if there are none.
///
/// # Errors
/// If there are intervals inside of another type.
pub(super) fn without_intervals(schema: &Type) -> Result<Option<SchemaDescriptor>> {
    let mut found = false;
    let mut fields = Vec::with_capacity(schema.get_fields().len());
    for field in schema.get_fields() {
        if !holds_interval(field) {
            fields.push(Arc::clone(field));
            continue;
        }
        if !field.is_primitive() {
            bail!("column '{}' has INTERVALs inside, which cannot be read; leave it out of the file", field.name());
        }
        found = true;
        let bytes = Type::primitive_type_builder(field.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY)
            .with_length(VALUE_BYTES)
            .with_id(field.get_basic_info().has_id().then(|| field.get_basic_info().id()))
            .with_repetition(field.get_basic_info().repetition());
        fields.push(Arc::new(bytes.build()?));
    }
    if !found {
        return Ok(None);
    }
    let root = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
    Ok(Some(SchemaDescriptor::new(Arc::new(root))))
}

fn holds_interval(field: &Type) -> bool {
    if field.is_primitive() {
        return field.get_basic_info().converted_type() == ConvertedType::INTERVAL;
    }
    field.get_fields().iter().any(|field| holds_interval(field))
}

/// The schema with the fields at these places changed.
fn with_type(schema: &Schema, data_type: &DataType, is_such: impl Fn(usize, &Field) -> bool) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(index, field)| -> FieldRef {
        if is_such(index, field) {
            Arc::new(field.as_ref().clone().with_data_type(data_type.clone()))
        } else {
            Arc::clone(field)
        }
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// The schema with plain bytes for the columns that are intervals in a file with this Parquet schema.
pub(super) fn stored(schema: &Schema, parquet: &Type) -> SchemaRef {
    let is_interval = |index: usize, _: &Field| holds_interval(&parquet.get_fields()[index]);
    with_type(schema, &DataType::FixedSizeBinary(VALUE_BYTES), is_interval)
}

/// The schema with intervals for these columns.
pub(super) fn decoded_schema(schema: &Schema, parquet: &Type) -> SchemaRef {
    with_type(schema, &INTERVAL, |index, _| holds_interval(&parquet.get_fields()[index]))
}

/// A batch as it is in the file, with intervals in place of the bytes where `schema` has them.
pub(super) fn decode(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| -> ArrayRef {
        match (field.data_type(), column.as_fixed_size_binary_opt()) {
            (data_type, Some(values)) if *data_type == INTERVAL => {
                Arc::new(values.iter().map(|value| value.map(value_of)).collect::<IntervalMonthDayNanoArray>())
            }
            _ => Arc::clone(column),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

fn value_of(bytes: &[u8]) -> IntervalMonthDayNano {
    let part = |index: usize| {
        let mut number = [0; 4];
        number.copy_from_slice(&bytes[4 * index..4 * index + 4]);
        u32::from_le_bytes(number)
    };
    // Numbers above 2^31 wrap, and are written as they were.
    IntervalMonthDayNano::new(part(0) as i32, part(1) as i32, i64::from(part(2)) * NANOS_OF_A_MILLI)
}

/// Makes bytes of the intervals in batches of one schema.
pub(super) struct IntervalEncoder {
    schema: SchemaRef,
    /// The schema of the file, in which the bytes are intervals.
    pub(super) parquet: SchemaDescriptor,
}

impl IntervalEncoder {
    /// `None` if there are no intervals of months, days and nanoseconds. The others can be written as they are.
    pub(super) fn of(schema: &Schema) -> Result<Option<Self>> {
        let is_interval = |field: &Field| *field.data_type() == INTERVAL;
        if !schema.fields().iter().any(|field| is_interval(field)) {
            return Ok(None);
        }
        // The converter knows that an interval is one, but not how to write it.
        let parquet = ArrowSchemaConverter::new().convert(schema)?;
        let schema = with_type(schema, &DataType::FixedSizeBinary(VALUE_BYTES), |_, field| is_interval(field));
        Ok(Some(Self { schema, parquet }))
    }

    /// The columns as they are encoded.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// # Errors
    /// If an interval is not a whole number of milliseconds, or is one that Parquet does not have.
    pub(super) fn encode(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            columns.push(match column.as_primitive_opt::<IntervalMonthDayNanoType>() {
                Some(values) => {
                    let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), VALUE_BYTES);
                    for value in values {
                        match value {
                            Some(value) => builder.append_value(bytes_of(field.name(), value)?)?,
                            None => builder.append_null(),
                        }
                    }
                    Arc::new(builder.finish()) as ArrayRef
                }
                None => Arc::clone(column),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn bytes_of(column: &str, value: IntervalMonthDayNano) -> Result<[u8; VALUE_BYTES as usize]> {
    let millis = (value.nanoseconds % NANOS_OF_A_MILLI == 0).then_some(value.nanoseconds / NANOS_OF_A_MILLI);
    let Some(millis) = millis.and_then(|millis| u32::try_from(millis).ok()) else {
        bail!("column '{column}': Parquet has no interval of {} nanoseconds", value.nanoseconds);
    };
    let mut bytes = [0; VALUE_BYTES as usize];
    bytes[..4].copy_from_slice(&value.months.to_le_bytes());
    bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
    bytes[8..].copy_from_slice(&millis.to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_bytes_and_back() {
        let values = [Some((14, 0, 0)), None, Some((0, 3, 1_500 * NANOS_OF_A_MILLI)), Some((1200, 31, 0))];
        let values = values.map(|value| value.map(|(m, d, n)| IntervalMonthDayNano::new(m, d, n)));
        let column: ArrayRef = Arc::new(values.into_iter().collect::<IntervalMonthDayNanoArray>());
        let batch = RecordBatch::try_from_iter([("i", column)]).unwrap();
        let encoder = IntervalEncoder::of(&batch.schema()).unwrap().unwrap();
        let encoded = encoder.encode(&batch).unwrap();
        assert_eq!(encoded.column(0).as_fixed_size_binary().value(0), [14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(&encoded, &batch.schema()).unwrap(), batch);
        let parquet = encoder.parquet.root_schema();
        assert_eq!(decoded_schema(encoder.schema(), parquet), batch.schema());
        assert_eq!(stored(&batch.schema(), parquet), *encoder.schema());
        let plain = without_intervals(parquet).unwrap().unwrap();
        assert!(!holds_interval(plain.root_schema()) && without_intervals(plain.root_schema()).unwrap().is_none());
    }

    #[test]
    fn intervals_that_parquet_does_not_have_are_refused() {
        for nanoseconds in [1, -NANOS_OF_A_MILLI, i64::MAX / NANOS_OF_A_MILLI * NANOS_OF_A_MILLI] {
            let error = bytes_of("i", IntervalMonthDayNano::new(0, 0, nanoseconds)).unwrap_err().to_string();
            assert_eq!(error, format!("column 'i': Parquet has no interval of {nanoseconds} nanoseconds"));
        }
    }
}
