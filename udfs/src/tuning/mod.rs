//! How many tokens a batch should have: measured on the device, remembered in the cache.

mod probe;
pub(crate) mod record;
mod sample;

pub(crate) use probe::{Measured, best};
pub(crate) use record::BatchKey;
pub(crate) use sample::tune;
