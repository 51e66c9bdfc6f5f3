//! Models by name, each opened once per process.

mod names;
mod opened;

pub(crate) use names::DEFAULT_MAX_MODELS;
pub use names::ModelRegistry;
