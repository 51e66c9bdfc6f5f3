//! Resolves the command line of a run into a job.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use clap::ValueEnum;
use datafusion_rerank::{ModelRegistry, RerankConfig, Reranker};
use serde_json::Value;

use super::ledger::Permissions;
use super::manifest::{JobSettings, Manifest, ModelIdentity};
use super::query::Query;
use super::report_files::ReportFiles;
use super::scoring::{OnError, Scoring};
use super::survey::survey;
use super::unit::{Unit, cut};
use crate::args::RunArgs;
use crate::files::{Columns, Format, Group, InputFile, Inputs, OutputKind, Target, partition_columns, partition_field};
use crate::model::{open, session};

/// The most rows in a row group of an encoded output.
const DEFAULT_ROW_GROUP_ROWS: usize = 131_072;

/// A resolved job: files found, model opened, units divided. Later steps use this, not the command line.
#[derive(Debug)]
pub(crate) struct Job {
    /// INPUT.
    pub(crate) inputs: Inputs,
    /// OUTPUT.
    pub(crate) target: Target,
    /// The model of `--model`, with its options applied.
    pub(crate) reranker: Reranker,
    /// The name of that model.
    #[cfg(feature = "cluster")]
    pub(crate) model_name: String,
    /// How to score rows.
    pub(crate) scoring: Scoring,
    /// What to do with a failed row.
    pub(crate) on_error: OnError,
    /// The output format.
    pub(crate) format: Format,
    /// The paths of the report.
    pub(crate) report: Option<ReportFiles>,
    /// Permissions to change existing files.
    pub(crate) permissions: Permissions,
    /// The settings that the output depends on, and the units.
    pub(crate) manifest: Manifest,
}

impl Job {
    /// Finds the files, opens the models, checks that they fit together, and divides the inputs into units. Writes
    /// nothing.
    ///
    /// # Errors
    /// If something that the arguments name does not exist or does not fit the rest.
    pub(crate) async fn resolve(args: &RunArgs) -> Result<Self> {
        let inputs = Inputs::find(&args.input).await?;
        let target = Target::find(&args.output, &inputs, args.overwrite).await?;
        if args.restart && matches!(target, Target::File(..)) {
            bail!("--restart is for jobs, whose OUTPUT is a directory; to replace a file pass --overwrite");
        }
        let report = args.report.as_deref().map(|text| ReportFiles::find(text, &inputs, &target)).transpose()?;
        let reranker =
            open::open_model(&args.model, &args.options, &args.engine)?.with_window_rows(args.window.window_rows);
        // A file as OUTPUT is written as a single unit.
        let (kind, unit_rows) = match &target {
            Target::File(_, kind) => (*kind, u64::MAX),
            Target::Directory(_) => (OutputKind::Parquet, args.unit_rows as u64),
        };
        let row_group_rows = args.row_group_rows.unwrap_or(DEFAULT_ROW_GROUP_ROWS);
        let format = Format { kind, compression: args.compression, row_group_rows };
        let (scoring, groups) = if let Some(sql) = &args.sql {
            let model = args.model.model.as_deref();
            let session = session::query_settings(model, &args.options, &args.engine, args.window.window_rows)?;
            query(sql, &inputs.files, format, session).await?
        } else {
            let columns = Columns {
                query: args.query.clone(),
                passage: args.passage.clone(),
                score: args.score.clone(),
                score_type: reranker.score_type(),
                errors: args.on_error == OnError::Null,
            };
            let groups = survey(&inputs.files, Some(&columns), format).await?.groups;
            if args.row_group_rows.is_some() && inputs.files.iter().all(|file| file.is_spliced(kind)) {
                bail!(
                    "--row-group-rows is for outputs that are encoded; those of Parquet files keep the row groups of INPUT"
                );
            }
            (Scoring::Columns(columns), groups)
        };
        let settings = JobSettings {
            options: options_of(&reranker),
            sql: args.sql.clone(),
            query: args.query.clone(),
            passage: args.passage.clone(),
            score: args.score.clone(),
            on_error: value_name(&args.on_error),
            unit_rows: args.unit_rows as u64,
            compression: value_name(&args.compression),
            row_group_rows: row_group_rows as u64,
        };
        let units_of = |(file, groups): (usize, &Vec<Group>)| {
            cut(file, groups, unit_rows, settings.splices(&inputs.files[file].identity.name))
        };
        let units: Vec<Unit> = groups.iter().enumerate().flat_map(units_of).collect();
        let identities = inputs.files.iter().map(|file| file.identity.clone()).collect();
        let manifest = Manifest::new(&args.input, models(&reranker, &scoring)?, settings, identities, units)?;
        Ok(Self {
            inputs,
            target,
            reranker,
            #[cfg(feature = "cluster")]
            model_name: open::model_name(&args.model).to_owned(),
            scoring,
            on_error: args.on_error,
            format,
            report,
            permissions: Permissions { restart: args.restart, overwrite: args.overwrite },
            manifest,
        })
    }
}

/// Plans the query. Also returns the groups of each file.
async fn query(
    sql: &str,
    files: &[InputFile],
    format: Format,
    (registry, settings): (ModelRegistry, RerankConfig),
) -> Result<(Scoring, Vec<Vec<Group>>)> {
    let survey = survey(files, None, format).await?;
    let schema = with_partitions(&survey.schema, files);
    let query = Query::plan(sql, &schema, &registry, settings).await?;
    format.check(&query.schema()).context("cannot write the columns of --sql")?;
    Ok((Scoring::Query(Arc::new(query)), survey.groups))
}

/// The schema with the partition columns behind it that are in the paths of all files, and in none of them.
fn with_partitions(schema: &SchemaRef, files: &[InputFile]) -> SchemaRef {
    let partitions = partition_columns(files.iter().map(|file| file.identity.name.as_str()));
    let partitions = partitions.into_iter().filter(|name| schema.index_of(name).is_err());
    let partitions = partitions.map(|name| Arc::new(partition_field(&name)));
    let fields: Vec<FieldRef> = schema.fields().iter().cloned().chain(partitions).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The model of `--model`, then the other models of a query, by fingerprint.
fn models(reranker: &Reranker, scoring: &Scoring) -> Result<Vec<ModelIdentity>> {
    let first = identity(reranker)?;
    let mut others = Vec::new();
    if let Scoring::Query(query) = scoring {
        for model in query.models() {
            // The options of a call are part of the query's text, but not what is in an adapter.
            others.push(identity(&model.with_options(&model.options().only_adapter())?)?);
        }
    }
    others.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
    others.dedup_by(|one, other| one.fingerprint == other.fingerprint);
    others.retain(|other| other.fingerprint != first.fingerprint);
    Ok(std::iter::once(first).chain(others).collect())
}

/// The options that were given, without an adapter: the model's identity covers its content, wherever it is.
fn options_of(reranker: &Reranker) -> Value {
    let mut options = reranker.options().clone();
    options.adapter = None;
    options.to_json()
}

fn identity(reranker: &Reranker) -> Result<ModelIdentity> {
    Ok(ModelIdentity {
        location: reranker.location().display().to_string(),
        family: reranker.family().name().to_owned(),
        fingerprint: reranker.model().fingerprint()?.to_owned(),
        adapter: reranker.options().adapter.clone(),
        precision: reranker.precision().to_string(),
    })
}

/// The value of a flag as typed.
fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
