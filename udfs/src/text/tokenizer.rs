//! The checkpoint's own tokenizer, without its truncation, padding and special tokens.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::TOKENIZER_CONFIG_FILE;
use crate::error::{Error, Result};

/// Which end of a text is cut when it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TruncationSide {
    /// Cut the end, keep the first ids.
    #[default]
    Right,
    /// Cut the beginning, keep the last ids.
    Left,
}

/// A text that the tokenizer refuses, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot be tokenized: {0}")]
pub(crate) struct Untokenizable(String);

/// Encodes a text as its ids and nothing else; a [`Recipe`](super::Recipe) assembles pairs.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pub(crate) truncation_side: TruncationSide,
    /// The token that begins a sequence, if the tokenizer names one.
    pub(crate) bos: Option<u32>,
    /// The padding token, if the tokenizer names one.
    pub(crate) pad: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `truncation_side` from the `tokenizer_config.json` beside it if there is one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if either file is invalid.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| Error::checkpoint(path, format!("not a tokenizer: {e}")))?;
        // A published file may still hold the settings of its last training run.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::checkpoint(path, e.to_string()))?;
        let settings = Settings::read(&path.with_file_name(TOKENIZER_CONFIG_FILE))?;
        let id = |token: &Option<NamedToken>| token.as_ref().and_then(|token| inner.token_to_id(token.content()));
        let (bos, pad) = (id(&settings.bos_token), id(&settings.pad_token));
        Ok(Self { inner, path: path.to_owned(), truncation_side: settings.truncation_side, bos, pad })
    }

    /// The ids of `text` alone. Special tokens that occur literally in it are encoded as such.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Untokenizable> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(Untokenizable(e.to_string())),
        }
    }

    /// The id of a token that a recipe needs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the vocabulary does not have it.
    pub(crate) fn id(&self, token: &str) -> Result<u32> {
        self.inner.token_to_id(token).ok_or_else(|| self.error(format!("token {token} is not in the vocabulary")))
    }

    /// The first id of `text` encoded alone.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none.
    pub(crate) fn first_id(&self, text: &str) -> Result<u32> {
        let ids = self.encode(text).map_err(|e| self.error(format!("'{text}' {e}")))?;
        ids.first().copied().ok_or_else(|| self.error(format!("'{text}' encodes to nothing")))
    }

    /// One more than the largest id that the tokenizer can return.
    pub(crate) fn id_limit(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, message)
    }
}

/// The keys of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    truncation_side: TruncationSide,
    bos_token: Option<NamedToken>,
    pad_token: Option<NamedToken>,
}

/// A token: its text, or an object with its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Described { content: String },
}

impl NamedToken {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Described { content } => content,
        }
    }
}

impl Settings {
    /// The settings in a file, or the defaults if there is none.
    fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        serde_json::from_slice(&text).map_err(|e| Error::checkpoint(path, e.to_string()))
    }
}
