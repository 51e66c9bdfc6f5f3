//! From a query and a passage to the token ids a model is fed: the reference's ids exactly, odd corners included.

mod encoder;
mod recipe;
mod tokenizer;
mod truncation;

pub(crate) use encoder::{EncodedPair, EncodedText, PairEncoder};
pub(crate) use recipe::Recipe;
pub(crate) use tokenizer::{Tokenizer, Untokenizable};
