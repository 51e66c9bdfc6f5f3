//! Models by name, each opened once per process.

#[cfg(feature = "bundled")]
mod bundled;
mod names;
mod opened;

#[cfg(feature = "bundled")]
pub use bundled::BUNDLED_MODEL;
#[cfg(feature = "datafusion")]
pub(crate) use names::DEFAULT_MAX_MODELS;
pub use names::ModelRegistry;
