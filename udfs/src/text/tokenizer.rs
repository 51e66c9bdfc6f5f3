//! The checkpoint's own tokenizer, without its truncation, padding and special tokens.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// Which end of a text is kept when it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Side {
    /// Drop the end: the first ids stay.
    #[default]
    Right,
    /// Drop the beginning: the last ids stay.
    Left,
}

/// A text's ids and nothing else; pairs are put together by a [`Recipe`](super::Recipe).
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pub(crate) truncation_side: Side,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `truncation_side` from the `tokenizer_config.json` beside it if there is one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if either is not what it should be.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| Error::checkpoint(path, format!("not a tokenizer: {e}")))?;
        // A published file may carry the settings of its last training run.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::checkpoint(path, e.to_string()))?;
        let truncation_side = read_truncation_side(&path.with_file_name("tokenizer_config.json"))?;
        Ok(Self { inner, path: path.to_owned(), truncation_side })
    }

    /// The ids of `text` alone. Special tokens that occur literally in it are recognised.
    pub(crate) fn encode(&self, text: &str) -> std::result::Result<Vec<u32>, String> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(format!("cannot be tokenized: {e}")),
        }
    }

    /// The id of a token that a recipe needs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the vocabulary does not have it.
    pub(crate) fn id(&self, token: &str) -> Result<u32> {
        self.inner.token_to_id(token).ok_or_else(|| self.error(format!("token {token} is not in the vocabulary")))
    }

    /// One more than the largest id that can come out.
    pub(crate) fn id_limit(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, message)
    }
}

fn read_truncation_side(path: &Path) -> Result<Side> {
    if !path.exists() {
        return Ok(Side::default());
    }
    let text = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    let config: Value =
        serde_json::from_slice(&text).map_err(|e| Error::checkpoint(path, format!("not valid JSON: {e}")))?;
    match config.get("truncation_side") {
        None | Some(Value::Null) => Ok(Side::default()),
        Some(Value::String(side)) if side == "right" => Ok(Side::Right),
        Some(Value::String(side)) if side == "left" => Ok(Side::Left),
        Some(other) => Err(Error::checkpoint(path, format!("truncation_side is {other}, expected right or left"))),
    }
}
