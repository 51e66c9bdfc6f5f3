//! Turns a query and a passage into the token ids that the model reads: exactly the reference's ids, odd cases
//! included.

mod encoder;
mod recipe;
mod settings;
mod tokenizer;
mod truncation;

pub(crate) use encoder::{EncodedPair, EncodedText, PairEncoder};
pub(crate) use recipe::Recipe;
pub(crate) use tokenizer::{Tokenizer, Untokenizable};
