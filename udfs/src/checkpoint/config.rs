//! `config.json`: typed access with errors that name the key.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// The parsed `config.json` of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    path: PathBuf,
    values: Value,
}

impl Config {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &std::fs::read(path).map_err(|source| Error::io(path, source))?)
    }

    /// Parses the content of `path`, wherever it was read from.
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self> {
        let values: Value =
            serde_json::from_slice(json).map_err(|e| Error::checkpoint(path, format!("not valid JSON: {e}")))?;
        if !values.is_object() {
            return Err(Error::checkpoint(path, "expected a JSON object"));
        }
        Ok(Self { path: path.to_owned(), values })
    }

    /// The value of a key, if there is one; `null` counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, message)
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.error(format!("{key} is {value}, expected {expected}"))
    }

    /// A dimension or count: a positive integer below 2^31.
    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        self.optional_count(key)?.ok_or_else(|| self.error(format!("{key} is missing")))
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

    pub(crate) fn id(&self, key: &str) -> Result<u32> {
        self.optional_id(key)?.ok_or_else(|| self.error(format!("{key} is missing")))
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64> {
        self.optional_number(key)?.ok_or_else(|| self.error(format!("{key} is missing")))
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| value.as_f64().ok_or_else(|| self.wrong(key, value, "a number"))).transpose()
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, value, "text"))).transpose()
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))).transpose()
    }

    /// Refuses a setting that this crate does not implement. An absent one counts as the first allowed value.
    pub(crate) fn require(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.get(key) {
            None => Ok(()),
            Some(Value::String(value)) if allowed.contains(&value.as_str()) => Ok(()),
            Some(value) => Err(self.wrong(key, value, &format!("one of {}", allowed.join(", ")))),
        }
    }

    /// Refuses a feature that this crate does not implement, if the checkpoint turns it on.
    pub(crate) fn require_absent(&self, key: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => Err(self.error(format!("{key} is {value}, which is not supported; expected null"))),
        }
    }

    /// The first entry of `architectures`, the name of the reference class.
    pub(crate) fn architecture(&self) -> Option<&str> {
        self.get("architectures")?.get(0)?.as_str()
    }
}
