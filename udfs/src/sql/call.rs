//! What a call asks for: a model and options.

use serde_json::Value;

use super::config::RerankConfig;
use crate::error::{Error, Result};
use crate::options::ScoreOptions;
use crate::registry::ModelRegistry;
use crate::reranker::Reranker;
use crate::suggestion::did_you_mean;

/// The constants of one function call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Name or location; `None` stands for the session's default.
    pub(crate) model: Option<String>,
    pub(crate) options: ScoreOptions,
}

impl Call {
    /// Opens the model with these options, and with the session's defaults for those that the call leaves unset.
    ///
    /// Reads the tokenizer if the model was not open: seconds, for a large vocabulary. Weights are not loaded.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that cannot be found or must not be named here, [`Error::Option`], also for an
    /// adapter that must not be named here, and the errors of [`Reranker::open`].
    pub(crate) fn open(&self, registry: &ModelRegistry, config: &RerankConfig) -> Result<Reranker> {
        let name = self.model.as_deref().unwrap_or(&config.model);
        let location = config.models.get(&name.to_lowercase());
        let names = || {
            let mut names = [registry.names(), config.models.keys().cloned().collect()].concat();
            names.sort();
            names.dedup();
            names
        };
        if name.trim_start().starts_with('{') {
            let message =
                "it is options, not a model; options in the model's place must be a struct, {'max_length': 256}";
            return Err(Error::model(name, message));
        }
        if location.is_none() && !config.allow_locations && !registry.names().contains(&name.to_lowercase()) {
            let names = names();
            return Err(Error::model(
                name,
                format!(
                    "it is no known name{}, and rerank.allow_locations is false in this session; use one of {}",
                    did_you_mean(name, names.iter().map(String::as_str)),
                    names.join(", ")
                ),
            ));
        }
        if let Some(adapter) = &self.options.adapter
            && !config.allow_locations
            && self.options.adapter != config.options.adapter
        {
            let message =
                format!("'{adapter}' cannot be named: rerank.allow_locations is false in this session; leave it out");
            return Err(Error::option("adapter", message));
        }
        let location = location.map_or(name, String::as_str);
        let reranker = registry.open_among(location, &config.engine, config.max_models, names)?;
        let mut defaults = applicable(&config.options, reranker.family().options())?;
        // An adapter fits one model.
        defaults.adapter = defaults.adapter.filter(|_| name.eq_ignore_ascii_case(&config.model));
        let reranker = reranker.with_options(&self.options.clone().or(&defaults))?;
        Ok(reranker.with_window_rows(config.window_rows).with_max_delay(config.max_delay))
    }
}

/// The session's defaults that the model accepts; the others were set for other models.
fn applicable(defaults: &ScoreOptions, names: &[&str]) -> Result<ScoreOptions> {
    let mut options = defaults.to_json();
    if let Value::Object(entries) = &mut options {
        entries.retain(|name, _| names.contains(&name.as_str()));
    }
    ScoreOptions::from_json(&options)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::options::Cutoffs;

    fn registry() -> ModelRegistry {
        let registry = ModelRegistry::default();
        registry.register("m3", Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-xlmr-reranker"));
        registry
    }

    fn call(model: Option<&str>) -> Call {
        Call { model: model.map(str::to_owned), options: ScoreOptions::default() }
    }

    #[test]
    fn session_defaults_yield_to_the_call_and_to_the_family() {
        let max_delay = Some(std::time::Duration::from_secs(7));
        let mut config = RerankConfig { window_rows: 7, max_delay, ..Default::default() };
        config.options.max_length = Some(64);
        config.options.normalize = Some(true);
        config.options.cutoff_layers = Some(Cutoffs::One(8));
        let mut call = call(None);
        call.options.max_length = Some(32);
        let reranker = call.open(&registry(), &config).unwrap();
        assert_eq!(reranker.options().max_length, Some(32));
        assert_eq!(reranker.options().normalize, Some(true));
        assert_eq!(reranker.options().cutoff_layers, None);
        assert_eq!((reranker.window_rows(), reranker.max_delay()), (7, max_delay));
        call.options.cutoff_layers = Some(Cutoffs::One(8));
        let error = call.open(&registry(), &config).unwrap_err().to_string();
        assert!(error.starts_with("option cutoff_layers: m3 models do not have it"), "{error}");
    }

    #[test]
    fn session_names_stand_for_locations() {
        let registry = registry();
        let location = registry.resolve("m3").unwrap();
        let mut config = RerankConfig { allow_locations: false, ..Default::default() };
        config.models.insert("mine".to_owned(), location.display().to_string());
        assert!(call(Some("Mine")).open(&registry, &config).is_ok());
        assert!(call(Some("m3")).open(&registry, &config).is_ok());
        let error = call(location.to_str()).open(&registry, &config).unwrap_err().to_string();
        let mut names = registry.names();
        names.push("mine".to_owned());
        names.sort();
        assert!(error.ends_with(&format!("use one of {}", names.join(", "))), "{error}");
        config.allow_locations = true;
        assert!(call(location.to_str()).open(&registry, &config).is_ok());
    }

    #[test]
    fn adapters_are_locations() {
        let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/adapters");
        let adapter = |name: &str| Some(adapters.join(name).display().to_string());
        let mut config = RerankConfig { allow_locations: false, ..Default::default() };
        let mut call = call(Some("m3"));
        call.options.adapter = adapter("m3_query_value");
        let error = call.open(&registry(), &config).unwrap_err().to_string();
        assert!(
            error.starts_with("option adapter: '/") && error.contains("' cannot be named: rerank.allow_"),
            "{error}"
        );
        // The host's own, which is for the session's model only.
        config.options.adapter = adapter("m3_query_value");
        let mut plain = Call { model: None, options: ScoreOptions::default() };
        assert_eq!(plain.open(&registry(), &config).unwrap().options().adapter, config.options.adapter);
        plain.model = Some(registry().resolve("m3").unwrap().display().to_string());
        config.allow_locations = true;
        assert_eq!(plain.open(&registry(), &config).unwrap().options().adapter, None);
        config.allow_locations = false;
        assert!(call.open(&registry(), &config).is_ok());
        call.options.adapter = adapter("m3_dora");
        assert!(call.open(&registry(), &config).is_err());
        config.allow_locations = true;
        assert!(call.open(&registry(), &config).is_ok());
    }
}
