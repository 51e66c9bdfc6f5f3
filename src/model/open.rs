//! Arguments resolved into what will be done: models opened, names and options checked.

#[cfg(feature = "cluster")]
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
#[cfg(feature = "cluster")]
use datafusion::common::config::ExtensionOptions;
use datafusion_rerank::{Cutoffs, Device, EngineOptions, ModelRegistry, RerankConfig, Reranker};

use super::bundled;
use super::options::{engine_options, graph_options, score_options};
#[cfg(feature = "cluster")]
use crate::args::ExecutorArgs;
#[cfg(feature = "shell")]
use crate::args::SqlArgs;
use crate::args::{EngineArgs, GraphOptionArgs, ModelArgs, OptionArgs, RunArgs};
use crate::job::Settings;

/// Opens the model that the arguments name, with their options in force.
pub(crate) fn open_model(model: &ModelArgs, options: &OptionArgs, engine: &EngineArgs) -> Result<Reranker> {
    let Some(model) = &model.model else {
        bail!(
            "no model was given: name one with --model NAME=DIR (a checkpoint directory), --model m3 (from the Hugging Face cache), --model tiny (the bundled demonstration) or the variable RERANK_MODEL"
        );
    };
    open_with_options(model, options, engine)
}

/// As [`open_model`], where a model need not be named.
pub(crate) fn open_model_or_bundled(model: &ModelArgs, options: &OptionArgs, engine: &EngineArgs) -> Result<Reranker> {
    open_with_options(model.model.as_deref().unwrap_or(bundled::NAME), options, engine)
}

fn open_with_options(model: &str, options: &OptionArgs, engine: &EngineArgs) -> Result<Reranker> {
    let options = score_options(options)?;
    Ok(open(model, &engine_options(engine))?.with_options(&options)?)
}

/// Opens a checkpoint for what is done with its graph alone, with the options that shape it.
pub(crate) fn open_for_graph(model: &str, device: Device, options: &GraphOptionArgs) -> Result<Reranker> {
    let options = graph_options(options)?;
    Ok(open(model, &EngineOptions::default().with_devices(device))?.with_options(&options)?)
}

/// Opens a model as it is.
pub(crate) fn open(model: &str, engine: &EngineOptions) -> Result<Reranker> {
    let registry = ModelRegistry::default();
    let name = register(&registry, model, engine)?;
    registry.open(&name, engine).with_context(|| format!("cannot open model {model}"))
}

/// Makes a model known to a registry, and returns what it is called there.
fn register(registry: &ModelRegistry, model: &str, engine: &EngineOptions) -> Result<String> {
    let Some((name, directory)) = name_and_directory(model) else {
        if model == bundled::NAME {
            registry.register(model, bundled::directory(engine.cache.as_deref())?);
        }
        return Ok(model.to_owned());
    };
    if !Path::new(directory).is_dir() {
        bail!("model '{name}': there is no directory {directory}");
    }
    registry.register(name, directory);
    Ok(name.to_owned())
}

/// `NAME=DIR`, unless the whole is a directory whose name has an equals sign.
fn name_and_directory(model: &str) -> Option<(&str, &str)> {
    if Path::new(model).is_dir() { None } else { model.split_once('=') }
}

/// What calls in the query of a job score with: names, and what they use that say nothing else.
pub(crate) fn query_settings(args: &RunArgs) -> Result<(ModelRegistry, RerankConfig)> {
    let models: Vec<&str> = args.model.model.as_deref().into_iter().collect();
    sql_settings(&models, &args.options, &args.engine, args.window.window_rows)
}

/// [`query_settings`] as an executor takes them, which has its own devices, threads and cache.
#[cfg(feature = "cluster")]
pub(crate) fn session_settings(args: &RunArgs) -> Result<BTreeMap<String, String>> {
    let (_, settings) = query_settings(args)?;
    let own = |key: &str| ["rerank.device", "rerank.threads", "rerank.cache"].contains(&key);
    let entries = settings.entries().into_iter().filter(|entry| !own(&entry.key));
    Ok(entries.filter_map(|entry| Some((entry.key, entry.value?))).collect())
}

/// What a model is called that the arguments name.
#[cfg(feature = "cluster")]
pub(crate) fn model_name(args: &ModelArgs) -> &str {
    let model = args.model.as_deref().unwrap_or_default();
    name_and_directory(model).map_or(model, |(name, _)| name)
}

/// What an executor scores with: names, and how models run. The models that are named are opened, so that what is wrong
/// with them is known before there is work.
#[cfg(feature = "cluster")]
pub(crate) fn executor_settings(args: &ExecutorArgs) -> Result<(ModelRegistry, RerankConfig)> {
    let registry = ModelRegistry::default();
    let mut settings = RerankConfig::default();
    settings.engine = engine_options(&args.engine);
    settings.max_models = args.max_models;
    register(&registry, bundled::NAME, &settings.engine)?;
    for model in &args.model {
        let name = register(&registry, model, &settings.engine)?;
        registry
            .open_within(&name, &settings.engine, settings.max_models)
            .with_context(|| format!("cannot open model {model}"))?;
    }
    Ok((registry, settings))
}

/// As [`query_settings`], for the shell: the bundled model is known, and is that of calls that name none unless another
/// is given.
#[cfg(feature = "shell")]
pub(crate) fn shell_settings(args: &SqlArgs) -> Result<(ModelRegistry, RerankConfig)> {
    let given = args.model.iter().map(String::as_str);
    let models: Vec<&str> = given.filter(|model| *model != bundled::NAME).chain([bundled::NAME]).collect();
    let (registry, mut settings) = sql_settings(&models, &args.options, &args.engine, args.window.window_rows)?;
    if args.model.first().is_some_and(|model| model == bundled::NAME) {
        bundled::NAME.clone_into(&mut settings.model);
    }
    Ok((registry, settings))
}

/// The first model is that of calls that name none.
fn sql_settings(
    models: &[&str],
    options: &OptionArgs,
    engine: &EngineArgs,
    window_rows: usize,
) -> Result<(ModelRegistry, RerankConfig)> {
    let registry = ModelRegistry::default();
    let mut settings = RerankConfig::default();
    settings.engine = engine_options(engine);
    settings.window_rows = window_rows;
    settings.options = score_options(options)?;
    let names = models.iter().map(|model| register(&registry, model, &settings.engine));
    if let Some(first) = names.collect::<Result<Vec<_>>>()?.into_iter().next() {
        settings.model = first;
    }
    if settings.options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list) {
        bail!("--cutoff-layers takes one layer for SQL; ask for several in the call's options");
    }
    Ok((registry, settings))
}

/// What the output of a run depends on, besides model and inputs.
pub(crate) fn settings(args: &RunArgs, reranker: &Reranker) -> Settings {
    Settings {
        options: reranker.options().to_json(),
        sql: args.sql.clone(),
        query: args.query.clone(),
        passage: args.passage.clone(),
        score: args.score.clone(),
        on_error: value_name(&args.on_error),
        unit_rows: args.unit_rows as u64,
        compression: value_name(&args.compression),
        row_group_rows: args.row_group_rows as u64,
    }
}

/// A flag's value as it is typed.
fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_from_directories() {
        assert_eq!(name_and_directory("m3=some/dir=1"), Some(("m3", "some/dir=1")));
        assert_eq!(name_and_directory("m3"), None);
        let folder = tempfile::Builder::new().prefix("a=b").tempdir().unwrap();
        assert_eq!(name_and_directory(folder.path().to_str().unwrap()), None);
    }
}
