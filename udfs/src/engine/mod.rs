//! Pairs in, scores out: tokenization in parallel, exact repeats scored once, batches cut by tokens, devices kept busy.
//!
//! ```text
//! rows ──> Encoded::new ───> cut ──> queue ──> Worker::work ──> Window::finish_batch ──> scores in row order
//!          (distinct texts,  (pure)            (one or two      (last batch
//!           ids, on rayon)                      per device)      calls back)
//! ```
//!
//! A batch that does not fit into the device's memory is split ([`backoff`]), down to single pairs.
//!
//! A window is the set of rows that are sorted by length together. Batches never mix windows, so the scores of a window
//! depend neither on what else is being scored nor on timing.

mod activity;
mod backoff;
mod batch;
mod cuda;
mod device;
mod encoding;
mod kernels;
mod library;
mod options;
mod pool;
mod session;
mod stats;
mod texts;
mod window;
mod worker;

#[cfg(test)]
pub(crate) use activity::Submitted;
pub(crate) use activity::{Activity, Load};
pub use cuda::GpuMemory;
pub use device::{Device, Devices};
pub(crate) use encoding::run_on_encoding_thread;
pub use library::{allow_onnxruntime_search, environment, set_environment};
pub use options::EngineOptions;
pub(crate) use pool::{Engine, EngineSpec};
pub(crate) use session::{Program, check_device};
pub use stats::ScoreStats;
pub use texts::is_text;
pub(crate) use texts::texts;
pub(crate) use window::{Cancel, Encoded, RowScore, WindowScores};
