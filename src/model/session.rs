//! The settings of SQL sessions: the models that calls may name, and the defaults of calls.

#[cfg(feature = "cluster")]
use std::collections::BTreeMap;

#[cfg(feature = "cluster")]
use anyhow::Context;
use anyhow::{Result, bail};
#[cfg(feature = "cluster")]
use datafusion::common::config::ExtensionOptions;
#[cfg(feature = "shell")]
use datafusion_rerank::BUNDLED_MODEL;
use datafusion_rerank::{Cutoffs, ModelRegistry, RerankConfig};

use super::open::register;
use super::options::{engine_options, score_options};
#[cfg(feature = "cluster")]
use crate::args::ExecutorArgs;
#[cfg(feature = "shell")]
use crate::args::SqlArgs;
use crate::args::{EngineArgs, OptionArgs};

/// Whether joins pass on filters that they learn while they run. DataFusion 55 finds the columns of such a filter by
/// name, and drops rows where both sides of a join have a column of that name.
pub(crate) const JOIN_DYNAMIC_FILTERS: bool = false;

/// The session of a job's query. Calls that name no model use `model`. Windows depend on the rows alone, so that a job
/// that is resumed has the same scores.
pub(crate) fn query_settings(
    model: Option<&str>,
    options: &OptionArgs,
    engine: &EngineArgs,
    window_rows: usize,
) -> Result<(ModelRegistry, RerankConfig)> {
    let models: Vec<&str> = model.into_iter().collect();
    let (registry, mut settings) = sql_settings(&models, options, engine, window_rows)?;
    // Every unit uses all models of the query; a closed model would be loaded again for the next unit.
    settings.max_models = usize::MAX;
    settings.max_delay = None;
    Ok((registry, settings))
}

/// The session settings that an executor adopts. Devices, threads, cache and the number of open models are its own.
#[cfg(feature = "cluster")]
pub(crate) fn session_settings(settings: &RerankConfig) -> BTreeMap<String, String> {
    let own = |key: &str| ["rerank.device", "rerank.threads", "rerank.cache", "rerank.max_models"].contains(&key);
    let entries = settings.entries().into_iter().filter(|entry| !own(&entry.key));
    entries.filter_map(|entry| Some((entry.key, entry.value?))).collect()
}

/// The session of an executor. Opens the named models, so that their errors appear before there is work.
#[cfg(feature = "cluster")]
pub(crate) fn executor_settings(args: &ExecutorArgs) -> Result<(ModelRegistry, RerankConfig)> {
    let registry = ModelRegistry::default();
    let mut settings = RerankConfig::default();
    settings.engine = engine_options(&args.engine);
    settings.max_models = args.max_models;
    for model in &args.model {
        let name = register(&registry, model)?;
        registry
            .open_within(&name, &settings.engine, settings.max_models)
            .with_context(|| format!("cannot open model {model}"))?;
    }
    Ok((registry, settings))
}

/// The session of the shell. The bundled model is the default of calls unless another is given.
#[cfg(feature = "shell")]
pub(crate) fn shell_settings(args: &SqlArgs) -> Result<(ModelRegistry, RerankConfig)> {
    let given = args.model.iter().map(String::as_str);
    let models: Vec<&str> = if args.model.is_empty() { vec![BUNDLED_MODEL] } else { given.collect() };
    let (registry, mut settings) = sql_settings(&models, &args.options, &args.engine, args.window.window_rows)?;
    settings.max_delay = args.delay.max_delay.0;
    Ok((registry, settings))
}

/// The first model is the default of calls.
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
    let names = models.iter().map(|model| register(&registry, model)).collect::<Result<Vec<_>>>()?;
    for (place, name) in names.iter().enumerate() {
        if names[..place].iter().any(|other| other.to_lowercase() == name.to_lowercase()) {
            bail!("--model {name} is given twice, and the case of a name does not matter; keep one");
        }
    }
    if let Some(first) = names.into_iter().next() {
        settings.model = first;
    }
    if settings.options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list) {
        bail!("--cutoff-layers takes one layer for SQL; ask for several in the call's options");
    }
    Ok((registry, settings))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn the_windows_of_a_job_depend_on_its_rows_alone() {
        let Command::Run(args) = Cli::parse_from(["rerank", "run", "in", "out"]).command else { panic!() };
        let (_, settings) = query_settings(None, &args.options, &args.engine, 7).unwrap();
        assert_eq!((settings.window_rows, settings.max_delay), (7, None));
        #[cfg(feature = "cluster")]
        assert_eq!(session_settings(&settings)["rerank.max_delay"], "off");
    }
}
