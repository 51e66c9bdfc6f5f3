//! The models of an executor.

use std::sync::Arc;

use super::planned_model::PlannedModel;
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::registry::ModelRegistry;
use crate::reranker::Reranker;

/// Opens the models that other processes name in their plans. Clones share the open models.
///
/// Looks for a model by name first, as this process knows it (a registered name, a family's published checkpoint in the
/// Hugging Face cache, a hub id, a directory), then in the directory that it had where the query was planned. It must
/// be the same checkpoint as there.
#[derive(Debug, Clone)]
pub struct ExecutorModels {
    executor: Arc<str>,
    registry: ModelRegistry,
    engine: EngineOptions,
    max_models: usize,
}

impl ExecutorModels {
    /// Models of the executor that errors call `executor`, run on its device as `engine` says. Keeps `max_models` (at
    /// least 1) open.
    pub fn new(executor: &str, registry: ModelRegistry, engine: EngineOptions, max_models: usize) -> Self {
        Self { executor: executor.into(), registry, engine, max_models }
    }

    /// The executor's name.
    pub fn executor(&self) -> &str {
        &self.executor
    }

    /// Opens a model of a plan, with the plan's options, windows and token budget.
    ///
    /// # Errors
    /// [`Error::Model`] if this process does not have the model, or has another checkpoint for it, and the errors of
    /// [`Reranker::open`] and [`Reranker::with_options`].
    pub fn open(&self, planned: &PlannedModel) -> Result<Reranker> {
        let mut engine = self.engine.clone();
        engine.batch_tokens = planned.batch_tokens().or(engine.batch_tokens);
        let mut other = None;
        let mut unknown = None;
        let mut unfit = None;
        for name in [planned.name(), planned.location()] {
            if let Err(error) = self.registry.locate(name, engine.cache.as_deref(), || self.registry.names()) {
                unknown.get_or_insert(error);
                continue;
            }
            let reranker = self.registry.open_within(name, &engine, self.max_models)?;
            // The other options may not suit another checkpoint, and the adapter may not fit it.
            let fingerprint = match reranker.with_options(&planned.options().only_adapter()) {
                Ok(adapted) => adapted.model().fingerprint()?.to_owned(),
                Err(error) => {
                    unfit.get_or_insert((reranker.location().to_owned(), error));
                    continue;
                }
            };
            if fingerprint == planned.fingerprint() {
                let reranker = reranker.with_options(planned.options())?;
                return Ok(reranker.with_window_rows(planned.window_rows()).with_max_delay(planned.max_delay()));
            }
            other.get_or_insert((reranker.location().to_owned(), fingerprint));
        }
        let (name, expected) = (planned.name(), planned.fingerprint());
        if let Some((location, error)) = unfit.filter(|_| other.is_none()) {
            return Err(Error::model(
                name,
                format!(
                    "{} does not take the adapter of the plan ({error}); put the same checkpoint and adapter there, or start the executor with --model {name}=DIR",
                    location.display()
                ),
            ));
        }
        Err(match (other, unknown) {
            (Some((location, fingerprint)), _) => Error::model(
                name,
                format!(
                    "{} is another checkpoint, or has another adapter, than where the query was planned (fingerprint {fingerprint}, expected {expected}); put the same one there, or start the executor with --model {name}=DIR",
                    location.display()
                ),
            ),
            (None, Some(Error::Model { model, message })) => {
                let location = planned.location();
                let message =
                    format!("{message}; nor is there the directory {location} of where the query was planned");
                Error::Model { model, message }
            }
            (None, Some(error)) => error,
            (None, None) => Error::Stopped,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::options::ScoreOptions;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
    }

    /// A plan's model under the name m3, with an adapter.
    fn planned() -> PlannedModel {
        let options = ScoreOptions::default().with_adapter(fixture("adapters/m3_query_value").display().to_string());
        let reranker = Reranker::open(fixture("tiny-xlmr-reranker"), &EngineOptions::default()).unwrap();
        PlannedModel::of("m3", &reranker.with_options(&options).unwrap()).unwrap()
    }

    /// An executor that knows another checkpoint as m3.
    fn executor(checkpoint: &str) -> ExecutorModels {
        let registry = ModelRegistry::default().with_hub_cache("no-such-folder");
        registry.register("m3", fixture(checkpoint));
        ExecutorModels::new("test:1", registry, EngineOptions::default(), 4)
    }

    #[test]
    fn a_model_that_the_adapter_does_not_fit_is_passed_over() {
        let opened = executor("tiny-gemma-reranker").open(&planned()).unwrap();
        assert_eq!(opened.location().canonicalize().unwrap(), fixture("tiny-xlmr-reranker").canonicalize().unwrap());
        assert_eq!(opened.options().adapter, planned().options().adapter);
    }

    #[test]
    fn an_adapter_that_fits_nothing_there_names_the_model() {
        let mut plan = planned().to_json();
        plan["location"] = serde_json::json!("/no/such/place");
        let planned = PlannedModel::from_json(&plan).unwrap();
        let error = executor("tiny-gemma-reranker").open(&planned).unwrap_err().to_string();
        assert!(
            error.starts_with("model 'm3': ") && error.contains("does not take the adapter of the plan ("),
            "{error}"
        );
        assert!(error.ends_with("start the executor with --model m3=DIR"), "{error}");
    }

    #[test]
    fn another_adapter_in_its_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(fixture("adapters/m3_query_value").join(file), folder.path().join(file)).unwrap();
        }
        let reranker = Reranker::open(fixture("tiny-xlmr-reranker"), &EngineOptions::default()).unwrap();
        let options = ScoreOptions::default().with_adapter(folder.path().display().to_string());
        let planned = PlannedModel::of("m3", &reranker.with_options(&options).unwrap()).unwrap();
        assert!(executor("tiny-xlmr-reranker").open(&planned).is_ok());
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(fixture("adapters/m3_dora").join(file), folder.path().join(file)).unwrap();
        }
        let error = executor("tiny-xlmr-reranker").open(&planned).unwrap_err().to_string();
        assert!(
            error.contains("is another checkpoint, or has another adapter, than where the query was planned"),
            "{error}"
        );
    }
}
