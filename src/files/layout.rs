//! Where the query and passage columns of a file are, and the schema of the scored file.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_rerank::is_text;

/// The columns that a run reads and adds, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    /// The column of the queries.
    pub(crate) query: String,
    /// The column of the passages.
    pub(crate) passage: String,
    /// The column to add.
    pub(crate) score: String,
    /// The type of the score column.
    pub(crate) score_type: DataType,
    /// Whether to also add a column for the reasons of failed rows.
    pub(crate) errors: bool,
}

impl Columns {
    /// The columns to add.
    pub(crate) fn added(&self) -> SchemaRef {
        let score = Field::new(&self.score, self.score_type.clone(), true);
        let error = self.errors.then(|| Field::new(format!("{}_error", self.score), DataType::Utf8, true));
        Arc::new(Schema::new(std::iter::once(score).chain(error).collect::<Vec<_>>()))
    }
}

/// The columns found in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Index of the query column.
    pub(crate) query: usize,
    /// Index of the passage column.
    pub(crate) passage: usize,
    /// The columns to add.
    pub(crate) added: SchemaRef,
}

impl Layout {
    /// Finds the columns in a file's schema.
    ///
    /// # Errors
    /// If a column is missing or not text, or a column to add already exists.
    pub(crate) fn new(input: &Schema, columns: &Columns) -> Result<Self> {
        let added = columns.added();
        if let Some(field) = added.fields().iter().find(|field| input.index_of(field.name()).is_ok()) {
            bail!("it has a column '{}' already; name another with --score", field.name());
        }
        Ok(Self {
            query: text_column(input, &columns.query, "--query")?,
            passage: text_column(input, &columns.passage, "--passage")?,
            added,
        })
    }

    /// The schema of the scored file: the input's columns and the added ones.
    pub(crate) fn scored(&self, input: &Schema) -> SchemaRef {
        let fields: Vec<FieldRef> = input.fields().iter().chain(self.added.fields()).cloned().collect();
        Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()))
    }
}

/// Describes how a file's columns differ from another's. Returns `None` if names, order and values are of the same
/// kinds. How text is packaged (dictionaries, 64-bit offsets, views), nullability and metadata may differ, and so may a
/// column that is all NULL and has no type: each output keeps those of its input.
pub(crate) fn difference(schema: &Schema, other: &Schema) -> Option<String> {
    for field in schema.fields() {
        match other.field_with_name(field.name()) {
            Err(_) => return Some(format!("column '{}' is missing there", field.name())),
            Ok(there) if !is_alike(field.data_type(), there.data_type()) => {
                return Some(format!(
                    "column '{}' is of type {} here and {} there",
                    field.name(),
                    field.data_type(),
                    there.data_type()
                ));
            }
            Ok(_) => {}
        }
    }
    if let Some(field) = other.fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
        return Some(format!("column '{}' is missing here", field.name()));
    }
    let moved = schema.fields().iter().zip(other.fields()).find(|(here, there)| here.name() != there.name());
    moved.map(|(here, there)| format!("column '{}' stands here where '{}' stands there", here.name(), there.name()))
}

/// Whether two types hold the same kind of values, packaged in one way or another.
fn is_alike(one: &DataType, other: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Dictionary, FixedSizeList, LargeBinary, LargeList, LargeListView, LargeUtf8, List,
        ListView, Map, Null, RunEndEncoded, Struct, Utf8, Utf8View,
    };
    match (one, other) {
        (Null, _)
        | (_, Null)
        | (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
        | (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        (Dictionary(_, values), other) | (other, Dictionary(_, values)) => is_alike(values, other),
        (RunEndEncoded(_, values), other) | (other, RunEndEncoded(_, values)) => is_alike(values.data_type(), other),
        (
            List(one) | LargeList(one) | ListView(one) | LargeListView(one),
            List(other) | LargeList(other) | ListView(other) | LargeListView(other),
        )
        | (Map(one, _), Map(other, _)) => is_alike(one.data_type(), other.data_type()),
        (FixedSizeList(one, size), FixedSizeList(other, other_size)) => {
            size == other_size && is_alike(one.data_type(), other.data_type())
        }
        (Struct(one), Struct(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one.name() == other.name() && is_alike(one.data_type(), other.data_type()))
        }
        (one, other) => one == other,
    }
}

/// The type with other fields directly inside of it; a type that has none is returned as it is.
pub(crate) fn with_inner_fields(data_type: &DataType, field: impl Fn(&FieldRef) -> FieldRef) -> DataType {
    use DataType::{FixedSizeList, LargeList, LargeListView, List, ListView, Map, Struct};
    match data_type {
        List(item) => List(field(item)),
        LargeList(item) => LargeList(field(item)),
        ListView(item) => ListView(field(item)),
        LargeListView(item) => LargeListView(field(item)),
        FixedSizeList(item, size) => FixedSizeList(field(item), *size),
        Map(entries, sorted) => Map(field(entries), *sorted),
        Struct(fields) => Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// Whether the type or one nested in it satisfies the predicate.
pub(crate) fn any_type(data_type: &DataType, is_such: fn(&DataType) -> bool) -> bool {
    use DataType::{FixedSizeList, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Union};
    is_such(data_type)
        || match data_type {
            List(item)
            | LargeList(item)
            | ListView(item)
            | LargeListView(item)
            | FixedSizeList(item, _)
            | Map(item, _)
            | RunEndEncoded(_, item) => any_type(item.data_type(), is_such),
            Struct(fields) => fields.iter().any(|field| any_type(field.data_type(), is_such)),
            Union(fields, _) => fields.iter().any(|(_, field)| any_type(field.data_type(), is_such)),
            _ => false,
        }
}

fn text_column(schema: &Schema, name: &str, flag: &str) -> Result<usize> {
    let Ok(index) = schema.index_of(name) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        bail!("it has no column '{name}'; name one with {flag}, the columns are {}", names.join(", "));
    };
    let data_type = schema.field(index).data_type();
    if is_text(data_type) {
        return Ok(index);
    }
    bail!("column '{name}' is of type {data_type}, expected text; name another with {flag}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn columns() -> Columns {
        Columns {
            query: "query".into(),
            passage: "passage".into(),
            score: "score".into(),
            score_type: DataType::Float32,
            errors: true,
        }
    }

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        let fields: Vec<Field> = fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect();
        Schema::new_with_metadata(fields, HashMap::from([("origin".to_owned(), "test".to_owned())]))
    }

    fn refusal(fields: &[(&str, DataType)]) -> String {
        Layout::new(&schema(fields), &columns()).unwrap_err().to_string()
    }

    #[test]
    fn added_columns_come_last_and_the_rest_is_kept() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let input = schema(&[("passage", DataType::Utf8View), ("id", DataType::Int64), ("query", dictionary)]);
        let layout = Layout::new(&input, &columns()).unwrap();
        assert_eq!((layout.query, layout.passage), (2, 0));
        let scored = layout.scored(&input);
        assert_eq!(scored.fields()[..3], input.fields()[..]);
        assert_eq!(scored.metadata(), input.metadata());
        let added: Vec<_> = scored.fields()[3..].iter().map(|f| (f.name().as_str(), f.data_type())).collect();
        assert_eq!(added, [("score", &DataType::Float32), ("score_error", &DataType::Utf8)]);
    }

    #[test]
    fn differences_name_the_column_and_both_types() {
        use DataType::{Int32, Int64, Utf8};
        let base = schema(&[("id", Int64), ("query", Utf8)]);
        let found = |fields: &[(&str, DataType)]| difference(&schema(fields), &base);
        assert_eq!(found(&[("id", Int64), ("query", Utf8)]), None);
        assert_eq!(
            found(&[("id", Int32), ("query", Utf8)]).unwrap(),
            "column 'id' is of type Int32 here and Int64 there"
        );
        assert_eq!(found(&[("id", Int64), ("q", Utf8)]).unwrap(), "column 'q' is missing there");
        assert_eq!(found(&[("id", Int64)]).unwrap(), "column 'query' is missing here");
        assert_eq!(
            found(&[("query", Utf8), ("id", Int64)]).unwrap(),
            "column 'query' stands here where 'id' stands there"
        );
        let nullable = Schema::new(vec![Field::new("id", Int64, true), Field::new("query", Utf8, true)]);
        assert_eq!(difference(&nullable, &base), None);
    }

    #[test]
    fn packaging_is_no_difference() {
        use DataType::{Binary, Dictionary, Float64, Int8, Int32, LargeList, LargeUtf8, List, Null, Utf8, Utf8View};
        let item = |data_type| Arc::new(Field::new("item", data_type, true));
        let words = Dictionary(Box::new(Int8), Box::new(LargeUtf8));
        let alike = [
            (Utf8, words.clone()),
            (words, Dictionary(Box::new(Int32), Box::new(Utf8View))),
            (Null, Float64),
            (LargeList(item(Utf8)), List(item(Null))),
        ];
        for (one, other) in alike {
            assert!(is_alike(&one, &other) && is_alike(&other, &one), "{one}, {other}");
        }
        for (one, other) in [(Utf8, Binary), (Float64, Int32), (List(item(Utf8)), List(item(Float64)))] {
            assert!(!is_alike(&one, &other) && !is_alike(&other, &one), "{one}, {other}");
        }
    }

    #[test]
    fn types_are_found_inside_of_types() {
        let is_date = |data_type: &DataType| *data_type == DataType::Date32;
        let field = |data_type| Arc::new(Field::new("x", data_type, true));
        let list = DataType::List(field(DataType::Date32));
        let nested = DataType::Struct(vec![field(DataType::Utf8), field(list.clone())].into());
        for found in [&DataType::Date32, &list, &nested] {
            assert!(any_type(found, is_date), "{found}");
        }
        assert!(!any_type(&DataType::List(field(DataType::Utf8)), is_date));
    }

    #[test]
    fn refusals_say_what_there_is() {
        use DataType::{Int32, Utf8};
        assert_eq!(
            refusal(&[("query", Utf8), ("text", Utf8)]),
            "it has no column 'passage'; name one with --passage, the columns are query, text"
        );
        assert_eq!(
            refusal(&[("query", Int32), ("passage", Utf8)]),
            "column 'query' is of type Int32, expected text; name another with --query"
        );
        for name in ["score", "score_error"] {
            let error = refusal(&[("query", Utf8), ("passage", Utf8), (name, Utf8)]);
            assert_eq!(error, format!("it has a column '{name}' already; name another with --score"));
        }
    }
}
