//! What `adapter_config.json` says of a module: whether it has an update, of which rank, and how much the update
//! counts.

use fancy_regex::Regex;
use serde_json::Value;

use super::config::Config;
use super::ignored::ends_path;
use crate::error::{Error, Result};

/// The kind of adapters that can be applied.
pub(super) const LORA: &str = "LORA";

/// What `all-linear` stands for depends on the model; peft saves the names instead.
const ALL_LINEAR: &str = "all-linear";

/// The number of a layer in a module's name, if `layers_pattern` names no other place for it.
const LAYER: &str = r"^.*\.[^.]*\.(\d+)\.";

/// The settings of an adapter that depend on the module.
///
/// Versions of peft differ on how they match the keys of `rank_pattern` and `alpha_pattern`. A configuration that says
/// which version wrote it follows the rule since 0.15; for others, both rules must agree. (`_create_and_replace`, peft
/// 0.13.2, `tuners/lora/model.py`; `get_pattern_key`, peft 0.21.2, `utils/other.py`)
pub(super) struct AdapterModules<'a> {
    config: &'a Config,
    targets: Option<Selection>,
    excluded: Option<Selection>,
    layers: Option<Vec<u64>>,
    layer_number: Vec<Regex>,
    rank: f64,
    alpha: f64,
    is_rank_stabilized: bool,
    ranks: Vec<Pattern>,
    alphas: Vec<Pattern>,
    saved: Option<Selection>,
    is_recent: bool,
}

/// Modules by the ends of their names, or by a regular expression for the whole name.
enum Selection {
    Ends(Vec<String>),
    Whole(Regex),
}

/// An entry of `rank_pattern` or `alpha_pattern`.
struct Pattern {
    key: String,
    value: f64,
    /// How peft matches it since 0.15, and how it did before.
    rules: [Regex; 2],
}

impl<'a> AdapterModules<'a> {
    pub(super) fn read(config: &'a Config) -> Result<Self> {
        let mut layer_number = Vec::new();
        for pattern in texts(config, "layers_pattern")?.unwrap_or_default().iter().filter(|pattern| !pattern.is_empty())
        {
            layer_number.push(regex(config, "layers_pattern", &format!(r"^.*\.{pattern}\.(\d+)\."))?);
        }
        if layer_number.is_empty() {
            layer_number.push(regex(config, "layers_pattern", LAYER)?);
        }
        let mut layers = None;
        if let Some(value) = config.get("layers_to_transform") {
            let list = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            let numbers = list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>();
            layers = Some(numbers.ok_or_else(|| config.wrong("layers_to_transform", value, "layer numbers"))?);
        }
        Ok(Self {
            config,
            targets: Selection::read(config, "target_modules")?,
            excluded: Selection::read(config, "exclude_modules")?,
            layers: layers.filter(|layers| !layers.is_empty()),
            layer_number,
            rank: config.number("r")?,
            alpha: config.number("lora_alpha")?,
            is_rank_stabilized: config.optional_bool("use_rslora")?.unwrap_or(false),
            ranks: Pattern::read(config, "rank_pattern")?,
            alphas: Pattern::read(config, "alpha_pattern")?,
            saved: Selection::read(config, "modules_to_save")?,
            is_recent: config.optional_text("peft_version")?.is_some_and(is_recent),
        })
    }

    /// The factor of a module's update of this rank.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if peft would not load the update, or versions of peft differ on the factor.
    pub(super) fn scaling(&self, module: &str, rank: usize) -> Result<f32> {
        if self.targets.is_some() && !self.has_update(module) {
            return Err(self.config.error(format!(
                "target_modules, exclude_modules or layers_to_transform leave out {module}, which the adapter has an update \
                 for, so peft would not load it; correct the settings, or remove the tensors"
            )));
        }
        let rank = rank as f64;
        let ranks = self.values(module, self.rank, &self.ranks, &self.alphas);
        if !ranks.iter().any(|known| known.to_bits() == rank.to_bits()) {
            return Err(self.config.error(format!(
                "the update of {module} has rank {rank}, but r and rank_pattern make it {}",
                ranks[0]
            )));
        }
        let alphas = self.values(module, self.alpha, &self.alphas, &self.ranks);
        let alpha = alphas[0];
        if let Some(other) = alphas.iter().find(|other| other.to_bits() != alpha.to_bits()) {
            return Err(self.config.error(if self.is_recent {
                format!("several entries of alpha_pattern match {module}, with {alpha} and {other}; keep one")
            } else {
                format!(
                    "alpha_pattern makes lora_alpha {alpha} or {other} for {module}, depending on the version of peft; keep \
                     one entry for it, or add the peft_version that wrote the adapter"
                )
            }));
        }
        let scaling = (alpha / if self.is_rank_stabilized { rank.sqrt() } else { rank }) as f32;
        if scaling.is_finite() {
            Ok(scaling)
        } else {
            Err(self.config.error(format!("lora_alpha is {alpha} for {module}, which is out of range")))
        }
    }

    /// Whether the adapter must have an update of a module: peft saves one for every target.
    pub(super) fn expects_update(&self, module: &str) -> bool {
        let is_saved = self.saved.as_ref().is_some_and(|saved| {
            // A module to save holds others, which are saved with it.
            let parents = module.match_indices('.').map(|(dot, _)| &module[..dot]);
            parents.chain([module]).any(|parent| saved.contains(parent))
        });
        self.targets.is_some() && self.has_update(module) && !is_saved
    }

    /// (`check_target_module_exists`, peft 0.21.2, `tuners/tuners_utils.py`)
    fn has_update(&self, module: &str) -> bool {
        if self.excluded.as_ref().is_some_and(|excluded| excluded.contains(module)) {
            return false;
        }
        match &self.targets {
            None => true,
            // Layers narrow down ends of names only.
            Some(Selection::Ends(names)) if names.iter().any(|name| name == module) => true,
            Some(Selection::Whole(regex)) => is_match(regex, module),
            Some(targets) => targets.contains(module) && self.is_in_layers(module),
        }
    }

    fn is_in_layers(&self, module: &str) -> bool {
        let Some(layers) = &self.layers else { return true };
        let number = self.layer_number.iter().find_map(|pattern| pattern.captures(module).ok()??.get(1));
        number.and_then(|number| number.as_str().parse().ok()).is_some_and(|number: u64| layers.contains(&number))
    }

    /// What the versions of peft that count make of `patterns` for a module. Before 0.15, an entry was looked up under
    /// the first key that matched, which may be one of `others`, or else under the module's name.
    fn values(&self, module: &str, default: f64, patterns: &[Pattern], others: &[Pattern]) -> Vec<f64> {
        let matching = |rule: usize| move |pattern: &&Pattern| is_match(&pattern.rules[rule], module);
        let of_key = |key: &str| patterns.iter().find(|pattern| pattern.key == key).map_or(default, |p| p.value);
        // Which of several comes first is not known: the order of keys in JSON has no meaning here.
        let mut values: Vec<f64> = patterns.iter().filter(matching(0)).map(|pattern| pattern.value).collect();
        if values.is_empty() {
            values.push(default);
        }
        if !self.is_recent {
            let mut keys: Vec<&str> =
                patterns.iter().chain(others).filter(matching(1)).map(|pattern| pattern.key.as_str()).collect();
            if keys.is_empty() {
                keys.push(module);
            }
            values.extend(keys.into_iter().map(of_key));
        }
        values
    }
}

/// Whether a version of peft is 0.15 or later.
fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u64>().ok());
    (numbers.next(), numbers.next()) >= (Some(0), Some(15))
}

/// The name of a module is short, and a search that gives up all the same matches: the update is then refused or its
/// factor is ambiguous, never silently another.
fn is_match(regex: &Regex, module: &str) -> bool {
    regex.is_match(module).unwrap_or(true)
}

impl Selection {
    fn read(config: &Config, key: &str) -> Result<Option<Self>> {
        match config.get(key) {
            Some(Value::String(text)) if text == ALL_LINEAR => Ok(None),
            Some(Value::String(text)) => Ok(Some(Self::Whole(regex(config, key, &format!("^(?:{text})$"))?))),
            _ => Ok(texts(config, key)?.map(Self::Ends)),
        }
    }

    fn contains(&self, module: &str) -> bool {
        match self {
            Self::Ends(ends) => ends.iter().any(|end| ends_path(module, end)),
            Self::Whole(regex) => is_match(regex, module),
        }
    }
}

impl Pattern {
    fn read(config: &Config, name: &str) -> Result<Vec<Self>> {
        let Some(entries) = config.object(name)? else { return Ok(Vec::new()) };
        let mut patterns = Vec::new();
        for key in entries.keys() {
            let Some(value) = entries.optional_number(key)? else { continue };
            let path = entries.path_of(key);
            let rules = [
                regex(config, &path, &format!(r"^(?:.*\.)?(?:{key})$"))?,
                // Without parentheses, as peft had it: in `a|b`, the name must begin with `b`.
                regex(config, &path, &format!(r"^(?:.*\.{key}$)"))?,
            ];
            patterns.push(Self { key: key.to_owned(), value, rules });
        }
        Ok(patterns)
    }
}

/// The texts under a key, which may be one text or a list.
fn texts(config: &Config, key: &str) -> Result<Option<Vec<String>>> {
    match config.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
        Some(_) => Ok(Some(config.texts(key)?.into_iter().map(str::to_owned).collect())),
    }
}

/// # Errors
/// [`Error::Checkpoint`] for what is no regular expression.
fn regex(config: &Config, key: &str, pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|_| -> Error {
        config.error(format!("{key} cannot be read as a regular expression; write the names of modules out"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    const QUERY: &str = "model.layers.1.self_attn.q_proj";
    const KEY: &str = "model.layers.12.self_attn.k_proj";

    /// The scaling of two modules of rank 4; the settings have r 4 and alpha 8 unless they say otherwise.
    fn scaling(settings: &Value) -> [Result<f32, String>; 2] {
        let mut config = json!({"r": 4, "lora_alpha": 8});
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let config = Config::parse(Path::new("adapter_config.json"), config.to_string().as_bytes()).unwrap();
        [QUERY, KEY].map(|module| {
            let scaling = AdapterModules::read(&config).and_then(|modules| modules.scaling(module, 4));
            scaling.map_err(|error| error.to_string())
        })
    }

    #[test]
    fn an_update_counts_by_alpha_and_rank() {
        assert_eq!(scaling(&json!({})), [Ok(2.0), Ok(2.0)]);
        assert_eq!(scaling(&json!({"use_rslora": true})), [Ok(4.0), Ok(4.0)]);
        assert_eq!(scaling(&json!({"alpha_pattern": {"q_proj": 2}})), [Ok(0.5), Ok(2.0)]);
        assert_eq!(scaling(&json!({"alpha_pattern": {QUERY: 2}})), [Ok(0.5), Ok(2.0)]);
        assert!(scaling(&json!({"lora_alpha": 1e300}))[0].clone().unwrap_err().contains("out of range"));
        assert_eq!(scaling(&json!({"alpha_pattern": {"layers.1.self_attn.q_proj": 2}})), [Ok(0.5), Ok(2.0)]);
        assert_eq!(scaling(&json!({"rank_pattern": {"q_proj": 4}, "r": 4})), [Ok(2.0), Ok(2.0)]);
        assert_eq!(scaling(&json!({"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 4}}))[0], Ok(1.0));
    }

    #[test]
    fn versions_of_peft_must_agree() {
        for patterns in [
            json!({"alpha_pattern": {"^model.layers.1.self_attn.q_proj": 2}}),
            json!({"alpha_pattern": {"k_proj|q_proj": 2}}),
            json!({"alpha_pattern": {"q_proj": 2, "self_attn.q_proj": 3}}),
            json!({"alpha_pattern": {"q_proj": 2}, "rank_pattern": {"self_attn.q_proj": 4}}),
        ] {
            let error = scaling(&patterns)[0].clone().unwrap_err();
            assert!(error.contains(&format!(" for {QUERY}, depending on the version of peft; keep one")), "{error}");
        }
        let pattern = "^model.layers.1.self_attn.q_proj";
        let of_version = |version: Value| scaling(&json!({"alpha_pattern": {pattern: 2}, "peft_version": version}));
        assert_eq!(of_version(json!("0.21.2")), [Ok(0.5), Ok(2.0)]);
        let two = json!({"alpha_pattern": {"q_proj": 2, "self_attn.q_proj": 3}, "peft_version": "0.21.2"});
        assert!(scaling(&two)[0].clone().unwrap_err().contains("several entries of alpha_pattern match"));
        assert_eq!(of_version(json!("1.0.0.dev0")), [Ok(0.5), Ok(2.0)]);
        for version in [json!("0.13.2"), json!("0.14.1.dev0"), json!("new"), json!(null)] {
            assert!(of_version(version.clone())[0].is_err(), "{version}");
        }
        assert!(of_version(json!(15))[0].clone().unwrap_err().contains("peft_version is 15, expected text"));
    }

    #[test]
    fn updates_that_peft_would_not_load_are_refused() {
        for (settings, loads) in [
            (json!({"target_modules": ["q_proj", "k_proj"]}), [true, true]),
            (json!({"target_modules": ["proj"]}), [false, false]),
            (json!({"target_modules": [QUERY]}), [true, false]),
            (json!({"target_modules": r".*self_attn\.(q|v)_proj"}), [true, false]),
            (json!({"target_modules": "self_attn.q_proj"}), [false, false]),
            (json!({"target_modules": "all-linear"}), [true, true]),
            (json!({"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["q_proj"]}), [false, true]),
            (json!({"target_modules": r"^(?!.*layers\.12).*\.(q|k)_proj$"}), [true, false]),
            (json!({"target_modules": ["q_proj", "k_proj"], "layers_to_transform": [1]}), [true, false]),
            (json!({"target_modules": [QUERY, "k_proj"], "layers_to_transform": [12]}), [true, true]),
            (
                json!({"target_modules": ["q_proj", "k_proj"], "layers_to_transform": 12, "layers_pattern": "layers"}),
                [false, true],
            ),
            (
                json!({"target_modules": ["q_proj", "k_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks"]}),
                [false, false],
            ),
            (
                json!({"target_modules": ["q_proj", "k_proj"], "layers_to_transform": [], "layers_pattern": ""}),
                [true, true],
            ),
        ] {
            let found = scaling(&settings);
            for (module, (scaling, loads)) in [QUERY, KEY].iter().zip(found.iter().zip(loads)) {
                assert_eq!(scaling.is_ok(), loads, "{settings}, {module}: {scaling:?}");
                let error = scaling.clone().err().unwrap_or_default();
                assert!(loads || error.contains(&format!("leave out {module}")), "{error}");
            }
        }
    }

    #[test]
    fn a_rank_that_the_settings_do_not_give_is_refused() {
        let error = scaling(&json!({"r": 8}))[0].clone().unwrap_err();
        assert!(
            error.ends_with(&format!("the update of {QUERY} has rank 4, but r and rank_pattern make it 8")),
            "{error}"
        );
        let ranks = scaling(&json!({"r": 8, "rank_pattern": {"q_proj": 4}}));
        assert!(ranks[0].is_ok() && ranks[1].is_err(), "{ranks:?}");
        let error = scaling(&json!({"alpha_pattern": {"(": 1}}))[0].clone().unwrap_err();
        assert!(error.contains("alpha_pattern.( cannot be read as a regular expression"), "{error}");
    }

    #[test]
    fn every_target_must_have_an_update() {
        let expects = |settings: Value, module: &str| {
            let mut config = json!({"r": 4, "lora_alpha": 8});
            config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            let config = Config::parse(Path::new("adapter_config.json"), config.to_string().as_bytes()).unwrap();
            AdapterModules::read(&config).unwrap().expects_update(module)
        };
        assert!(expects(json!({"target_modules": ["q_proj"]}), QUERY));
        assert!(!expects(json!({"target_modules": ["q_proj"]}), KEY));
        assert!(!expects(json!({}), QUERY), "peft has defaults for some models");
        let saved = json!({"target_modules": ["dense"], "modules_to_save": ["classifier"]});
        assert!(!expects(saved.clone(), "classifier.dense"));
        assert!(expects(saved, "roberta.encoder.layer.0.output.dense"));
    }
}
