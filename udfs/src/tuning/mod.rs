//! The token budget of batches: measured on the device, kept in the cache.

mod probe;
pub(crate) mod record;
mod sample;

pub(crate) use probe::best;
pub(crate) use record::BatchKey;
pub(crate) use sample::tune;
