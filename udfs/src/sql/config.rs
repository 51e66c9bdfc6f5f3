//! Session settings: `SET rerank.<key> = <value>`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use serde_json::Value;

use crate::engine::EngineOptions;
use crate::options::{Cutoffs, OPTION_NAMES, ScoreOptions};
use crate::registry::DEFAULT_MAX_MODELS;
use crate::window::DEFAULT_WINDOW_ROWS;

/// The settings of a session.
///
/// | key | meaning | default |
/// |---|---|---|
/// | `rerank.model` | model of calls that name none: a name or a location | `m3` |
/// | `rerank.models.<name>` | location that `<name>` stands for; names are case-insensitive | none |
/// | `rerank.device` | `cpu`, `cuda`, `cuda:N`, or several GPUs as `cuda:N,M` | `cpu` |
/// | `rerank.threads` | threads of the CPU device | all cores |
/// | `rerank.batch_tokens` | most tokens in a device batch, padding included | what was measured, or else 512 a thread on the CPU, 65,536 on a GPU |
/// | `rerank.cache` | folder in which weights of another precision are kept | `RERANK_CACHE`, or the user's cache folder |
/// | `rerank.window_rows` | most rows sorted by length together | 8,192 |
/// | `rerank.allow_locations` | whether SQL may name directories and hub ids, not just known names | `true` |
/// | `rerank.max_models` | models that this process keeps open | 4 |
/// | `rerank.<option>` | default of each of [`OPTION_NAMES`] | the model's |
///
/// `SET rerank.<key> = default` restores a default. An option set here that the model of a call does not have is
/// ignored for that call. `rerank.cutoff_layers` takes one layer only: a list changes the type of the function, which
/// must follow from the call itself.
///
/// Once `rerank.allow_locations` is false neither it nor `rerank.models.<name>` can be set any more, so a server can
/// hand the session to whoever writes the SQL.
///
/// [`register_all`](crate::register_all) adds the settings to a session that exists already. To set them from the
/// start:
///
/// ```
/// use datafusion::prelude::{SessionConfig, SessionContext};
/// use datafusion_rerank::RerankConfig;
///
/// let mut settings = RerankConfig::default();
/// settings.models.insert("mine".to_owned(), "/models/mine".to_owned());
/// settings.allow_locations = false;
/// let ctx = SessionContext::new_with_config(SessionConfig::new().with_option_extension(settings));
/// datafusion_rerank::register_all(&ctx)?;
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RerankConfig {
    /// Model of calls that name none.
    pub model: String,
    /// Locations by lower-case name. They come before the names of the [`ModelRegistry`](crate::ModelRegistry).
    pub models: BTreeMap<String, String>,
    /// How and where models run.
    pub engine: EngineOptions,
    /// Most rows sorted by length together; at least 1.
    pub window_rows: usize,
    /// Whether SQL may name directories and hub ids.
    pub allow_locations: bool,
    /// Models that this process keeps open, the least recently used going first; at least 1.
    pub max_models: usize,
    /// Defaults of the scoring options.
    pub options: ScoreOptions,
}

/// The settings that are not scoring options, without those of `models.`.
const KEYS: &[(&str, &str)] = &[
    ("model", "Model of calls that name none: a name or a location"),
    ("device", "Where models run: cpu, cuda, cuda:N, or several GPUs as cuda:N,M"),
    ("threads", "Threads of the CPU device; all cores if unset"),
    ("batch_tokens", "Most tokens in a device batch, padding included"),
    ("cache", "Folder in which weights of another precision are kept"),
    ("window_rows", "Most rows sorted by length together"),
    ("allow_locations", "Whether SQL may name directories and hub ids, not just known names"),
    ("max_models", "Models that this process keeps open"),
];

/// The value that restores a default.
const DEFAULT: &str = "default";

impl Default for RerankConfig {
    fn default() -> Self {
        Self {
            model: "m3".to_owned(),
            models: BTreeMap::new(),
            engine: EngineOptions::default(),
            window_rows: DEFAULT_WINDOW_ROWS,
            allow_locations: true,
            max_models: DEFAULT_MAX_MODELS,
            options: ScoreOptions::default(),
        }
    }
}

impl ConfigExtension for RerankConfig {
    const PREFIX: &'static str = "rerank";
}

impl ExtensionOptions for RerankConfig {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let value = Some(value).filter(|value| *value != DEFAULT);
        self.assign(key, value).map_err(DataFusionError::Configuration)
    }

    /// Every setting under its full key, as `SHOW` and whoever ships a session to another machine expect it.
    fn entries(&self) -> Vec<ConfigEntry> {
        let fixed = KEYS.iter().map(|&(key, description)| entry(key, self.value(key), description));
        let models = self
            .models
            .iter()
            .map(|(name, location)| entry(&format!("models.{name}"), Some(location.clone()), "Location of a model"));
        let options = ScoreOptions::declarations().iter().map(|option| {
            let value = option.value(&self.options);
            let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            entry(option.name, text, option.documentation)
        });
        fixed.chain(models).chain(options).collect()
    }
}

impl RerankConfig {
    /// The settings of a session; the defaults if it has none.
    pub fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Sets `key`, or restores its default.
    fn assign(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let defaults = Self::default();
        if let Some(name) = key.strip_prefix("models.") {
            return self.assign_model(name, value);
        }
        match key {
            "model" => self.model = value.map_or(defaults.model, str::to_owned),
            "device" => {
                self.engine.devices = match value {
                    None => defaults.engine.devices,
                    Some(value) => value.parse().map_err(|error| format!("rerank.device: {error}"))?,
                }
            }
            "threads" => self.engine.threads = value.map(|value| count(key, value)).transpose()?,
            "batch_tokens" => self.engine.batch_tokens = value.map(|value| count(key, value)).transpose()?,
            "cache" => self.engine.cache = value.map(PathBuf::from),
            "window_rows" => self.window_rows = value.map_or(Ok(defaults.window_rows), |value| count(key, value))?,
            "max_models" => self.max_models = value.map_or(Ok(defaults.max_models), |value| count(key, value))?,
            "allow_locations" => {
                let allow = value.map_or(Ok(defaults.allow_locations), |value| parse(key, value, "true or false"))?;
                if allow && !self.allow_locations {
                    return Err("rerank.allow_locations is false and stays so in this session".to_owned());
                }
                self.allow_locations = allow;
            }
            _ if OPTION_NAMES.contains(&key) => self.assign_option(key, value)?,
            _ => {
                let keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).chain(["models.<name>"]).collect();
                return Err(format!(
                    "there is no setting rerank.{key}; the settings are {} and the options {}",
                    keys.join(", "),
                    OPTION_NAMES.join(", ")
                ));
            }
        }
        Ok(())
    }

    fn assign_model(&mut self, name: &str, location: Option<&str>) -> Result<(), String> {
        if !self.allow_locations {
            return Err(format!("rerank.models.{name} cannot be set: rerank.allow_locations is false in this session"));
        }
        if name.is_empty() {
            return Err("rerank.models. needs a name: SET rerank.models.<name> = '<location>'".to_owned());
        }
        let name = name.to_lowercase();
        match location {
            Some(location) => self.models.insert(name, location.to_owned()),
            None => self.models.remove(&name),
        };
        Ok(())
    }

    fn assign_option(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let mut options = self.options.clone();
        match value {
            None => options.set(name, &Value::Null),
            Some(value) => options.set_text(name, value),
        }
        .map_err(|error| format!("rerank.{name}: {error}"))?;
        if options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list) {
            return Err(format!(
                "rerank.{name}: a session default is one layer, got {}; ask for several in the call's options",
                value.unwrap_or_default()
            ));
        }
        self.options = options;
        Ok(())
    }

    /// The value of one of [`KEYS`].
    fn value(&self, key: &str) -> Option<String> {
        match key {
            "model" => Some(self.model.clone()),
            "device" => Some(self.engine.devices.to_string()),
            "threads" => self.engine.threads.map(|threads| threads.to_string()),
            "batch_tokens" => self.engine.batch_tokens.map(|tokens| tokens.to_string()),
            "cache" => self.engine.cache.as_ref().map(|folder| folder.display().to_string()),
            "window_rows" => Some(self.window_rows.to_string()),
            "allow_locations" => Some(self.allow_locations.to_string()),
            "max_models" => Some(self.max_models.to_string()),
            _ => None,
        }
    }
}

fn entry(key: &str, value: Option<String>, description: &'static str) -> ConfigEntry {
    ConfigEntry { key: format!("{}.{key}", RerankConfig::PREFIX), value, description }
}

fn parse<T: FromStr>(key: &str, value: &str, expected: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("rerank.{key}: expected {expected}, got '{value}'"))
}

fn count(key: &str, value: &str) -> Result<usize, String> {
    let expected = "a whole number of at least 1";
    match parse(key, value, expected)? {
        0 => Err(format!("rerank.{key}: expected {expected}, got '0'")),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Device;

    fn set(config: &mut RerankConfig, key: &str, value: &str) -> Result<(), String> {
        config.set(key, value).map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_round_trips_through_its_entry() {
        let mut config = RerankConfig::default();
        for (key, value) in [
            ("model", "gemma"),
            ("models.Mine", "/models/mine"),
            ("device", "cuda:1"),
            ("threads", "3"),
            ("batch_tokens", "128"),
            ("window_rows", "64"),
            ("max_models", "2"),
            ("max_length", "256"),
            ("query_instruction", "12"),
            ("compress_layers", "[8,16]"),
            ("cutoff_layers", "8"),
            ("allow_locations", "false"),
        ] {
            set(&mut config, key, value).unwrap();
        }
        assert_eq!(config.engine.devices, Device::Cuda(1).into());
        let mut copy = RerankConfig::default();
        let (last, others): (Vec<_>, Vec<_>) = config.entries().into_iter().partition(|e| e.key.ends_with("locations"));
        for entry in others.into_iter().chain(last) {
            if let Some(value) = entry.value {
                set(&mut copy, entry.key.strip_prefix("rerank.").unwrap(), &value).unwrap();
            }
        }
        assert_eq!(copy, config);
    }

    #[test]
    fn default_restores_every_setting() {
        let mut config = RerankConfig::default();
        for (key, value) in [
            ("model", "x"),
            ("models.x", "y"),
            ("device", "cuda"),
            ("threads", "1"),
            ("batch_tokens", "1"),
            ("window_rows", "1"),
            ("max_models", "1"),
            ("allow_locations", "true"),
            ("normalize", "true"),
        ] {
            set(&mut config, key, value).unwrap();
            set(&mut config, key, "default").unwrap();
        }
        assert_eq!(config, RerankConfig::default());
    }

    #[test]
    fn wrong_settings_name_key_value_and_remedy() {
        let mut config = RerankConfig::default();
        for (key, value, part) in [
            ("nonsense", "1", "there is no setting rerank.nonsense; the settings are model, device"),
            ("threads", "many", "rerank.threads: expected a whole number of at least 1, got 'many'"),
            ("window_rows", "0", "rerank.window_rows: expected a whole number of at least 1, got '0'"),
            ("device", "gpu", "expected cpu, cuda, cuda:N or"),
            ("allow_locations", "1", "expected true or false, got '1'"),
            ("max_length", "long", "option max_length: expected a whole number"),
            ("cutoff_layers", "[8, 16]", "a session default is one layer, got [8, 16]"),
            ("models.", "x", "needs a name"),
        ] {
            let error = set(&mut config, key, value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(config, RerankConfig::default());
    }

    #[test]
    fn locked_sessions_stay_locked() {
        let mut config = RerankConfig { allow_locations: false, ..Default::default() };
        for (key, value) in [("allow_locations", "true"), ("allow_locations", "default"), ("models.x", "/etc")] {
            assert!(set(&mut config, key, value).unwrap_err().contains("allow_locations is false"), "{key}");
        }
        set(&mut config, "allow_locations", "false").unwrap();
    }
}
