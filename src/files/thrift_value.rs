//! Thrift structures without their definitions, so that what nobody here knows is kept.
//!
//! The footer of a Parquet file is such a structure. The Parquet library reads it into types of its own, and does not
//! write again what these have no place for. The numbers of fields are those of
//! [parquet.thrift](https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift).

use std::io::Cursor;

use anyhow::{Context, Result, bail};
use thrift::TConfiguration;
use thrift::protocol::{
    TCompactInputProtocol, TCompactOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier, TMapIdentifier,
    TOutputProtocol, TSetIdentifier, TStructIdentifier, TType,
};

/// A value of any type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    Double(f64),
    /// Text too.
    Bytes(Vec<u8>),
    List(TType, Vec<Self>),
    Set(TType, Vec<Self>),
    Map(TType, TType, Vec<(Self, Self)>),
    Struct(Struct),
}

/// The fields of a structure by number, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Struct(Vec<(i16, Value)>);

impl Struct {
    /// Reads a structure in the compact protocol. Returns how many bytes it has, too.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize)> {
        Self::read_some(bytes, |_, _| true)
    }

    /// Like [`Self::read`], without the structures of lists in it for which `wanted` is false, given the number of the
    /// list's field and the place in the list.
    pub(super) fn read_some(bytes: &[u8], wanted: impl Fn(i16, usize) -> bool) -> Result<(Self, usize)> {
        let mut cursor = Cursor::new(bytes);
        let mut input = TCompactInputProtocol::with_config(&mut cursor, TConfiguration::no_limits());
        let read = read_struct(&mut input, Some(&wanted), 0).context("it is damaged")?;
        let count = cursor.position() as usize;
        Ok((read, count))
    }

    /// Writes the structure in the compact protocol.
    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut output = TCompactOutputProtocol::with_config(&mut bytes, TConfiguration::no_limits());
        write_struct(&mut output, self)?;
        output.flush()?;
        drop(output);
        Ok(bytes)
    }

    pub(super) fn get(&self, field: i16) -> Option<&Value> {
        self.0.iter().find(|(number, _)| *number == field).map(|(_, value)| value)
    }

    fn get_mut(&mut self, field: i16) -> Option<&mut Value> {
        self.0.iter_mut().find(|(number, _)| *number == field).map(|(_, value)| value)
    }

    /// A whole number of any width.
    pub(super) fn number(&self, field: i16) -> Option<i64> {
        match self.get(field)? {
            Value::I16(number) => Some(i64::from(*number)),
            Value::I32(number) => Some(i64::from(*number)),
            Value::I64(number) => Some(*number),
            _ => None,
        }
    }

    /// Sets a 64-bit number, if the field is there.
    pub(super) fn set_number(&mut self, field: i16, number: i64) {
        if let Some(old) = self.get_mut(field) {
            *old = Value::I64(number);
        }
    }

    /// Sets a field, which keeps its place among the others if it is there.
    pub(super) fn set(&mut self, field: i16, value: Value) {
        if let Some(old) = self.get_mut(field) {
            *old = value;
            return;
        }
        let place = self.0.iter().take_while(|(number, _)| *number < field).count();
        self.0.insert(place, (field, value));
    }

    pub(super) fn remove(&mut self, field: i16) {
        self.0.retain(|(number, _)| *number != field);
    }

    pub(super) fn structure(&mut self, field: i16) -> Result<&mut Self> {
        match self.get_mut(field) {
            Some(Value::Struct(value)) => Ok(value),
            _ => bail!("it lacks field {field}, a structure"),
        }
    }

    /// The structures of a list.
    pub(super) fn structures(&mut self, field: i16) -> Result<Vec<&mut Self>> {
        let Some(Value::List(_, values)) = self.get_mut(field) else { bail!("it lacks field {field}, a list") };
        let structures = values.iter_mut().map(|value| match value {
            Value::Struct(value) => Ok(value),
            _ => bail!("field {field} is not a list of structures"),
        });
        structures.collect()
    }

    /// The values of a list, to be changed.
    pub(super) fn list(&mut self, field: i16) -> Result<&mut Vec<Value>> {
        match self.get_mut(field) {
            Some(Value::List(_, values)) => Ok(values),
            _ => bail!("it lacks field {field}, a list"),
        }
    }
}

/// Whether an element of a list is wanted.
type Wanted<'a> = dyn Fn(i16, usize) -> bool + 'a;

/// Values inside of values. Deeper ones would take more of the stack than there is.
const DEEPEST: usize = 64;

fn read_struct(input: &mut impl TInputProtocol, wanted: Option<&Wanted<'_>>, depth: usize) -> thrift::Result<Struct> {
    input.read_struct_begin()?;
    let mut fields = Vec::new();
    loop {
        let field = input.read_field_begin()?;
        // Only the end has no number.
        let Some(number) = field.id.filter(|_| field.field_type != TType::Stop) else { break };
        let wanted = wanted.map(|wanted| (wanted, number));
        fields.push((number, read_value(input, field.field_type, wanted, depth + 1)?));
        input.read_field_end()?;
    }
    input.read_struct_end()?;
    Ok(Struct(fields))
}

fn read_value(
    input: &mut impl TInputProtocol,
    kind: TType,
    wanted: Option<(&Wanted<'_>, i16)>,
    depth: usize,
) -> thrift::Result<Value> {
    if depth > DEEPEST {
        return Err("values are inside of too many others".into());
    }
    Ok(match kind {
        TType::Bool => Value::Bool(input.read_bool()?),
        TType::I08 => Value::I8(input.read_i8()?),
        TType::I16 => Value::I16(input.read_i16()?),
        TType::I32 => Value::I32(input.read_i32()?),
        TType::I64 => Value::I64(input.read_i64()?),
        TType::Double => Value::Double(input.read_double()?),
        TType::String | TType::Utf7 => Value::Bytes(input.read_bytes()?),
        TType::Struct => Value::Struct(read_struct(input, None, depth + 1)?),
        TType::List => {
            let list = input.read_list_begin()?;
            let mut values = Vec::new();
            for index in 0..list.size.max(0) as usize {
                if wanted.is_none_or(|(wanted, field)| wanted(field, index)) {
                    values.push(read_value(input, list.element_type, None, depth + 1)?);
                } else {
                    input.skip(list.element_type)?;
                }
            }
            input.read_list_end()?;
            Value::List(list.element_type, values)
        }
        TType::Set => {
            let set = input.read_set_begin()?;
            let values = (0..set.size)
                .map(|_| read_value(input, set.element_type, None, depth + 1))
                .collect::<Result<_, _>>()?;
            input.read_set_end()?;
            Value::Set(set.element_type, values)
        }
        TType::Map => {
            let map = input.read_map_begin()?;
            let (keys, values) = (map.key_type.unwrap_or(TType::I08), map.value_type.unwrap_or(TType::I08));
            let entry =
                |_| Ok((read_value(input, keys, None, depth + 1)?, read_value(input, values, None, depth + 1)?));
            let entries = (0..map.size).map(entry).collect::<thrift::Result<_>>()?;
            input.read_map_end()?;
            Value::Map(keys, values, entries)
        }
        kind => return Err(format!("a value of type {kind} is not known").into()),
    })
}

impl Value {
    fn kind(&self) -> TType {
        match self {
            Self::Bool(_) => TType::Bool,
            Self::I8(_) => TType::I08,
            Self::I16(_) => TType::I16,
            Self::I32(_) => TType::I32,
            Self::I64(_) => TType::I64,
            Self::Double(_) => TType::Double,
            Self::Bytes(_) => TType::String,
            Self::List(..) => TType::List,
            Self::Set(..) => TType::Set,
            Self::Map(..) => TType::Map,
            Self::Struct(_) => TType::Struct,
        }
    }
}

fn write_struct(output: &mut impl TOutputProtocol, value: &Struct) -> thrift::Result<()> {
    output.write_struct_begin(&TStructIdentifier::new(""))?;
    for (number, value) in &value.0 {
        output.write_field_begin(&TFieldIdentifier::new("", value.kind(), *number))?;
        write_value(output, value)?;
        output.write_field_end()?;
    }
    output.write_field_stop()?;
    output.write_struct_end()
}

fn write_value(output: &mut impl TOutputProtocol, value: &Value) -> thrift::Result<()> {
    match value {
        Value::Bool(value) => output.write_bool(*value),
        Value::I8(value) => output.write_i8(*value),
        Value::I16(value) => output.write_i16(*value),
        Value::I32(value) => output.write_i32(*value),
        Value::I64(value) => output.write_i64(*value),
        Value::Double(value) => output.write_double(*value),
        Value::Bytes(value) => output.write_bytes(value),
        Value::Struct(value) => write_struct(output, value),
        Value::List(kind, values) => {
            output.write_list_begin(&TListIdentifier::new(*kind, values.len() as i32))?;
            values.iter().try_for_each(|value| write_value(output, value))?;
            output.write_list_end()
        }
        Value::Set(kind, values) => {
            output.write_set_begin(&TSetIdentifier::new(*kind, values.len() as i32))?;
            values.iter().try_for_each(|value| write_value(output, value))?;
            output.write_set_end()
        }
        Value::Map(keys, values, entries) => {
            output.write_map_begin(&TMapIdentifier::new(*keys, *values, entries.len() as i32))?;
            for (key, value) in entries {
                write_value(output, key)?;
                write_value(output, value)?;
            }
            output.write_map_end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_type() -> Struct {
        let inner = Struct(vec![(1, Value::Bool(true)), (2, Value::Bool(false)), (40, Value::I8(-1))]);
        Struct(vec![
            (1, Value::I16(-300)),
            (2, Value::I32(70_000)),
            (3, Value::I64(i64::MIN)),
            (4, Value::Double(0.5)),
            (5, Value::Bytes(b"\xff not UTF-8".to_vec())),
            (6, Value::List(TType::Struct, vec![Value::Struct(inner.clone()), Value::Struct(Struct::default())])),
            (7, Value::Set(TType::I32, vec![Value::I32(1)])),
            (8, Value::Map(TType::String, TType::Bool, vec![(Value::Bytes(b"k".to_vec()), Value::Bool(true))])),
            (20_000, Value::Struct(inner)),
            (9, Value::List(TType::I64, (0..40).map(Value::I64).collect())),
        ])
    }

    #[test]
    fn what_was_read_is_written() {
        let bytes = every_type().write().unwrap();
        let mut longer = bytes.clone();
        longer.extend(b"what follows");
        let (read, count) = Struct::read(&longer).unwrap();
        assert_eq!((&read, count), (&every_type(), bytes.len()));
        assert_eq!(read.write().unwrap(), bytes);
        let (some, count) = Struct::read_some(&bytes, |field, place| field != 6 || place == 1).unwrap();
        assert_eq!(count, bytes.len());
        assert_eq!(some.get(6), Some(&Value::List(TType::Struct, vec![Value::Struct(Struct::default())])));
        // Structures and lists inside of each other, without an end.
        for deep in [vec![0x1c; 100_000], vec![0x19; 100_000]] {
            assert!(Struct::read(&deep).is_err());
        }
        for end in 0..bytes.len() {
            assert!(Struct::read(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn fields_are_changed_in_their_places() {
        let mut value = every_type();
        value.set_number(3, 5);
        value.set(2, Value::I32(1));
        value.set(10, Value::I16(2));
        value.remove(4);
        value.set_number(99, 1);
        assert_eq!(
            (value.number(3), value.number(2), value.number(10), value.number(4)),
            (Some(5), Some(1), Some(2), None)
        );
        value.structures(6).unwrap()[1].set(1, Value::I64(7));
        assert_eq!(value.structures(6).unwrap()[1].number(1), Some(7));
        value.list(9).unwrap().truncate(1);
        assert_eq!(value.get(9), Some(&Value::List(TType::I64, vec![Value::I64(0)])));
        assert!(value.structures(9).is_err() && value.structure(9).is_err() && value.list(1).is_err());
        assert_eq!(value.structure(20_000).unwrap().get(2), Some(&Value::Bool(false)));
    }
}
