//! The token budget of a model's batches.

use super::facts::Model;
use crate::engine::Encoded;
use crate::error::Result;
use crate::options::ScoreOptions;
use crate::tuning::{BatchKey, best, record, tune};
use crate::weights::WeightsCache;

impl Model {
    /// The token budget of a device batch, padding included: [`EngineOptions::batch_tokens`] if it is set, otherwise
    /// what was measured for this model, device and precision, otherwise the default for the device.
    ///
    /// [`EngineOptions::batch_tokens`]: crate::EngineOptions::batch_tokens
    pub fn batch_tokens(&self) -> usize {
        let options = self.engine_options();
        options.batch_tokens.or_else(|| self.measured_batch_tokens()).unwrap_or_else(|| options.usual_batch_tokens())
    }

    /// [`Self::batch_tokens`], from the engine if it is loaded, so that the cache is not read again.
    pub(crate) fn batch_tokens_in_force(&self) -> usize {
        let engine = self.opened.engines.loaded(&self.graph_options);
        engine.map_or_else(|| self.batch_tokens(), |engine| engine.batch_tokens())
    }

    /// Measures which token budget makes the device fastest, uses it from now on, and returns it. Runs batches of five
    /// sizes, from a quarter of the default to four times the default, three times each, with pairs of about 200
    /// tokens. The result is kept in the cache for everyone who loads this model on this kind of device in this
    /// precision.
    ///
    /// Does nothing and returns `None` if [`EngineOptions::batch_tokens`] is set, if it was measured before, or if
    /// measuring would take longer than a hundredth of the time to score `rows` such pairs. Loads the weights.
    ///
    /// # Errors
    /// Those of [`Self::load`] and of scoring; [`Error::Io`] if the cache cannot be written.
    ///
    /// [`EngineOptions::batch_tokens`]: crate::EngineOptions::batch_tokens
    /// [`Error::Io`]: crate::Error::Io
    pub fn tune_batches(&self, rows: u64) -> Result<Option<usize>> {
        if self.engine_options().batch_tokens.is_some() || self.measured_batch_tokens().is_some() {
            return Ok(None);
        }
        let engine = self.engine()?;
        let usual = self.engine_options().usual_batch_tokens();
        // The result serves calls with any options, so it must not depend on how this one cuts its texts.
        let encoder = self.encoder(&ScoreOptions::default())?;
        let encode = |queries: &[Option<&str>], passages: &[Option<&str>]| {
            Encoded::new(&encoder, self.tokenizer(), queries, passages)
        };
        let Some(measured) = tune(&engine, usual, rows, encode)? else { return Ok(None) };
        for size in &measured {
            tracing::info!(batch_tokens = size.batch_tokens, tokens_per_second = size.tokens_per_second, "measured");
        }
        // If not even the smallest batch fits, the engine halves batches as they run.
        let batch_tokens = best(&measured).map_or(usual, |size| size.batch_tokens);
        engine.set_batch_tokens(batch_tokens);
        let cache = WeightsCache::open(self.engine_options().cache.as_deref())?;
        record::write(&cache, &self.batch_key(self.opened.fingerprint()?), batch_tokens, &measured)?;
        Ok(Some(batch_tokens))
    }

    fn measured_batch_tokens(&self) -> Option<usize> {
        let cache = WeightsCache::open(self.engine_options().cache.as_deref()).ok()?;
        // Listing the cache is cheaper than a fingerprint, and often there is nothing to compare it with.
        if cache.measurements().ok()?.is_empty() {
            return None;
        }
        record::read(&cache, &self.batch_key(self.opened.fingerprint().ok()?))
    }

    fn batch_key<'a>(&'a self, fingerprint: &'a str) -> BatchKey<'a> {
        let options = self.engine_options();
        BatchKey { fingerprint, devices: &options.devices, threads: options.threads(), precision: self.precision() }
    }
}
