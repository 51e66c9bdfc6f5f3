//! How a model is run.

use std::path::PathBuf;

use super::Devices;
use crate::error::{Error, Result};
use crate::options::MAX_COUNT;

/// How a model is run: devices, threads, batches and the cache. Changes scores by rounding only.
///
/// ```
/// use datafusion_rerank::EngineOptions;
///
/// let options = EngineOptions::default().with_devices("cuda:0,1".parse::<datafusion_rerank::Devices>()?);
/// # Ok::<(), datafusion_rerank::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Where the model runs. Default: the CPU.
    pub devices: Devices,
    /// Threads of the CPU device, at least 1. Default: all cores that the process may use.
    pub threads: Option<usize>,
    /// Token budget of a device batch, padding included, at least 1. Default: what
    /// [`Model::tune_batches`](crate::Model::tune_batches) measured, or else 512 per thread on the CPU, 16,384 on a
    /// GPU.
    pub batch_tokens: Option<usize>,
    /// Folder for weights converted to another [`Precision`](crate::Precision) and for batch measurements. Default: the
    /// variable `RERANK_CACHE`, or else `rerank` in the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl EngineOptions {
    /// Sets [`devices`](field@Self::devices): a [`Device`](crate::Device) or several [`Devices`].
    #[must_use]
    pub fn with_devices(self, devices: impl Into<Devices>) -> Self {
        Self { devices: devices.into(), ..self }
    }

    /// Sets [`threads`](field@Self::threads).
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// Sets [`batch_tokens`](field@Self::batch_tokens).
    #[must_use]
    pub fn with_batch_tokens(self, batch_tokens: usize) -> Self {
        Self { batch_tokens: Some(batch_tokens), ..self }
    }

    /// Sets [`cache`](field@Self::cache).
    #[must_use]
    pub fn with_cache(self, folder: impl Into<PathBuf>) -> Self {
        Self { cache: Some(folder.into()), ..self }
    }

    /// Checks the values. Opening a model does so too.
    ///
    /// # Errors
    /// [`Error::Option`] for no threads, or batches of no tokens.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("threads", self.threads), ("batch_tokens", self.batch_tokens)] {
            match value {
                Some(0) => return Err(Error::option(name, "expected a whole number of at least 1, got 0")),
                Some(count) if count as u64 > MAX_COUNT => {
                    let message = format!("expected a whole number of at most {MAX_COUNT}, got {count}");
                    return Err(Error::option(name, message));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The default token budget, if neither the caller nor a measurement sets one.
    pub(crate) fn usual_batch_tokens(&self) -> usize {
        self.devices.usual_batch_tokens(self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Reranker};

    #[test]
    fn setters_reach_their_fields() {
        let options =
            EngineOptions::default().with_devices(Device::Cuda(1)).with_threads(2).with_batch_tokens(3).with_cache("c");
        let expected = EngineOptions {
            devices: Device::Cuda(1).into(),
            threads: Some(2),
            batch_tokens: Some(3),
            cache: Some("c".into()),
        };
        assert_eq!(options, expected);
        options.validate().unwrap();
    }

    #[test]
    fn a_model_is_not_opened_without_threads_or_tokens() {
        for (name, options) in [
            ("threads", EngineOptions::default().with_threads(0)),
            ("batch_tokens", EngineOptions::default().with_batch_tokens(0)),
        ] {
            let error = Reranker::open("anywhere", &options).unwrap_err().to_string();
            assert_eq!(error, format!("option {name}: expected a whole number of at least 1, got 0"));
        }
        let error = Reranker::open("anywhere", &EngineOptions::default().with_threads(usize::MAX)).unwrap_err();
        let expected = format!("option threads: expected a whole number of at most 2147483647, got {}", usize::MAX);
        assert_eq!(error.to_string(), expected);
    }
}
