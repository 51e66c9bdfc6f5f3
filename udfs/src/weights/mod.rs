//! Weights in another precision than the checkpoint's: made once, kept in a folder.

mod cache;
mod conversion;
mod quantization;

pub(crate) use cache::{BATCHES_EXTENSION, Origin};
pub use cache::{BatchMeasurement, CachedWeights, WeightsCache};
pub(crate) use conversion::{OnProgress, convert};
