//! Opens models by the names and with the options of the command line.

use std::path::Path;

use anyhow::{Context, Result, bail};
use datafusion_rerank::{BUNDLED_MODEL, Device, EngineOptions, ModelRegistry, Reranker};

use super::options::{engine_options, graph_options, score_options};
use crate::args::{EngineArgs, GraphOptionArgs, ModelArgs, OptionArgs};

/// Opens the model that the arguments name, with their options applied.
pub(crate) fn open_model(model: &ModelArgs, options: &OptionArgs, engine: &EngineArgs) -> Result<Reranker> {
    let Some(model) = &model.model else {
        bail!(
            "no model was given: name one with --model NAME=DIR (a checkpoint directory), --model m3 (from the Hugging Face cache), --model tiny (the bundled demonstration) or the variable RERANK_MODEL"
        );
    };
    open_with_options(model, options, engine)
}

/// Like [`open_model`], but defaults to the bundled model.
pub(crate) fn open_model_or_bundled(model: &ModelArgs, options: &OptionArgs, engine: &EngineArgs) -> Result<Reranker> {
    open_with_options(model.model.as_deref().unwrap_or(BUNDLED_MODEL), options, engine)
}

fn open_with_options(model: &str, options: &OptionArgs, engine: &EngineArgs) -> Result<Reranker> {
    let options = score_options(options)?;
    Ok(open(model, &engine_options(engine))?.with_options(&options)?)
}

/// Opens a checkpoint to work on its graph alone, with the options that shape it.
pub(crate) fn open_for_graph(model: &str, device: Device, options: &GraphOptionArgs) -> Result<Reranker> {
    let options = graph_options(options)?;
    Ok(open(model, &EngineOptions::default().with_devices(device))?.with_options(&options)?)
}

/// Opens a model without options.
pub(crate) fn open(model: &str, engine: &EngineOptions) -> Result<Reranker> {
    let registry = ModelRegistry::default();
    let name = register(&registry, model)?;
    registry.open(&name, engine).with_context(|| format!("cannot open model {model}"))
}

/// Registers a model, and returns its name in the registry.
pub(super) fn register(registry: &ModelRegistry, model: &str) -> Result<String> {
    let Some((name, directory)) = name_and_directory(model) else {
        return Ok(model.to_owned());
    };
    if !Path::new(directory).is_dir() {
        bail!("model '{name}': there is no directory {directory}");
    }
    registry.register(name, directory);
    Ok(name.to_owned())
}

/// Splits `NAME=DIR`, unless the whole text is a directory whose name contains an equals sign.
fn name_and_directory(model: &str) -> Option<(&str, &str)> {
    if Path::new(model).is_dir() { None } else { model.split_once('=') }
}

/// The name of the model that the arguments name.
#[cfg(feature = "cluster")]
pub(crate) fn model_name(args: &ModelArgs) -> &str {
    let model = args.model.as_deref().unwrap_or_default();
    name_and_directory(model).map_or(model, |(name, _)| name)
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
