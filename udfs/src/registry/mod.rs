//! Models by name, each opened once per process.

mod names;
mod opened;

#[cfg(feature = "datafusion")]
pub(crate) use names::DEFAULT_MAX_MODELS;
pub use names::ModelRegistry;
