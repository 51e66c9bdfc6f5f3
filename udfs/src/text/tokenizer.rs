//! The checkpoint's own tokenizer, without its truncation, padding and special tokens.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{AddedToken, TruncationDirection};

use super::settings::{EXTRA_SPECIAL_TOKENS, Named, Settings};
use crate::checkpoint::{CheckpointPart, TOKENIZER_FILE, standard_json};
use crate::error::{Error, Result};

/// Classes that join pairs as XLM-RoBERTa does, without `Fast`.
const PAIR_CLASSES: [&str; 4] = ["XLMRobertaTokenizer", "RobertaTokenizer", "CamembertTokenizer", "BartTokenizer"];

/// The class of transformers 5 that joins pairs as the post-processor says. That of transformers 4,
/// `PreTrainedTokenizerFast`, does so for texts, but not for ids, which the reference gives it.
const GENERAL_CLASS: &str = "TokenizersBackend";

/// What SentencePiece writes for a space.
const SPACE: char = '▁';

/// Which end of a text is cut when it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// A token's id, or why there is none.
type SpecialToken = Result<u32, String>;

/// Encodes a text as its ids and nothing else; a [`Recipe`](super::Recipe) assembles pairs.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pub(crate) truncation_side: TruncationSide,
    /// The class that the reference uses, if the settings name one.
    class: Option<String>,
    bos: SpecialToken,
    cls: SpecialToken,
    sep: SpecialToken,
    /// The padding token, if the settings name one.
    pub(crate) pad: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and the settings beside it, as transformers does. Also returns what became of each file
    /// and key.
    ///
    /// A special token comes from `special_tokens_map.json` or `tokenizer_config.json`. If neither names it, it is the
    /// one that the post-processor of `tokenizer.json` puts at the place that it is for, where transformers takes its
    /// class's default.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a file is invalid, or holds something that may change ids and is not known.
    pub(crate) fn read(folder: &Path) -> Result<(Self, Vec<CheckpointPart>)> {
        let path = folder.join(TOKENIZER_FILE);
        let bytes = std::fs::read(&path).map_err(|source| Error::io(&path, source))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(standard_json(&bytes))
            .map_err(|e| Error::checkpoint(&path, format!("not a tokenizer: {e}")))?;
        // A published file may still hold the settings of its last training run. What lasts is the direction
        // and the padding token.
        let direction = inner.get_truncation().map(|truncation| truncation.direction);
        let padding = inner.get_padding().map(|padding| padding.pad_token.clone());
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::checkpoint(&path, e.to_string()))?;

        let settings = Settings::read(folder)?;
        add_tokens(&mut inner, &path, &settings)?;
        inner.set_encode_special_tokens(settings.splits_special_tokens()?);
        let truncation_side = match settings.truncation_side()? {
            Some("left") => TruncationSide::Left,
            None if direction == Some(TruncationDirection::Left) => TruncationSide::Left,
            _ => TruncationSide::Right,
        };

        let outer = Outer::of(&inner);
        let token = |key: &str, outer: Option<u32>| -> Result<SpecialToken> {
            Ok(match settings.token(key)? {
                Named::Token(token) => Ok(known(&inner, &path, key, &token)?),
                Named::Nothing(file) => Err(format!("there is no {key}: {file} sets it to null; name a token there")),
                Named::Unnamed => outer.ok_or_else(|| {
                    format!(
                        "there is no {key}: no file names one, and the post-processor puts none in its place; add \
                         \"{key}\" to tokenizer_config.json"
                    )
                }),
            })
        };
        let (bos, cls) = (token("bos_token", outer.first)?, token("cls_token", outer.first)?);
        let padding = padding.and_then(|padding| inner.token_to_id(&padding));
        let (sep, pad) = (token("sep_token", outer.last)?, token("pad_token", padding)?.ok());
        let class = settings.class()?.map(str::to_owned);
        let tokenizer = Self { inner, path, truncation_side, class, bos, cls, sep, pad };
        if let Some(adds) = settings.adds_prefix_space()? {
            tokenizer.check_prefix_space(adds)?;
        }
        let mut account = vec![CheckpointPart::of_file(TOKENIZER_FILE, None)];
        account.extend(settings.account()?);
        Ok((tokenizer, account))
    }

    /// The token that begins a decoder's sequence.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none.
    pub(crate) fn bos(&self) -> Result<u32> {
        self.required(&self.bos)
    }

    /// The token that begins an encoder's sequence.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none.
    pub(crate) fn cls(&self) -> Result<u32> {
        self.required(&self.cls)
    }

    /// Checks that the tokenizer's class, or else `other`, joins pairs as XLM-RoBERTa does.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a class whose pairs are others: the reference would score other sequences.
    pub(crate) fn check_pairs(&self, other: Option<&str>) -> Result<()> {
        let Some(class) = self.class.as_deref().or(other) else { return Ok(()) };
        if PAIR_CLASSES.contains(&class.strip_suffix("Fast").unwrap_or(class)) {
            return Ok(());
        }
        if class == GENERAL_CLASS {
            let ids = |text| self.encode(text).map_err(|e| self.error(format!("'{text}' {e}")));
            let (cls, sep, a, b) = (self.cls()?, self.sep()?, ids("a")?, ids("b c")?);
            let pair = self.inner.encode_fast(("a", "b c"), true).map_err(|e| self.error(format!("'a', 'b c' {e}")))?;
            if pair.get_ids() == [&[cls], &*a, &[sep, sep], &*b, &[sep]].concat() {
                return Ok(());
            }
        }
        Err(self.error(format!(
            "tokenizer_class is {class}, with which the reference does not join pairs as XLM-RoBERTa does; if the model was \
             trained on such pairs, set tokenizer_class to XLMRobertaTokenizer in tokenizer_config.json"
        )))
    }

    /// The token that ends a text of an encoder's sequence.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none.
    pub(crate) fn sep(&self) -> Result<u32> {
        self.required(&self.sep)
    }

    fn required(&self, token: &SpecialToken) -> Result<u32> {
        token.clone().map_err(|reason| self.error(reason))
    }

    /// Refuses a setting that contradicts `tokenizer.json`: the reference would build another tokenizer.
    fn check_prefix_space(&self, adds: bool) -> Result<()> {
        let encoding = self.inner.encode_fast("a", false).map_err(|e| self.error(format!("'a' {e}")))?;
        let is_added = encoding.get_ids().first().and_then(|id| self.inner.id_to_token(*id));
        let is_added = is_added.is_some_and(|token| token.starts_with(SPACE));
        if adds == is_added {
            return Ok(());
        }
        let does = if is_added { "puts" } else { "does not put" };
        Err(self.error(format!(
            "it {does} a space before a text, though tokenizer_config.json says add_prefix_space {adds}; save the \
             tokenizer again (`tokenizer.save_pretrained`)"
        )))
    }

    /// The ids of `text` alone. Special tokens that occur literally in it are encoded as such, unless the settings
    /// split them.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Untokenizable> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(Untokenizable(e.to_string())),
        }
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

/// Adds the tokens of the settings that `tokenizer.json` lacks or has with other properties.
/// (`PreTrainedTokenizerFast.__init__`, transformers 4.46.3, `tokenization_utils_fast.py`)
fn add_tokens(inner: &mut tokenizers::Tokenizer, path: &Path, settings: &Settings) -> Result<()> {
    let of_file = inner.get_added_tokens_decoder();
    let mut known_tokens: Vec<AddedToken> = of_file.values().cloned().collect();
    let mut new = Vec::new();
    for (id, token) in settings.added_tokens()? {
        // Only complete settings override the properties that `tokenizer.json` gives a token. Its id is that of
        // `tokenizer.json` in any case.
        let is_overridden = !settings.is_complete() && of_file.contains_key(&id);
        if !is_overridden && !known_tokens.contains(&token) {
            known(inner, path, "added token", &token.content)?;
            known_tokens.push(token.clone());
            new.push(token);
        }
    }
    for (key, token) in settings.special_tokens()? {
        if !known_tokens.iter().any(|known| known.content == token.content) {
            if key == EXTRA_SPECIAL_TOKENS {
                let message = format!(
                    "{key} of the settings has {}, which is not among the added tokens; versions of transformers differ on \
                     whether it is special; save the tokenizer again (`tokenizer.save_pretrained`)",
                    token.content
                );
                return Err(Error::checkpoint(path, message));
            }
            known(inner, path, key, &token.content)?;
            known_tokens.push(token.clone());
            new.push(token);
        }
    }
    if !new.is_empty() {
        inner.add_tokens(new).map_err(|e| Error::checkpoint(path, format!("tokens cannot be added: {e}")))?;
    }
    Ok(())
}

/// The id of a token that the settings name.
///
/// # Errors
/// [`Error::Checkpoint`] if the vocabulary does not have it: its id would be a guess.
fn known(inner: &tokenizers::Tokenizer, path: &Path, what: &str, token: &str) -> Result<u32> {
    inner.token_to_id(token).ok_or_else(|| {
        Error::checkpoint(
            path,
            format!("the vocabulary lacks {what} of the settings, {token}; save the tokenizer again (`tokenizer.save_pretrained`)"),
        )
    })
}

/// The special tokens that the post-processor puts first and last around a single text.
#[derive(Debug, Default)]
struct Outer {
    first: Option<u32>,
    last: Option<u32>,
}

impl Outer {
    fn of(inner: &tokenizers::Tokenizer) -> Self {
        // The fields of a post-processor are private, but for their form in `tokenizer.json`.
        let json = inner.get_post_processor().and_then(|processor| serde_json::to_value(processor).ok());
        json.as_ref().map(Self::of_json).unwrap_or_default()
    }

    fn of_json(processor: &Value) -> Self {
        let pair = |key: &str| processor[key][1].as_u64().and_then(|id| u32::try_from(id).ok());
        match processor["type"].as_str() {
            Some("TemplateProcessing") => {
                let special = |piece: Option<&Value>| {
                    let name = piece?["SpecialToken"]["id"].as_str()?;
                    processor["special_tokens"][name]["ids"][0].as_u64().and_then(|id| u32::try_from(id).ok())
                };
                let pieces = processor["single"].as_array();
                Self {
                    first: special(pieces.and_then(|pieces| pieces.first())),
                    last: special(pieces.and_then(|pieces| pieces.last())),
                }
            }
            Some("BertProcessing" | "RobertaProcessing") => Self { first: pair("cls"), last: pair("sep") },
            Some("Sequence") => {
                let of_parts = processor["processors"].as_array().into_iter().flatten().map(Self::of_json);
                of_parts.fold(Self::default(), |outer, part| Self {
                    first: part.first.or(outer.first),
                    last: part.last.or(outer.last),
                })
            }
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn post_processors_tell_the_outer_tokens() {
        let outer = |processor: Value| {
            let Outer { first, last } = Outer::of_json(&processor);
            (first, last)
        };
        let special = json!({"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"ids": [2]}});
        let (bos, text, eos) = (
            json!({"SpecialToken": {"id": "<s>"}}),
            json!({"Sequence": {"id": "A"}}),
            json!({"SpecialToken": {"id": "</s>"}}),
        );
        let template =
            |single: Value| json!({"type": "TemplateProcessing", "single": single, "special_tokens": special});
        assert_eq!(outer(template(json!([bos, text, eos]))), (Some(1), Some(2)));
        assert_eq!(outer(template(json!([bos, text]))), (Some(1), None));
        assert_eq!(outer(template(json!([text]))), (None, None));
        let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true});
        assert_eq!(outer(roberta.clone()), (Some(0), Some(2)));
        let sequence = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, roberta]});
        assert_eq!(outer(sequence), (Some(0), Some(2)));
        assert_eq!(outer(json!({"type": "ByteLevel"})), (None, None));
    }
}
