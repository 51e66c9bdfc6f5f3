//! The files beside `tokenizer.json`: special tokens, added tokens and how texts are cut, as transformers reads them.
//!
//! | file | read |
//! |---|---|
//! | `tokenizer_config.json` | always |
//! | `special_tokens_map.json` | only if `tokenizer_config.json` has no `added_tokens_decoder`; then its tokens win, and lists of both count |
//! | `added_tokens.json` | likewise; `tokenizer.json` wins over it |
//!
//! (`PreTrainedTokenizerBase._from_pretrained`, transformers 4.46.3, `tokenization_utils_base.py`)

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;

use crate::checkpoint::{
    ADDED_TOKENS_FILE, CheckpointPart, Config, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_KEYS,
};
use crate::error::Result;

/// Key of the added tokens, by id.
const ADDED_TOKENS: &str = "added_tokens_decoder";

/// Keys of one special token each.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Key of a list of special tokens that transformers reads since 5.0 only.
pub(super) const EXTRA_SPECIAL_TOKENS: &str = "extra_special_tokens";

/// Keys of lists of special tokens.
const SPECIAL_TOKEN_LISTS: [&str; 2] = ["additional_special_tokens", EXTRA_SPECIAL_TOKENS];

/// A special token as the settings give it.
#[derive(Debug, PartialEq)]
pub(super) enum Named {
    /// By its text.
    Token(String),
    /// `null` in this file: there is to be none.
    Nothing(String),
    /// Not at all, so the reference takes its class's default.
    Unnamed,
}

/// The settings of a tokenizer.
#[derive(Debug)]
pub(super) struct Settings {
    config: Option<Config>,
    special_tokens: Option<Config>,
    added_tokens: Option<Config>,
}

impl Settings {
    /// Reads the files of a folder that are there.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if one is no JSON object, [`Error::Io`](crate::Error::Io) if it
    /// cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let read = |name| {
            let file = folder.join(name);
            // A link whose target is gone is not an absent file.
            file.symlink_metadata().is_ok().then(|| Config::read(&file)).transpose()
        };
        Ok(Self {
            config: read(TOKENIZER_CONFIG_FILE)?,
            special_tokens: read(SPECIAL_TOKENS_FILE)?,
            added_tokens: read(ADDED_TOKENS_FILE)?,
        })
    }

    /// Whether only `tokenizer_config.json` counts.
    pub(super) fn is_complete(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.contains(ADDED_TOKENS))
    }

    /// The files that count, the one that wins first.
    fn files(&self) -> impl Iterator<Item = &Config> {
        self.special_tokens.iter().filter(|_| !self.is_complete()).chain(&self.config)
    }

    /// A special token, by its key.
    pub(super) fn token(&self, key: &str) -> Result<Named> {
        let Some(file) = self.files().find(|file| file.contains(key)) else { return Ok(Named::Unnamed) };
        match file.get(key) {
            None => Ok(Named::Nothing(file.name())),
            Some(value) => Ok(Named::Token(content(file, key, value)?.to_owned())),
        }
    }

    /// The end at which texts are cut, if a file says.
    pub(super) fn truncation_side(&self) -> Result<Option<&str>> {
        let Some(config) = &self.config else { return Ok(None) };
        config.require("truncation_side", &["right", "left"])?;
        config.optional_text("truncation_side")
    }

    /// Whether special tokens that occur literally in a text are tokenized like other text.
    pub(super) fn splits_special_tokens(&self) -> Result<bool> {
        let split = |config: &Config| config.optional_bool("split_special_tokens");
        Ok(self.config.as_ref().map(split).transpose()?.flatten().unwrap_or(false))
    }

    /// Whether a space is to be put before a text, if a file says and the class of the reference heeds it: for this
    /// setting it builds another tokenizer than that of `tokenizer.json`. (`LlamaTokenizerFast.__init__`, transformers
    /// 4.46.3, `tokenization_llama_fast.py`)
    pub(super) fn adds_prefix_space(&self) -> Result<Option<bool>> {
        let Some(config) = &self.config else { return Ok(None) };
        let adds = config.optional_bool("add_prefix_space")?;
        let class = self.class()?;
        Ok(adds.filter(|_| class.is_some_and(|class| class.starts_with("Llama"))))
    }

    /// The class that the reference uses, if a file says.
    pub(super) fn class(&self) -> Result<Option<&str>> {
        let Some(config) = &self.config else { return Ok(None) };
        config.optional_text("tokenizer_class")
    }

    /// The tokens to match whole in texts, by id: those that the settings have beside `tokenizer.json`.
    pub(super) fn added_tokens(&self) -> Result<BTreeMap<u32, AddedToken>> {
        let special = self.special_contents()?;
        let mut tokens = BTreeMap::new();
        if let Some(config) = self.config.as_ref().filter(|_| self.is_complete()) {
            let value = config.get(ADDED_TOKENS).unwrap_or(&Value::Null);
            let wrong = || config.wrong(ADDED_TOKENS, value, "an object of tokens by their ids");
            for (id, token) in value.as_object().ok_or_else(wrong)? {
                let token = added_token(config, ADDED_TOKENS, token, &special)?;
                tokens.insert(id.parse().map_err(|_| wrong())?, token);
            }
        } else if let Some(file) = &self.added_tokens {
            for text in file.keys() {
                let id = file.optional_id(text)?.ok_or_else(|| file.wrong(text, &Value::Null, "a token id"))?;
                tokens.insert(id, AddedToken::from(text, special.contains(text)));
            }
        }
        Ok(tokens)
    }

    /// All special tokens and their keys, to be matched whole in texts.
    pub(super) fn special_tokens(&self) -> Result<Vec<(&'static str, AddedToken)>> {
        let special = self.special_contents()?;
        let values = self.special_values()?.into_iter();
        values.map(|(file, key, value)| Ok((key, added_token(file, key, value, &special)?))).collect()
    }

    /// The texts of all special tokens.
    fn special_contents(&self) -> Result<HashSet<String>> {
        let values = self.special_values()?.into_iter();
        values.map(|(file, key, value)| content(file, key, value).map(str::to_owned)).collect()
    }

    /// All special tokens as they are written, with their file and key.
    fn special_values(&self) -> Result<Vec<(&Config, &'static str, &Value)>> {
        let mut values = Vec::new();
        for key in SPECIAL_TOKENS {
            let file = self.files().find(|file| file.contains(key));
            values.extend(file.and_then(|file| Some((file, key, file.get(key)?))));
        }
        // Lists of both files count.
        for file in self.files() {
            for key in SPECIAL_TOKEN_LISTS {
                let Some(value) = file.get(key) else { continue };
                values.extend(list(file, key, value)?.into_iter().map(|value| (file, key, value)));
            }
        }
        Ok(values)
    }

    /// What became of the files and their keys.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for a key that is not known, or a feature that is not supported.
    pub(super) fn account(&self) -> Result<Vec<CheckpointPart>> {
        let mut parts = Vec::new();
        if let Some(config) = &self.config {
            config.require_off(&["from_slow"])?;
            parts.push(CheckpointPart::of_file(TOKENIZER_CONFIG_FILE, None));
            let overrides = self.special_tokens.as_ref().filter(|_| !self.is_complete());
            parts.extend(config.account(|key| {
                let overridden = overrides.is_some_and(|file| file.contains(key));
                TOKENIZER_KEYS.reason(key).or(overridden.then_some("special_tokens_map.json takes precedence"))
            })?);
        }
        for (name, file) in [(SPECIAL_TOKENS_FILE, &self.special_tokens), (ADDED_TOKENS_FILE, &self.added_tokens)] {
            let Some(file) = file else { continue };
            if self.is_complete() {
                let reason = "tokenizer_config.json has added_tokens_decoder, so transformers does not read it";
                parts.push(CheckpointPart::of_file(name, Some(reason)));
            } else {
                parts.push(CheckpointPart::of_file(name, None));
                parts.extend(file.account(|key| TOKENIZER_KEYS.reason(key))?);
            }
        }
        Ok(parts)
    }
}

/// The text of a token: itself, or in an object.
fn content<'a>(file: &Config, key: &str, value: &'a Value) -> Result<&'a str> {
    let text = value.as_str().or_else(|| value.get("content")?.as_str());
    text.ok_or_else(|| file.wrong(key, value, "a token: a text, or an object with the text `content`"))
}

/// The tokens of a list, or of an object of tokens by their names.
fn list<'a>(file: &Config, key: &str, value: &'a Value) -> Result<Vec<&'a Value>> {
    match value {
        Value::Array(list) => Ok(list.iter().collect()),
        Value::Object(named) => Ok(named.values().collect()),
        _ => Err(file.wrong(key, value, "a list of tokens")),
    }
}

/// A token with its properties. It is special if it says so, or if it is one of the `special` ones.
fn added_token(file: &Config, key: &str, value: &Value, special: &HashSet<String>) -> Result<AddedToken> {
    let text = content(file, key, value)?;
    let property = |name: &str| match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(property)) => Ok(Some(*property)),
        Some(other) => Err(file.wrong(&format!("{key}.{name}"), other, "true or false")),
    };
    let plain = AddedToken::from(text, property("special")?.unwrap_or(false) || special.contains(text));
    Ok(AddedToken {
        single_word: property("single_word")?.unwrap_or(plain.single_word),
        lstrip: property("lstrip")?.unwrap_or(plain.lstrip),
        rstrip: property("rstrip")?.unwrap_or(plain.rstrip),
        normalized: property("normalized")?.unwrap_or(plain.normalized),
        ..plain
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Settings of files with this content; `null` for none.
    fn settings(config: Value, special_tokens: Value, added_tokens: Value) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let files =
            [(TOKENIZER_CONFIG_FILE, config), (SPECIAL_TOKENS_FILE, special_tokens), (ADDED_TOKENS_FILE, added_tokens)];
        for (name, content) in files.iter().filter(|(_, content)| !content.is_null()) {
            std::fs::write(folder.path().join(name), content.to_string()).unwrap();
        }
        Settings::read(folder.path()).unwrap()
    }

    fn token(text: &str) -> Named {
        Named::Token(text.to_owned())
    }

    #[test]
    fn special_tokens_come_from_the_file_that_transformers_reads() {
        let map = json!({"bos_token": {"content": "<b>", "lstrip": false}, "pad_token": null});
        let bos = |config: Value, map: &Value| settings(config, map.clone(), Value::Null).token("bos_token").unwrap();
        let unset = Value::Null;
        assert_eq!(bos(json!({"bos_token": "<a>"}), &unset), token("<a>"));
        assert_eq!(bos(json!({"bos_token": "<a>"}), &map), token("<b>"));
        assert_eq!(bos(json!({"bos_token": "<a>", "added_tokens_decoder": {}}), &map), token("<a>"));
        assert_eq!(bos(json!({"added_tokens_decoder": {}}), &map), Named::Unnamed);
        assert_eq!(bos(Value::Null, &map), token("<b>"));
        assert_eq!(bos(json!({}), &unset), Named::Unnamed);
        assert_eq!(bos(json!({"bos_token": null}), &unset), Named::Nothing(TOKENIZER_CONFIG_FILE.to_owned()));
        let pad = settings(json!({"pad_token": "<pad>"}), map, Value::Null).token("pad_token").unwrap();
        assert_eq!(pad, Named::Nothing(SPECIAL_TOKENS_FILE.to_owned()));
    }

    #[test]
    fn added_tokens_have_the_properties_that_they_say() {
        let described = json!({"7": {"content": "<m>", "lstrip": true, "normalized": false}, "8": {"content": "<b>"}});
        let config = json!({"bos_token": "<b>", "added_tokens_decoder": described});
        let tokens = settings(config, Value::Null, json!({"<other>": 9})).added_tokens().unwrap();
        let mask = AddedToken { lstrip: true, normalized: false, ..AddedToken::from("<m>", false) };
        assert_eq!(tokens, BTreeMap::from([(7, mask), (8, AddedToken::from("<b>", true))]));

        let tokens = settings(json!({}), Value::Null, json!({"<other>": 9})).added_tokens().unwrap();
        assert_eq!(tokens, BTreeMap::from([(9, AddedToken::from("<other>", false))]));
    }

    #[test]
    fn every_key_is_accounted_for() {
        let config = json!({"bos_token": "<b>", "padding_side": "left", "additional_special_tokens": ["<x>"]});
        let known = settings(config, json!({"bos_token": "<b>"}), json!({"<x>": 3}));
        known.added_tokens().unwrap();
        known.special_tokens().unwrap();
        let account = known.account().unwrap();
        let padding = account.iter().find(|part| part.name.as_deref() == Some("padding_side")).unwrap();
        assert_eq!(padding.ignored.as_deref(), Some("each call sets lengths and padding"));
        assert_eq!(account.len(), 3 + 3 + 1 + 1);
        for (key, value) in [("from_slow", json!(true)), ("new_key", json!(1))] {
            let error = settings(json!({ key: value }), Value::Null, Value::Null).account().unwrap_err().to_string();
            assert!(error.contains(&format!("tokenizer_config.json: {key} is {value}")), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for value in [json!(3), json!({"text": "<b>"}), json!(["<b>"])] {
            let settings = settings(json!({ "bos_token": value }), Value::Null, Value::Null);
            let error = settings.token("bos_token").unwrap_err().to_string();
            assert!(error.contains("bos_token is ") && error.contains("expected a token"), "{error}");
        }
    }
}
