//! How a family joins a query and a passage.

use super::Tokenizer;
use crate::error::Result;

/// The fixed parts of a family's input, with the checkpoint's own ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Recipe {
    /// `<cls> query <sep><sep> passage <sep>`; in XLM-RoBERTa `<s>` and `</s>`.
    Encoder {
        cls: u32,
        sep: u32,
        /// Longest sequence that the position table allows.
        max_tokens: Option<usize>,
    },
    /// `<bos> query \n passage \n prompt`; all parts are tokenized separately.
    Decoder {
        /// `None` where the reference omits it.
        bos: Option<u32>,
        /// Ids of a newline; some tokenizers need more than one.
        separator: Vec<u32>,
        query_instruction: &'static str,
        passage_instruction: &'static str,
        prompt: &'static str,
    },
}

impl Recipe {
    /// `class` is the tokenizer's class if its own settings name none.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if a token is missing, or the reference joins pairs in another
    /// way.
    pub(crate) fn encoder(tokenizer: &Tokenizer, class: Option<&str>, max_tokens: Option<usize>) -> Result<Self> {
        tokenizer.check_pairs(class)?;
        Ok(Self::Encoder { cls: tokenizer.cls()?, sep: tokenizer.sep()?, max_tokens })
    }

    pub(crate) fn decoder(tokenizer: &Tokenizer, bos: Option<u32>, prompt: &'static str) -> Result<Self> {
        let separator = tokenizer.encode("\n").map_err(|e| tokenizer.error(format!("a newline {e}")))?;
        Ok(Self::Decoder { bos, separator, query_instruction: "A: ", passage_instruction: "B: ", prompt })
    }
}
