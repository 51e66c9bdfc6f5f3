//! A model, as a plan names it.

use std::path::{Path, absolute};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::options::ScoreOptions;
use crate::reranker::Reranker;

/// The remedy for programs of different versions.
pub(crate) const MIXED_VERSIONS: &str = "run one version of this program on client, scheduler and executors";

/// A model and everything that its scores depend on, for another process to open: see
/// [`ExecutorModels::open`](super::ExecutorModels::open).
#[derive(Debug, Clone)]
pub struct PlannedModel {
    name: String,
    location: String,
    fingerprint: String,
    options: ScoreOptions,
    window_rows: usize,
    max_delay: Option<Duration>,
    batch_tokens: Option<usize>,
}

impl PlannedModel {
    /// Everything that another process needs to open the same model with the same options. `name` is the model's name
    /// in errors and plans.
    ///
    /// # Errors
    /// Those of [`Model::fingerprint`](crate::Model::fingerprint).
    pub fn of(name: &str, reranker: &Reranker) -> Result<Self> {
        let absolute = |path: &Path| absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let mut options = reranker.options().clone();
        options.adapter = options.adapter.map(|folder| absolute(Path::new(&folder)));
        Ok(Self {
            name: name.to_owned(),
            location: absolute(reranker.location()),
            fingerprint: reranker.model().fingerprint()?.to_owned(),
            // If no option sets it, another device might choose another precision.
            options: options.with_precision(reranker.precision()),
            window_rows: reranker.window_rows(),
            max_delay: reranker.max_delay(),
            batch_tokens: reranker.engine_options().batch_tokens,
        })
    }

    /// The name in the query, or the session's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checkpoint's directory where the query was planned.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Identifies the checkpoint: [`Model::fingerprint`](crate::Model::fingerprint).
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The options in force.
    pub fn options(&self) -> &ScoreOptions {
        &self.options
    }

    /// Rows that are sorted by length together.
    pub fn window_rows(&self) -> usize {
        self.window_rows
    }

    /// Longest time that rows wait for others; `None` if only full windows are scored.
    pub fn max_delay(&self) -> Option<Duration> {
        self.max_delay
    }

    /// Token budget of a device batch; `None` is the default of the executor's device.
    pub fn batch_tokens(&self) -> Option<usize> {
        self.batch_tokens
    }

    /// Serializes to a JSON object, for [`Self::from_json`].
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "location": self.location,
            "fingerprint": self.fingerprint,
            "options": self.options.to_json(),
            "window_rows": self.window_rows,
            "max_delay": self.max_delay,
            "batch_tokens": self.batch_tokens,
        })
    }

    /// Reads what [`Self::to_json`] returns.
    ///
    /// # Errors
    /// [`Error::Input`] for what [`Self::to_json`] does not write, [`Error::Option`] for unknown options or invalid
    /// values.
    pub fn from_json(value: &Value) -> Result<Self> {
        let fields = Fields::deserialize(value)
            .map_err(|error| Error::input(format!("a model of a plan cannot be read: {error}; {MIXED_VERSIONS}")))?;
        let Fields { name, location, fingerprint, options, window_rows, max_delay, batch_tokens } = fields;
        let options = ScoreOptions::from_json(&options)?;
        let window_rows = window_rows.max(1);
        Ok(Self { name, location, fingerprint, options, window_rows, max_delay, batch_tokens })
    }
}

/// What [`PlannedModel::to_json`] writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: String,
    location: String,
    fingerprint: String,
    options: Value,
    window_rows: usize,
    max_delay: Option<Duration>,
    batch_tokens: Option<usize>,
}
