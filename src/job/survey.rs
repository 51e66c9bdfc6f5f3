//! Examines the input files before anything is scored.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use crate::files::{Columns, Format, Group, InputFile, Rows, Source, difference, with_inner_fields};

/// Footers read concurrently before the run.
const SURVEYS_AT_ONCE: usize = 16;

/// The schema and the groups of the inputs.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The columns, as the first file has them that says their type: in another they may be all NULL.
    pub(crate) schema: SchemaRef,
    /// The groups of each file.
    pub(crate) groups: Vec<Vec<Group>>,
}

/// Checks, before anything is scored, that all files can be read and have the same columns. With `columns`, also checks
/// that the files have these columns and can be written with the added ones.
pub(crate) async fn survey(files: &[InputFile], columns: Option<&Columns>, format: Format) -> Result<Survey> {
    let surveys = files.iter().cloned().map(|file| {
        let columns = columns.cloned();
        async move {
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let Some(columns) = columns else {
                    let source = Source::open(&file, &runtime)?;
                    return anyhow::Ok((Arc::clone(source.schema()), source.groups()));
                };
                let rows = Rows::open(&file, &columns, format.kind, &runtime)?;
                let layout = rows.layout();
                if layout.carries {
                    format
                        .check(&layout.written)
                        .with_context(|| format!("cannot write the columns of {}", file.location))?;
                }
                anyhow::Ok((Arc::clone(rows.schema()), rows.groups().to_vec()))
            })
            .await
            .context("a file could not be examined")?
        }
    });
    let mut surveys = stream::iter(surveys).buffered(SURVEYS_AT_ONCE);
    let mut common: Option<SchemaRef> = None;
    let mut groups = Vec::with_capacity(files.len());
    while let Some((schema, found)) = surveys.try_next().await? {
        let file = &files[groups.len()].location;
        let common = common.get_or_insert_with(|| Arc::clone(&schema));
        if let Some(difference) = difference(&schema, common) {
            bail!("the columns of {file} are not those of {}: {difference}", files[0].location);
        }
        widen(common, &schema);
        groups.push(found);
    }
    Ok(Survey { schema: common.context("there are no input files")?, groups })
}

/// Makes the columns such that those of another file fit too: a column that is all NULL and has no type takes the type
/// of the other, and may be NULL if it may be in the other.
fn widen(common: &mut SchemaRef, other: &Schema) {
    let fields = common.fields().iter().zip(other.fields()).map(|(field, other)| -> FieldRef {
        let (data_type, there) = (field.data_type(), other.data_type());
        let nullable = [field, other].iter().any(|field| field.is_nullable() || *field.data_type() == DataType::Null);
        let known = if *data_type == DataType::Null { other } else { field };
        let of_both = if data_type == there { data_type.clone() } else { all_nullable(known.data_type()) };
        Arc::new(known.as_ref().clone().with_data_type(of_both).with_nullable(nullable))
    });
    let fields: Vec<FieldRef> = fields.collect();
    if fields[..] != common.fields()[..] {
        *common = Arc::new(Schema::new_with_metadata(fields, common.metadata().clone()));
    }
}

/// The type with all values inside of it nullable. The entries of a map cannot be.
fn all_nullable(data_type: &DataType) -> DataType {
    if let DataType::Map(..) = data_type {
        return data_type.clone();
    }
    with_inner_fields(data_type, |field| {
        Arc::new(field.as_ref().clone().with_data_type(all_nullable(field.data_type())).with_nullable(true))
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn the_columns_of_all_files_fit() {
        use DataType::{Int64, List, Null, Utf8};
        let list = |nullable| List(Arc::new(Field::new("item", Utf8, nullable)));
        let schema = |fields: [(DataType, bool); 3]| {
            let fields =
                ["a", "b", "c"].iter().zip(fields).map(|(name, (kind, nullable))| Field::new(*name, kind, nullable));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        };
        let mut common = schema([(Null, true), (Int64, false), (list(false), false)]);
        widen(&mut common, &schema([(Utf8, false), (Int64, false), (list(false), false)]));
        assert_eq!(common, schema([(Utf8, true), (Int64, false), (list(false), false)]));
        widen(&mut common, &schema([(Utf8, false), (Int64, true), (list(true), false)]));
        assert_eq!(common, schema([(Utf8, true), (Int64, true), (list(true), false)]));
        let before = Arc::clone(&common);
        widen(&mut common, &before);
        assert!(Arc::ptr_eq(&common, &before));
    }
}
