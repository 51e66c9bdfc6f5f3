//! What is recorded of a unit when it is done, or could not be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::Histogram;

/// `_rerank/units/<id>.json`: written after the unit's data file appeared. A unit with a marker whose file is there in
/// the recorded size is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The unit's id.
    pub(crate) unit: String,
    /// Path of its input relative to INPUT.
    pub(crate) input: String,
    /// Its number in the input.
    pub(crate) number: usize,
    /// Path of its data file relative to OUTPUT.
    pub(crate) output: String,
    /// Size of that file.
    pub(crate) size_bytes: u64,
    /// The store's entity tag of that file, if it has any.
    pub(crate) etag: Option<String>,
    /// Rows read and written.
    pub(crate) rows: u64,
    /// Rows with a query and a passage.
    pub(crate) pairs: u64,
    /// Pairs that repeat another of their window.
    pub(crate) duplicates: u64,
    /// Pairs that were cut.
    pub(crate) truncated: u64,
    /// Tokens run on the device, without padding.
    pub(crate) tokens: u64,
    /// Padding that was run with them.
    #[serde(default)]
    pub(crate) padding_tokens: u64,
    /// Device batches.
    #[serde(default)]
    pub(crate) batches: u64,
    /// Failed rows by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Time from the commit before it, or from the beginning of the run, in seconds: the times of a run add up to it.
    pub(crate) seconds: f64,
    /// Time spent on tokenizing, over all threads, in seconds.
    #[serde(default)]
    pub(crate) tokenize_seconds: f64,
    /// Time in which the device ran, in seconds.
    #[serde(default)]
    pub(crate) device_seconds: f64,
    /// On a cluster, which executor scored the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) executor: Option<Worker>,
    /// When it was committed, in RFC 3339.
    pub(crate) finished: String,
    /// Distribution of the scores.
    pub(crate) score_histogram: Histogram,
    /// Distribution of the pairs' tokens.
    pub(crate) token_histogram: Histogram,
}

/// An executor at work on a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Worker {
    /// What it is called.
    pub(crate) name: String,
    /// How long it loaded the model before this unit, in seconds.
    pub(crate) load_seconds: f64,
}

/// `_rerank/failed/<id>.json`: why a run ended at this unit. Deleted when the unit is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The unit's id.
    pub(crate) unit: String,
    /// Path of its input relative to INPUT.
    pub(crate) input: String,
    /// Its number in the input.
    pub(crate) number: usize,
    /// The error.
    pub(crate) reason: String,
    /// When, in RFC 3339.
    pub(crate) at: String,
}
