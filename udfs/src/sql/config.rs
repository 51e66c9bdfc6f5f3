//! Session settings: `SET rerank.<key> = <value>`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use serde_json::Value;

use crate::engine::EngineOptions;
use crate::max_delay::{DEFAULT_MAX_DELAY, MaxDelay};
use crate::options::{Cutoffs, OPTION_NAMES, OptionKind, ScoreOptions};
use crate::registry::DEFAULT_MAX_MODELS;
use crate::suggestion::did_you_mean;
use crate::window::DEFAULT_WINDOW_ROWS;

/// The settings of a session.
///
/// | key | meaning | default | locked |
/// |---|---|---|---|
/// | `rerank.model` | model of calls that name none: a name or a location | `m3` | |
/// | `rerank.models.<name>` | location that `<name>` stands for; names are case-insensitive | none | yes |
/// | `rerank.device` | `cpu`, `cuda`, `cuda:N`, or several GPUs as `cuda:N,M` | `cpu` | yes |
/// | `rerank.threads` | threads of the CPU device | all cores | yes |
/// | `rerank.batch_tokens` | most tokens in a device batch, padding included | what was measured, or else 512 a thread on the CPU, 16,384 on a GPU | yes |
/// | `rerank.cache` | folder in which weights of another precision are kept | `RERANK_CACHE`, or the user's cache folder | yes |
/// | `rerank.window_rows` | most rows sorted by length together | 8,192 | yes |
/// | `rerank.score_cache` | bytes of scores that a query keeps, so that a pair is scored once, with `K`, `M` or `G`; `0` keeps none | `64M` | yes |
/// | `rerank.max_delay` | longest time that rows wait for others while their source has no more: `50ms`, `1s`, a number of milliseconds; `off` for full windows only | `50ms` | yes |
/// | `rerank.max_models` | models that this process keeps open | 4 | yes |
/// | `rerank.allow_locations` | whether SQL may name directories and hub ids, not just known names | `true` | yes |
/// | `rerank.<option>` | default of each of [`OPTION_NAMES`] | the model's | |
///
/// `SET rerank.<key> = default` restores a default. An option set here that the model of a call does not have is
/// ignored for that call. `rerank.cutoff_layers` takes one layer only: a list changes the type of the function, which
/// must follow from the call itself.
///
/// # Locked sessions
///
/// A session in which `rerank.allow_locations` is false is locked for good: a server can run other people's SQL in it.
/// Models must be known names, the only adapter is that of the session, and `SET` changes none of the settings marked
/// above. The server decides where and how models run: another device, number of threads or batch size loads another
/// copy of the weights, and memory grows with batches, windows and open models. What remains is what a call can set
/// itself: `rerank.model`, a known name, and the scoring options other than `adapter`. Of these, each other
/// `precision`, list of `cutoff_layers` and compression also loads another copy of the weights, which stays while the
/// model is open. The host can still change every field of the struct.
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
    /// Locations by lower-case name. They take precedence over the names of the
    /// [`ModelRegistry`](crate::ModelRegistry).
    pub models: BTreeMap<String, String>,
    /// How and where models run.
    pub engine: EngineOptions,
    /// Most rows sorted by length together; at least 1.
    pub window_rows: usize,
    /// The most bytes of scores that a query keeps, so that it scores a pair once; 0 keeps none.
    pub score_cache: usize,
    /// Longest time that rows wait for others while their source has no more; `None` for full windows only:
    /// [`Reranker::with_max_delay`](crate::Reranker::with_max_delay).
    pub max_delay: Option<Duration>,
    /// Whether SQL may name directories and hub ids. If not, SQL cannot change how models run either.
    pub allow_locations: bool,
    /// Models that this process keeps open, the least recently used closed first; at least 1.
    pub max_models: usize,
    /// Defaults of the scoring options.
    pub options: ScoreOptions,
}

/// A setting that is neither a scoring option nor one of `models.`.
struct Setting {
    key: &'static str,
    documentation: &'static str,
    /// Whether a locked session keeps its value.
    locked: bool,
    get: fn(&RerankConfig) -> Option<String>,
    /// Sets it from its key and value; `None` restores the default.
    set: fn(&mut RerankConfig, &str, Option<&str>) -> Result<()>,
}

/// All settings. The lock is last, so that applying [`RerankConfig::entries`] in order applies them all.
const SETTINGS: &[Setting] = &[
    Setting {
        key: "model",
        documentation: "Model of calls that name none: a name or a location",
        locked: false,
        get: |config| Some(config.model.clone()),
        set: |config, _, value| {
            config.model = value.map_or_else(|| RerankConfig::default().model, str::to_owned);
            Ok(())
        },
    },
    Setting {
        key: "device",
        documentation: "Where models run: cpu, cuda, cuda:N, or several GPUs as cuda:N,M",
        locked: true,
        get: |config| Some(config.engine.devices.to_string()),
        set: |config, key, value| {
            let devices = value.map(|value| value.parse().map_err(|error| wrong(key, &error))).transpose()?;
            config.engine.devices = devices.unwrap_or_else(|| EngineOptions::default().devices);
            Ok(())
        },
    },
    Setting {
        key: "threads",
        documentation: "Threads of the CPU device; all cores if unset",
        locked: true,
        get: |config| config.engine.threads.map(|threads| threads.to_string()),
        set: |config, key, value| {
            config.engine.threads = value.map(|value| count(key, value)).transpose()?;
            Ok(())
        },
    },
    Setting {
        key: "batch_tokens",
        documentation: "Most tokens in a device batch, padding included",
        locked: true,
        get: |config| config.engine.batch_tokens.map(|tokens| tokens.to_string()),
        set: |config, key, value| {
            config.engine.batch_tokens = value.map(|value| count(key, value)).transpose()?;
            Ok(())
        },
    },
    Setting {
        key: "cache",
        documentation: "Folder in which weights of another precision are kept",
        locked: true,
        get: |config| config.engine.cache.as_ref().map(|folder| folder.display().to_string()),
        set: |config, _, value| {
            config.engine.cache = value.map(PathBuf::from);
            Ok(())
        },
    },
    Setting {
        key: "window_rows",
        documentation: "Most rows sorted by length together",
        locked: true,
        get: |config| Some(config.window_rows.to_string()),
        set: |config, key, value| {
            config.window_rows = value.map_or(Ok(DEFAULT_WINDOW_ROWS), |value| count(key, value))?;
            Ok(())
        },
    },
    Setting {
        key: "score_cache",
        documentation: "Bytes of scores that a query keeps, so that a pair is scored once; 0 keeps none",
        locked: true,
        get: |config| Some(config.score_cache.to_string()),
        set: |config, key, value| {
            config.score_cache = value.map_or(Ok(DEFAULT_SCORE_CACHE), |value| bytes(key, value))?;
            Ok(())
        },
    },
    Setting {
        key: "max_delay",
        documentation: "Longest time that rows wait for others, such as 50ms; off for full windows only",
        locked: true,
        get: |config| Some(MaxDelay(config.max_delay).to_string()),
        set: |config, key, value| {
            let delay = value.map(|value| parse::<MaxDelay>(key, value, MaxDelay::EXPECTED)).transpose()?;
            config.max_delay = delay.unwrap_or_default().0;
            Ok(())
        },
    },
    Setting {
        key: "max_models",
        documentation: "Models that this process keeps open",
        locked: true,
        get: |config| Some(config.max_models.to_string()),
        set: |config, key, value| {
            config.max_models = value.map_or(Ok(DEFAULT_MAX_MODELS), |value| count(key, value))?;
            Ok(())
        },
    },
    Setting {
        key: "allow_locations",
        documentation: "Whether SQL may name directories and hub ids, not just known names; false locks the session",
        locked: true,
        get: |config| Some(config.allow_locations.to_string()),
        set: |config, key, value| {
            let allow = value.map_or(Ok(true), |value| parse(key, value, "true or false"))?;
            if allow && !config.allow_locations {
                let message = "rerank.allow_locations is false and stays so in this session".to_owned();
                return Err(DataFusionError::Configuration(message));
            }
            config.allow_locations = allow;
            Ok(())
        },
    },
];

/// Half a million scores.
const DEFAULT_SCORE_CACHE: usize = 64 << 20;

/// Prefix of the keys of models.
const MODELS: &str = "models.";

/// The value that restores a default.
const DEFAULT: &str = "default";

impl Default for RerankConfig {
    fn default() -> Self {
        Self {
            model: "m3".to_owned(),
            models: BTreeMap::new(),
            engine: EngineOptions::default(),
            window_rows: DEFAULT_WINDOW_ROWS,
            score_cache: DEFAULT_SCORE_CACHE,
            max_delay: Some(DEFAULT_MAX_DELAY),
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
        let mut changed = self.clone();
        changed.assign(key, value)?;
        if !self.allow_locations && is_locked(key) && changed != *self {
            return Err(DataFusionError::Configuration(format!(
                "rerank.{key} cannot be set: rerank.allow_locations is false in this session, which locks all settings but rerank.model and the scoring options other than adapter"
            )));
        }
        *self = changed;
        Ok(())
    }

    /// Every setting under its full key, for `SHOW` and for sessions that are sent to another machine.
    fn entries(&self) -> Vec<ConfigEntry> {
        let models = self
            .models
            .iter()
            .map(|(name, location)| entry(&format!("{MODELS}{name}"), Some(location.clone()), "Location of a model"));
        let options = ScoreOptions::declarations().iter().map(|option| {
            let value = option.value(&self.options);
            let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            entry(option.name, text, option.documentation)
        });
        let settings = SETTINGS.iter().map(|setting| entry(setting.key, (setting.get)(self), setting.documentation));
        models.chain(options).chain(settings).collect()
    }
}

impl RerankConfig {
    /// The settings of a session; the defaults if it has none.
    pub fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Sets `key`, or restores its default.
    fn assign(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        if let Some(name) = key.strip_prefix(MODELS) {
            return self.assign_model(name, value);
        }
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            return (setting.set)(self, key, value);
        }
        if OPTION_NAMES.contains(&key) {
            return self.assign_option(key, value);
        }
        let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).chain(["models.<name>"]).collect();
        Err(DataFusionError::Configuration(format!(
            "there is no setting rerank.{key}{}; the settings are {} and the options {}",
            did_you_mean(key, keys.iter().chain(OPTION_NAMES).copied()),
            keys.join(", "),
            OPTION_NAMES.join(", ")
        )))
    }

    fn assign_model(&mut self, name: &str, location: Option<&str>) -> Result<()> {
        if name.is_empty() {
            return Err(DataFusionError::Configuration(
                "rerank.models. needs a name: SET rerank.models.<name> = '<location>'".to_owned(),
            ));
        }
        if location == Some("") {
            return Err(wrong(&format!("{MODELS}{name}"), &"expected a directory or a hub id, got ''"));
        }
        let name = name.to_lowercase();
        match location {
            Some(location) => self.models.insert(name, location.to_owned()),
            None => self.models.remove(&name),
        };
        Ok(())
    }

    fn assign_option(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        match value {
            None => self.options.set(name, &Value::Null),
            Some(value) => self.options.set_text(name, value),
        }
        .map_err(|error| wrong(name, &error))?;
        if self.options.cutoff_layers.as_ref().is_some_and(Cutoffs::is_list) {
            let value = value.unwrap_or_default();
            let message = format!("a session default is one layer, got {value}; ask for several in the call's options");
            return Err(wrong(name, &message));
        }
        Ok(())
    }
}

/// Whether SQL cannot change a setting of a locked session.
fn is_locked(key: &str) -> bool {
    let names_folder = ScoreOptions::declaration(key).is_some_and(|option| option.kind == OptionKind::Folder);
    names_folder || key.starts_with(MODELS) || SETTINGS.iter().any(|setting| setting.key == key && setting.locked)
}

fn entry(key: &str, value: Option<String>, description: &'static str) -> ConfigEntry {
    ConfigEntry { key: format!("{}.{key}", RerankConfig::PREFIX), value, description }
}

fn wrong(key: &str, message: &dyn Display) -> DataFusionError {
    DataFusionError::Configuration(format!("rerank.{key}: {message}"))
}

fn parse<T: FromStr>(key: &str, value: &str, expected: &str) -> Result<T> {
    value.parse().map_err(|_| wrong(key, &format!("expected {expected}, got '{value}'")))
}

fn count(key: &str, value: &str) -> Result<usize> {
    let expected = "a whole number of at least 1";
    match parse(key, value, expected)? {
        0 => Err(wrong(key, &format!("expected {expected}, got '0'"))),
        count => Ok(count),
    }
}

/// A number of bytes, with or without a unit of 1,024, 1,024² or 1,024³ bytes.
fn bytes(key: &str, value: &str) -> Result<usize> {
    let expected = "a number of bytes such as 67108864, 64M or 0";
    let (digits, shift) = match value.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => match value.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 20),
            None => value.strip_suffix(['G', 'g']).map_or((value, 0), |digits| (digits, 30)),
        },
    };
    let wrong = || wrong(key, &format!("expected {expected}, got '{value}'"));
    let number: usize = digits.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
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
            ("score_cache", "2M"),
            ("max_delay", "off"),
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
        // In order, so the lock comes last. Then once more: a locked session accepts the values that it already has.
        for entry in [config.entries(), config.entries()].concat() {
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
            ("score_cache", "0"),
            ("max_delay", "1s"),
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
            (
                "max_delay",
                "soon",
                "rerank.max_delay: expected a time such as 50ms or 1s, a whole number of milliseconds, or off, got 'soon'",
            ),
            ("window_rows", "0", "rerank.window_rows: expected a whole number of at least 1, got '0'"),
            (
                "score_cache",
                "much",
                "rerank.score_cache: expected a number of bytes such as 67108864, 64M or 0, got 'much'",
            ),
            ("score_cache", "99999999999G", "got '99999999999G'"),
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
        config.engine.threads = Some(3);
        let locked = config.clone();
        for (key, value) in [("allow_locations", "true"), ("allow_locations", "default"), ("models.x", "/etc")] {
            assert!(set(&mut config, key, value).unwrap_err().contains("allow_locations is false"), "{key}");
        }
        for (key, value) in [
            ("models.x", "/etc"),
            ("adapter", "/etc"),
            ("device", "cuda"),
            ("threads", "64"),
            ("threads", "default"),
            ("batch_tokens", "1000000"),
            ("cache", "/tmp"),
            ("window_rows", "1000000"),
            ("score_cache", "100G"),
            ("max_delay", "1h"),
            ("max_models", "100"),
        ] {
            let error = set(&mut config, key, value).unwrap_err();
            let part =
                format!("rerank.{key} cannot be set: rerank.allow_locations is false in this session, which locks");
            assert!(error.contains(&part), "{error}");
        }
        assert_eq!(config, locked);
        set(&mut config, "allow_locations", "false").unwrap();
        // What a call can set itself.
        for (key, value) in [("model", "gemma"), ("max_length", "64"), ("normalize", "true"), ("model", "default")] {
            set(&mut config, key, value).unwrap();
        }
    }

    #[test]
    fn the_documentation_marks_what_is_locked() {
        let documentation = include_str!("config.rs");
        for setting in SETTINGS {
            let row = format!("/// | `rerank.{}` |", setting.key);
            let row = documentation.lines().find(|line| line.starts_with(&row)).unwrap();
            assert_eq!(row.ends_with("| yes |"), setting.locked, "{row}");
        }
    }
}
