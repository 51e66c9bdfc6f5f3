//! Arguments resolved into what will be done: models opened, names and options checked.

#[cfg(feature = "cluster")]
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
#[cfg(feature = "cluster")]
use datafusion::common::config::ExtensionOptions;
use datafusion_rerank::{Cutoffs, Device, EngineOptions, ModelRegistry, RerankConfig, Reranker, ScoreOptions};
use serde_json::json;

use super::bundled;
#[cfg(feature = "cluster")]
use crate::args::ExecutorArgs;
#[cfg(feature = "shell")]
use crate::args::SqlArgs;
use crate::args::{EngineArgs, GraphOptionArgs, ModelArgs, OptionArgs, RunArgs};
use crate::job::Settings;

/// Options that shape the graph and therefore mean something to an export.
const GRAPH_OPTIONS: &[&str] =
    &["precision", "cutoff_layers", "compress_ratio", "compress_layers", "heads", "attention_softcap"];

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
    if let Some((name, _)) = options.named.iter().find(|(name, _)| !GRAPH_OPTIONS.contains(&name.as_str())) {
        bail!(
            "option {name}: it changes the text, not the graph; give it when scoring (the graph has {})",
            GRAPH_OPTIONS.join(", ")
        );
    }
    let mut resolved = ScoreOptions::default();
    set_graph_options(&mut resolved, options)?;
    let mut engine = EngineOptions::default();
    engine.devices = device.into();
    Ok(open(model, &engine)?.with_options(&resolved)?)
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

fn engine_options(args: &EngineArgs) -> EngineOptions {
    let mut options = EngineOptions::default();
    options.devices = args.device.clone();
    options.threads = args.threads;
    options.batch_tokens = args.batch_tokens;
    options.cache.clone_from(&args.cache);
    options
}

/// All values go through the library's own checks, whichever flag they came by.
fn score_options(args: &OptionArgs) -> Result<ScoreOptions> {
    let OptionArgs { normalize, max_length, query_max_length, query_instruction, passage_instruction, prompt, graph } =
        args;
    let mut options = ScoreOptions::default();
    let flags = [
        ("normalize", normalize.then(|| json!(true))),
        ("max_length", max_length.map(|n| json!(n))),
        ("query_max_length", query_max_length.map(|n| json!(n))),
        ("query_instruction", query_instruction.as_ref().map(|text| json!(text))),
        ("passage_instruction", passage_instruction.as_ref().map(|text| json!(text))),
        ("prompt", prompt.as_ref().map(|text| json!(text))),
    ];
    for (name, value) in flags {
        if let Some(value) = value {
            options.set(name, &value)?;
        }
    }
    set_graph_options(&mut options, graph)?;
    Ok(options)
}

fn set_graph_options(options: &mut ScoreOptions, args: &GraphOptionArgs) -> Result<()> {
    let GraphOptionArgs { precision, cutoff_layers, compress_ratio, compress_layers, named } = args;
    if let Some(precision) = precision {
        options.set_text("precision", precision)?;
    }
    options.cutoff_layers = match cutoff_layers.as_slice() {
        [] => None,
        [layer] => Some(Cutoffs::One(*layer)),
        layers => Some(Cutoffs::Many(layers.to_vec())),
    };
    if let Some(ratio) = compress_ratio {
        options.set("compress_ratio", &json!(ratio))?;
    }
    if !compress_layers.is_empty() {
        options.compress_layers = Some(compress_layers.clone());
    }
    for (name, value) in named {
        if options.to_json().get(name).is_some() {
            bail!("option {name}: it was given twice");
        }
        options.set_text(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_flag_reaches_the_options() {
        let args = OptionArgs {
            normalize: true,
            max_length: Some(256),
            query_max_length: Some(64),
            query_instruction: Some("q".into()),
            passage_instruction: Some("p".into()),
            prompt: Some("?".into()),
            graph: GraphOptionArgs {
                precision: Some("int8".into()),
                cutoff_layers: vec![8, 16],
                compress_ratio: Some(2),
                compress_layers: vec![4],
                named: named(&[("heads", "by_layer")]),
            },
        };
        assert_eq!(
            score_options(&args).unwrap().to_json(),
            json!({
                "precision": "int8", "normalize": true, "max_length": 256, "query_max_length": 64, "query_instruction": "q",
                "passage_instruction": "p", "prompt": "?", "cutoff_layers": [8, 16], "compress_ratio": 2,
                "compress_layers": [4], "heads": "by_layer",
            })
        );
    }

    #[test]
    fn one_cutoff_layer_is_not_a_list() {
        let graph = GraphOptionArgs { cutoff_layers: vec![8], ..Default::default() };
        let options = score_options(&OptionArgs { graph, ..Default::default() }).unwrap();
        assert_eq!(options.cutoff_layers, Some(Cutoffs::One(8)));
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        let graph = GraphOptionArgs { named: named(&[("max_length", "8")]), ..Default::default() };
        let args = OptionArgs { max_length: Some(4), graph, ..Default::default() };
        assert_eq!(score_options(&args).unwrap_err().to_string(), "option max_length: it was given twice");
    }

    #[test]
    fn an_export_refuses_what_it_cannot_keep() {
        let options = GraphOptionArgs { named: named(&[("max_length", "8")]), ..Default::default() };
        let error = open_for_graph("anything", Device::Cpu, &options).unwrap_err().to_string();
        assert!(error.starts_with("option max_length: it changes the text, not the graph"), "{error}");
    }

    #[test]
    fn names_are_split_from_directories() {
        assert_eq!(name_and_directory("m3=some/dir=1"), Some(("m3", "some/dir=1")));
        assert_eq!(name_and_directory("m3"), None);
        let folder = tempfile::Builder::new().prefix("a=b").tempdir().unwrap();
        assert_eq!(name_and_directory(folder.path().to_str().unwrap()), None);
    }
}
