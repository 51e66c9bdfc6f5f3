//! Weights in a precision other than the checkpoint's: converted once, into a cache folder.

mod cache;
mod conversion;
mod quantization;

pub(crate) use cache::{AdapterOrigin, BATCHES_EXTENSION, Origin};
pub use cache::{BatchMeasurement, CachedWeights, WeightsCache};
pub(crate) use conversion::{OnProgress, convert};
