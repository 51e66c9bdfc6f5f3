//! A JSON file of settings: typed access with errors that name the key, and an account of the keys that refuses those
//! that nobody read.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::account::CheckpointPart;
use super::json;
use crate::error::{Error, Result};

/// Longest value that an error quotes, in characters.
const QUOTED_CHARS: usize = 80;

/// `config.json`, or another file with an object of settings. It remembers which keys were read: [`Config::account`]
/// refuses the others, unless they are known to change no score.
#[derive(Debug)]
pub(crate) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
    read: Mutex<BTreeSet<String>>,
}

impl Config {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound if path.is_symlink() => {
                Error::checkpoint(path, "a link to a file that is not there; download or save the checkpoint again")
            }
            _ => Error::io(path, source),
        })?;
        Self::parse(path, &json)
    }

    /// Parses the content of `path`, wherever it was read from.
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self> {
        match json::parse(path, json)? {
            Value::Object(values) => Ok(Self { path: path.to_owned(), values, read: Mutex::default() }),
            _ => Err(Error::checkpoint(path, "expected a JSON object")),
        }
    }

    /// The file's name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether the key is there; `null` counts.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The value of a key, if there is one; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.marks().insert(key.to_owned());
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, message)
    }

    pub(crate) fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.error(format!("{key} is {}, expected {expected}", quoted(value)))
    }

    /// A dimension or count: a positive integer below 2^31.
    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        self.optional_count(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| match value.as_u64() {
                Some(n @ 1..=0x7fff_ffff) => Ok(n as usize),
                _ => Err(self.wrong(key, value, "a whole number of at least 1")),
            })
            .transpose()
    }

    /// A token id, which may be zero.
    pub(crate) fn optional_id(&self, key: &str) -> Result<Option<u32>> {
        self.get(key)
            .map(|value| {
                let id = value.as_u64().and_then(|n| u32::try_from(n).ok());
                id.ok_or_else(|| self.wrong(key, value, "a token id"))
            })
            .transpose()
    }

    fn missing(&self, key: &str) -> Error {
        self.error(format!("{key} is missing; add it to the file"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64> {
        self.optional_number(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number above zero: nothing here may be zero or negative.
    pub(crate) fn positive(&self, key: &str) -> Result<f64> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        match self.optional_number(key)? {
            Some(number) if number <= 0.0 => Err(self.error(format!("{key} is {number}, expected a number above 0"))),
            number => Ok(number),
        }
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| value.as_f64().ok_or_else(|| self.wrong(key, value, "a number"))).transpose()
    }

    /// A number that `null` turns off, and that is `absent` if the key is missing: the default of the reference's
    /// class.
    pub(crate) fn number_or_off(&self, key: &str, absent: f64) -> Result<Option<f64>> {
        if self.contains(key) { self.optional_positive(key) } else { Ok(Some(absent)) }
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, value, "text"))).transpose()
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))).transpose()
    }

    /// The texts of a list; none if the key is absent.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        list.flatten().ok_or_else(|| self.wrong(key, value, "a list of texts"))
    }

    /// The object under a key, with its own account under names like `rope_parameters.rope_theta`.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Object<'_>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let values = value.as_object().ok_or_else(|| self.wrong(key, value, "an object"))?;
        Ok(Some(Object { config: self, name: key.to_owned(), values }))
    }

    /// Refuses a setting that this crate does not implement. An absent one counts as the first allowed value.
    pub(crate) fn require(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.get(key) {
            None => Ok(()),
            Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
            Some(value) => Err(self.wrong(key, value, &format!("one of {}", allowed.join(", ")))),
        }
    }

    /// Whether a key is there and turns something off.
    pub(crate) fn is_off(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(is_off)
    }

    /// Refuses features that this crate does not implement, if the checkpoint turns them on.
    pub(crate) fn require_off(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            match self.get(key) {
                Some(value) if !is_off(value) => {
                    return Err(self
                        .error(format!("{key} is {}, which is not supported; expected false or null", quoted(value))));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The first entry of `architectures`, the name of the reference class.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is no list of names.
    pub(crate) fn architecture(&self) -> Result<Option<&str>> {
        Ok(self.texts("architectures")?.into_iter().next())
    }

    /// What became of each key. Call this when everything that matters has been read. `ignored` tells why a key changes
    /// no score.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a key that was not read and is not ignored: it may change scores.
    pub(crate) fn account(&self, ignored: impl Fn(&str) -> Option<&'static str>) -> Result<Vec<CheckpointPart>> {
        let read = self.marks();
        let file = self.name();
        let part = |(key, value): (&String, &Value)| {
            if read.contains(key) {
                return Ok(CheckpointPart::used(&file, key));
            }
            if let Some(reason) = ignored(key) {
                return Ok(CheckpointPart::ignored(&file, key, reason));
            }
            if is_empty(value) {
                return Ok(CheckpointPart::ignored(&file, key, "empty"));
            }
            Err(self.error(format!(
                "{key} is {}; it is not known here and may change scores; if it does not, remove it from the file",
                quoted(value)
            )))
        };
        self.values.iter().map(part).collect()
    }

    fn marks(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object inside a [`Config`]. Its reader must look at every key: see [`Object::require_known`].
#[derive(Debug)]
pub(crate) struct Object<'a> {
    config: &'a Config,
    /// As errors name it.
    name: String,
    values: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The name of a key, as errors show it.
    pub(crate) fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// The keys with a value.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let number =
            |value: &Value| value.as_f64().ok_or_else(|| self.config.wrong(&self.path_of(key), value, "a number"));
        self.get(key).map(number).transpose()
    }

    /// The object under a key, which must be one.
    pub(crate) fn object(&self, key: &str) -> Result<Object<'a>> {
        let value = self.get(key).unwrap_or(&Value::Null);
        let values = value.as_object().ok_or_else(|| self.config.wrong(&self.path_of(key), value, "an object"))?;
        Ok(Self { config: self.config, name: self.path_of(key), values })
    }

    /// Refuses any other value than this text. An absent one is accepted.
    pub(crate) fn require(&self, key: &str, expected: &str) -> Result<()> {
        match self.get(key) {
            Some(value) if value != expected => {
                Err(self.config.wrong(&self.path_of(key), value, &format!("\"{expected}\", the only one supported")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses any key but these.
    pub(crate) fn require_known(&self, known: &[&str]) -> Result<()> {
        match self.keys().find(|key| !known.contains(key)) {
            None => Ok(()),
            Some(key) => Err(self.config.error(format!(
                "{} is {}, which is not supported; the keys known here are {}",
                self.path_of(key),
                quoted(&self.values[key]),
                known.join(", ")
            ))),
        }
    }
}

/// Whether a value turns a feature off.
fn is_off(value: &Value) -> bool {
    is_empty(value) || *value == Value::Bool(false)
}

/// Whether a value says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// The value as an error quotes it: as JSON, cut if it is long.
fn quoted(value: &Value) -> String {
    let json = value.to_string();
    match json.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &json[..end]),
        None => json,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::ignored::CONFIG_KEYS;

    fn config(values: &Value) -> Config {
        Config::parse(Path::new("config.json"), values.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_key_is_used_or_known_to_be_harmless_or_refused() {
        let config = config(&json!({"hidden_size": 8, "use_cache": true, "new_key": null, "vocab_size": 3}));
        config.count("hidden_size").unwrap();
        config.count("vocab_size").unwrap();
        let account = config.account(|key| CONFIG_KEYS.reason(key)).unwrap();
        let ignored =
            |name: &str| account.iter().find(|part| part.name.as_deref() == Some(name)).unwrap().ignored.clone();
        assert_eq!((ignored("hidden_size"), ignored("vocab_size")), (None, None));
        assert_eq!(ignored("use_cache").unwrap(), "how the reference stores and computes, not what");
        assert_eq!(ignored("new_key").unwrap(), "empty");
        assert_eq!(account.len(), 4);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_value() {
        let error = |value: Value| config(&json!({ "new_key": value })).account(|_| None).unwrap_err().to_string();
        assert_eq!(
            error(json!(0.5)),
            "checkpoint file config.json: new_key is 0.5; it is not known here and may change scores; if it does not, \
             remove it from the file"
        );
        let long = error(json!("é".repeat(100)));
        assert!(long.contains(&format!("new_key is \"{}...; ", "é".repeat(79))), "{long}");
    }

    #[test]
    fn a_missing_number_is_not_one_that_is_off() {
        let number = |values: Value| config(&values).number_or_off("cap", 30.0).unwrap();
        assert_eq!(number(json!({})), Some(30.0));
        assert_eq!(number(json!({"cap": null})), None);
        assert_eq!(number(json!({"cap": 8})), Some(8.0));
    }

    #[test]
    fn features_are_off_in_any_spelling() {
        for value in [json!(null), json!(false), json!([]), json!({})] {
            config(&json!({ "pruned_heads": value })).require_off(&["pruned_heads"]).unwrap();
        }
        let error =
            config(&json!({"pruned_heads": {"0": [1]}})).require_off(&["is_decoder", "pruned_heads"]).unwrap_err();
        let expected =
            "checkpoint file config.json: pruned_heads is {\"0\":[1]}, which is not supported; expected false or null";
        assert_eq!(error.to_string(), expected);
    }
}
