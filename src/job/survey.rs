//! Examines the input files before anything is scored.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use crate::files::{Columns, Format, Group, InputFile, Rows, Source, difference};

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
        fill_types(common, &schema);
        groups.push(found);
    }
    Ok(Survey { schema: common.context("there are no input files")?, groups })
}

/// Gives the columns whose type is Null the type that they have in another file.
fn fill_types(common: &mut SchemaRef, other: &Schema) {
    let is_null = |field: &FieldRef| *field.data_type() == DataType::Null;
    if !common.fields().iter().any(is_null) {
        return;
    }
    let fields = common.fields().iter().zip(other.fields());
    let fields: Vec<FieldRef> =
        fields.map(|(field, other)| Arc::clone(if is_null(field) { other } else { field })).collect();
    *common = Arc::new(Schema::new_with_metadata(fields, common.metadata().clone()));
}
