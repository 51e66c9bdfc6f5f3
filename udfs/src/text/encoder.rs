//! Encodes texts as ids, under the options of a call.

use std::borrow::Cow;

use super::recipe::Recipe;
use super::tokenizer::{Tokenizer, TruncationSide, Untokenizable};
use super::truncation::{only_second, truncate};
use crate::error::Result;
use crate::options::ScoreOptions;

const DEFAULT_MAX_LENGTH: usize = 512;

/// Special tokens of an encoder's pair.
const SPECIAL: usize = 4;

/// A query or a passage: its ids, cut to its own maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedText {
    pub(crate) ids: Box<[u32]>,
    pub(crate) truncated: bool,
}

/// A pair as the model sees it, unpadded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedPair {
    pub(crate) ids: Box<[u32]>,
    /// Ids of the query, with its instruction, without special tokens.
    pub(crate) query_tokens: u32,
    /// Ids of the passage, with its instruction.
    pub(crate) passage_tokens: u32,
    /// Leading ids that are never compressed: bos, query and separator.
    pub(crate) head_tokens: u32,
    /// Trailing ids that are never compressed: separator and prompt.
    pub(crate) tail_tokens: u32,
    /// Whether the query or the passage was cut.
    pub(crate) truncated: bool,
}

/// What an instruction and its format put before and after a text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    before: String,
    after: String,
}

impl Frame {
    /// `format.format(instruction, text)`. A backslash and n in the format stand for a newline.
    fn new(instruction: Option<&str>, format: Option<&str>) -> Self {
        let Some(instruction) = instruction else {
            return Self { before: String::new(), after: String::new() };
        };
        let format = format.unwrap_or("{}{}").replace("\\n", "\n");
        let mut parts = format.splitn(3, "{}");
        let mut part = || parts.next().unwrap_or_default();
        let (before, between, after) = (part(), part(), part());
        Self { before: format!("{before}{instruction}{between}"), after: after.to_owned() }
    }

    fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.before.is_empty() && self.after.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned([&self.before, text, &self.after].concat())
    }
}

/// Encodes queries, passages and pairs for one model and one set of options.
#[derive(Debug)]
pub(crate) struct PairEncoder {
    recipe: Recipe,
    query: Frame,
    passage: Frame,
    query_max_length: usize,
    max_length: usize,
    prompt: Vec<u32>,
    side: TruncationSide,
}

impl PairEncoder {
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if the prompt cannot be tokenized.
    pub(crate) fn new(recipe: Recipe, tokenizer: &Tokenizer, options: &ScoreOptions) -> Result<Self> {
        let (query_default, passage_default, prompt) = match &recipe {
            Recipe::Encoder { .. } => (None, None, Vec::new()),
            Recipe::Decoder { query_instruction, passage_instruction, prompt, .. } => {
                let prompt = options.prompt.as_deref().unwrap_or(prompt);
                let prompt = tokenizer.encode(prompt).map_err(|e| tokenizer.error(format!("the prompt {e}")))?;
                (Some(*query_instruction), Some(*passage_instruction), prompt)
            }
        };
        let max_length = options.max_length.unwrap_or(DEFAULT_MAX_LENGTH);
        Ok(Self {
            query: Frame::new(
                options.query_instruction.as_deref().or(query_default),
                options.query_instruction_format.as_deref(),
            ),
            passage: Frame::new(
                options.passage_instruction.as_deref().or(passage_default),
                options.passage_instruction_format.as_deref(),
            ),
            query_max_length: options.query_max_length.unwrap_or(max_length.saturating_mul(3) / 4),
            max_length,
            prompt,
            side: tokenizer.truncation_side,
            recipe,
        })
    }

    /// The ids of one query, at most `query_max_length`.
    pub(crate) fn query(&self, tokenizer: &Tokenizer, text: &str) -> Result<EncodedText, Untokenizable> {
        self.text(tokenizer, &self.query, self.query_max_length, text)
    }

    /// The ids of one passage, at most `max_length`.
    pub(crate) fn passage(&self, tokenizer: &Tokenizer, text: &str) -> Result<EncodedText, Untokenizable> {
        self.text(tokenizer, &self.passage, self.max_length, text)
    }

    fn text(&self, tokenizer: &Tokenizer, frame: &Frame, max: usize, text: &str) -> Result<EncodedText, Untokenizable> {
        let mut ids = tokenizer.encode(&frame.apply(text))?;
        let truncated = truncate(&mut ids, max, self.side);
        Ok(EncodedText { ids: ids.into_boxed_slice(), truncated })
    }

    /// Joins a query and a passage that were encoded by this encoder.
    pub(crate) fn pair(&self, query: &EncodedText, passage: &EncodedText) -> EncodedPair {
        let truncated = query.truncated || passage.truncated;
        let mut pair = match &self.recipe {
            Recipe::Encoder { cls, sep, max_tokens } => self.encoder_pair(*cls, *sep, *max_tokens, query, passage),
            Recipe::Decoder { bos, separator, .. } => self.decoder_pair(*bos, separator, query, passage),
        };
        pair.truncated |= truncated;
        pair
    }

    fn encoder_pair(
        &self,
        cls: u32,
        sep: u32,
        max_tokens: Option<usize>,
        query: &EncodedText,
        passage: &EncodedText,
    ) -> EncodedPair {
        let mut keep_query = query.ids.len();
        let mut keep_passage = only_second(keep_query, passage.ids.len(), SPECIAL, self.max_length);
        // The reference crashes beyond its position table. Here the passage is cut, then the query.
        if let Some(max) = max_tokens {
            let room = max.saturating_sub(SPECIAL);
            keep_passage = keep_passage.min(room.saturating_sub(keep_query));
            keep_query = keep_query.min(room);
        }
        let query_ids = self.keep(&query.ids, keep_query);
        let passage_ids = self.keep(&passage.ids, keep_passage);
        let ids = [&[cls], query_ids, &[sep, sep], passage_ids, &[sep]].concat();
        EncodedPair {
            ids: ids.into_boxed_slice(),
            query_tokens: keep_query as u32,
            passage_tokens: keep_passage as u32,
            head_tokens: keep_query as u32 + 3,
            tail_tokens: 1,
            truncated: keep_query < query.ids.len() || keep_passage < passage.ids.len(),
        }
    }

    /// An upper bound of a pair's ids. A query that leaves the passage no room is not cut, and neither is the passage
    /// then: see [`only_second`].
    pub(crate) fn longest(&self) -> usize {
        let (before, separator, tail) = match &self.recipe {
            Recipe::Encoder { .. } => (SPECIAL, 0, 0),
            Recipe::Decoder { bos, separator, .. } => {
                (usize::from(bos.is_some()), separator.len(), separator.len() + self.prompt.len())
            }
        };
        let limit = self.max_length.saturating_add(tail);
        let query = self.query_max_length.saturating_add(before);
        let pair = if query < limit { limit } else { query.saturating_add(separator).saturating_add(self.max_length) };
        pair.saturating_add(tail)
    }

    /// The pair is cut **before** separator and prompt are appended, to `max_length` plus their length. The longest
    /// sequence therefore has `max_length + 2 * (separator + prompt)` ids.
    /// (`BaseLLMReranker.compute_score_single_gpu`, FlagEmbedding 1.4.2, `decoder_only/base.py`)
    fn decoder_pair(
        &self,
        bos: Option<u32>,
        separator: &[u32],
        query: &EncodedText,
        passage: &EncodedText,
    ) -> EncodedPair {
        let tail = separator.len() + self.prompt.len();
        let bos = bos.as_slice();
        let first = bos.len() + query.ids.len();
        let second = separator.len() + passage.ids.len();
        let kept = only_second(first, second, 0, self.max_length.saturating_add(tail));
        let mut second_ids = [separator, &passage.ids].concat();
        let truncated = truncate(&mut second_ids, kept, self.side);
        let ids = [bos, &query.ids, &second_ids, separator, &self.prompt].concat();
        EncodedPair {
            ids: ids.into_boxed_slice(),
            query_tokens: query.ids.len() as u32,
            passage_tokens: kept.saturating_sub(separator.len()) as u32,
            head_tokens: (first + separator.len()) as u32,
            tail_tokens: tail as u32,
            truncated,
        }
    }

    fn keep<'a>(&self, ids: &'a [u32], keep: usize) -> &'a [u32] {
        match self.side {
            TruncationSide::Right => &ids[..keep],
            TruncationSide::Left => &ids[ids.len() - keep..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(max_length: usize, max_tokens: Option<usize>) -> PairEncoder {
        PairEncoder {
            recipe: Recipe::Encoder { cls: 0, sep: 2, max_tokens },
            query: Frame::new(None, None),
            passage: Frame::new(None, None),
            query_max_length: max_length,
            max_length,
            prompt: Vec::new(),
            side: TruncationSide::Right,
        }
    }

    fn text(ids: std::ops::Range<u32>) -> EncodedText {
        EncodedText { ids: ids.collect(), truncated: false }
    }

    #[test]
    fn encoder_pair_has_two_separators() {
        let pair = encoder(512, None).pair(&text(10..12), &text(20..23));
        assert_eq!(*pair.ids, [0, 10, 11, 2, 2, 20, 21, 22, 2]);
        assert_eq!((pair.query_tokens, pair.passage_tokens, pair.truncated), (2, 3, false));
        assert_eq!(*encoder(512, None).pair(&text(0..0), &text(0..0)).ids, [0, 2, 2, 2]);
        let encoder = encoder(8, None);
        for query in [3, 8] {
            assert!(encoder.pair(&text(10..10 + query), &text(20..28)).ids.len() <= encoder.longest());
        }
        assert_eq!(encoder.pair(&text(10..18), &text(20..28)).ids.len(), encoder.longest());
    }

    #[test]
    fn beyond_the_position_table_the_passage_gives_way_then_the_query() {
        let pair = encoder(8, Some(8)).pair(&text(10..13), &text(20..22));
        assert_eq!(*pair.ids, [0, 10, 11, 12, 2, 2, 20, 2]);
        assert!(pair.truncated);
        let pair = encoder(8, Some(8)).pair(&text(10..16), &text(20..22));
        assert_eq!(*pair.ids, [0, 10, 11, 12, 13, 2, 2, 2]);
        assert!(pair.truncated);
    }

    #[test]
    fn decoder_pair_is_cut_before_its_tail_is_appended() {
        let decoder = PairEncoder {
            recipe: Recipe::Decoder {
                bos: Some(1),
                separator: vec![8, 9],
                query_instruction: "",
                passage_instruction: "",
                prompt: "",
            },
            prompt: vec![50, 51],
            ..encoder(6, None)
        };
        let pair = decoder.pair(&text(10..13), &text(20..30));
        // max_length 6 + tail 4 = 10 ids: bos, 3 of the query, 2 of the separator, 4 of the passage; then the tail.
        assert_eq!(*pair.ids, [1, 10, 11, 12, 8, 9, 20, 21, 22, 23, 8, 9, 50, 51]);
        assert_eq!((pair.passage_tokens, pair.head_tokens, pair.tail_tokens), (4, 6, 4));
        assert!(pair.truncated);
        assert_eq!(decoder.longest(), pair.ids.len());
        let decoder = PairEncoder { query_max_length: 20, ..decoder };
        let pair = decoder.pair(&text(10..30), &text(40..46));
        assert_eq!((pair.ids.len(), pair.passage_tokens), (decoder.longest(), 6));
    }

    #[test]
    fn formats_join_instruction_and_text() {
        let frame = Frame::new(Some("Find"), Some("<{}>\\n{}!"));
        assert_eq!(frame.apply("a{}\\n"), "<Find>\na{}\\n!");
        assert_eq!(Frame::new(None, Some("<{}>{}")).apply("a"), "a");
    }
}
