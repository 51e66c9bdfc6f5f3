//! Measured token budgets, kept in the cache folder beside the weights.
//!
//! One small JSON file for each checkpoint, kind of device and precision: `<fingerprint>-<device>-<precision>.batches`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::probe::Measured;
use crate::engine::Devices;
use crate::error::{Error, Result};
use crate::options::Precision;
use crate::weights::{BATCHES_EXTENSION, WeightsCache};

/// What the fastest batch size depends on.
#[derive(Debug)]
pub(crate) struct BatchKey<'a> {
    /// The checkpoint's.
    pub(crate) fingerprint: &'a str,
    pub(crate) devices: &'a Devices,
    /// Threads of the CPU.
    pub(crate) threads: usize,
    pub(crate) precision: Precision,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    batch_tokens: usize,
    /// Tokens per second by tokens of a batch.
    tokens_per_second: BTreeMap<usize, f64>,
}

/// The token budget measured for `key`, if any. A file that cannot be read counts as none.
pub(crate) fn read(cache: &WeightsCache, key: &BatchKey<'_>) -> Option<usize> {
    let json = std::fs::read(file(cache, key)).ok()?;
    let record: Record = serde_json::from_slice(&json).ok()?;
    (record.batch_tokens > 0).then_some(record.batch_tokens)
}

/// Stores the measurements for `key`.
///
/// # Errors
/// [`Error::Io`] if the cache cannot be written.
pub(crate) fn write(
    cache: &WeightsCache,
    key: &BatchKey<'_>,
    batch_tokens: usize,
    measured: &[Measured],
) -> Result<()> {
    let tokens_per_second = measured.iter().map(|size| (size.batch_tokens, size.tokens_per_second.round())).collect();
    let place = file(cache, key);
    let unfinished = cache.begin()?;
    serde_json::to_writer(&unfinished, &Record { batch_tokens, tokens_per_second })
        .map_err(|error| Error::io(&place, error.into()))?;
    unfinished.persist(&place).map_err(|error| Error::io(&place, error.error))?;
    Ok(())
}

fn file(cache: &WeightsCache, key: &BatchKey<'_>) -> PathBuf {
    let BatchKey { fingerprint, devices, threads, precision } = key;
    // All GPUs of a machine count as equally fast.
    let device = if devices.is_cpu() { format!("cpu{threads}") } else { "cuda".to_owned() };
    cache.folder().join(format!("{fingerprint}-{device}-{precision}.{BATCHES_EXTENSION}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_remembered_by_what_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let cache = WeightsCache::open(Some(&folder.path().join("cache"))).unwrap();
        let (cpu, gpus) = (Devices::default(), "cuda:1,3".parse().unwrap());
        let key = |fingerprint, devices, threads, precision| BatchKey { fingerprint, devices, threads, precision };
        let mine = key("abc", &cpu, 4, Precision::Fp32);
        assert_eq!(read(&cache, &mine), None);
        let rate = |batch_tokens, tokens_per_second| Measured { batch_tokens, tokens_per_second };
        write(&cache, &mine, 512, &[rate(256, 90.0), rate(512, 100.4)]).unwrap();
        assert_eq!(read(&cache, &mine), Some(512));
        for other in [
            key("abd", &cpu, 4, Precision::Fp32),
            key("abc", &cpu, 2, Precision::Fp32),
            key("abc", &cpu, 4, Precision::Int8),
            key("abc", &gpus, 4, Precision::Fp32),
        ] {
            assert_eq!(read(&cache, &other), None, "{other:?}");
        }
        let measurements = cache.measurements().unwrap();
        assert_eq!(measurements.len(), 1);
        assert_eq!(measurements[0].fingerprint, "abc");
        assert_eq!(
            std::fs::read_to_string(&measurements[0].file).unwrap(),
            r#"{"batch_tokens":512,"tokens_per_second":{"256":90.0,"512":100.0}}"#
        );
        assert_eq!(cache.weights().unwrap(), [], "it is no weights");
        std::fs::write(&measurements[0].file, "{").unwrap();
        assert_eq!(read(&cache, &mine), None);
    }
}
