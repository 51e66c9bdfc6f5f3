//! The Arrow API: an opened model with the options of a call, and what it scores.

mod builder;
mod scoring;

pub use builder::Reranker;
