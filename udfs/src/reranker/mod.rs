//! The Arrow API: an opened model with the options of a call, and what it scores.

mod builder;
#[cfg(feature = "datafusion")]
mod score_cache;
mod scoring;
#[cfg(feature = "datafusion")]
mod scoring_once;

pub use builder::Reranker;
#[cfg(feature = "datafusion")]
pub(crate) use score_cache::{Budget, ScoreCache};
