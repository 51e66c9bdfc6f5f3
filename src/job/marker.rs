//! The records of units that are done or have failed, and of files that are complete.

use serde::{Deserialize, Serialize};

use crate::report::Tally;

/// `_rerank/units/<id>.json`: written after the unit's data file appeared. A unit is done if it has a marker and its
/// file has the recorded size, or the output file made of its scores is complete.
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
    /// The store's entity tag of that file, if it has one.
    pub(crate) etag: Option<String>,
    /// Counts of the rows.
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Seconds since the previous commit, or since the start of the run. The times of a run's units add up to its time.
    pub(crate) seconds: f64,
    /// On a cluster, the executor that scored the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) executor: Option<UnitWorker>,
    /// When the unit was committed, in RFC 3339.
    pub(crate) finished: String,
}

/// `_rerank/files/<id of the first unit>.json`: written after an output file appeared that is made of several units. It
/// is complete if it has the recorded size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMarker {
    /// Path of the input relative to INPUT.
    pub(crate) input: String,
    /// Path of the file relative to OUTPUT.
    pub(crate) output: String,
    pub(crate) rows: u64,
    pub(crate) size_bytes: u64,
    /// The store's entity tag, if it has one.
    pub(crate) etag: Option<String>,
    /// When it was written, in RFC 3339.
    pub(crate) finished: String,
}

/// The executor that scored a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UnitWorker {
    pub(crate) name: String,
    /// Seconds spent loading the model before this unit.
    pub(crate) load_seconds: f64,
}

/// `_rerank/failed/<id>.json`: why a run ended at this unit. Deleted when the unit is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitFailure {
    /// The unit's id.
    pub(crate) unit: String,
    /// Path of its input relative to INPUT.
    pub(crate) input: String,
    /// Its number in the input.
    pub(crate) number: usize,
    /// The error.
    pub(crate) reason: String,
    /// When the run ended, in RFC 3339.
    pub(crate) at: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A marker as version 0.1.0 first wrote it.
    const FIRST: &str = r#"{"unit":"0123456789abcdef","input":"a.parquet","number":2,"output":"a-00002-0123456789abcdef.parquet","size_bytes":99,"etag":null,"rows":100,"pairs":90,"duplicates":3,"truncated":2,"tokens":1000,"errors":{"odd":4},"seconds":1.5,"finished":"2026-01-01T00:00:00Z","score_histogram":{"width":1.0,"first":-1,"counts":[2]},"token_histogram":{"width":1.0,"first":9,"counts":[7]}}"#;

    #[test]
    fn markers_of_earlier_programs_are_read() {
        let first: Marker = serde_json::from_str(FIRST).unwrap();
        let stats = first.tally.stats;
        assert_eq!((stats.rows, stats.pairs, stats.duplicates, stats.truncated, stats.tokens), (100, 90, 3, 2, 1000));
        assert_eq!((first.tally.rows_written(), stats.padding_tokens, stats.batches), (100, 0, 0));
        assert_eq!((first.tally.errors["odd"], &first.executor), (4, &None));
        let later = FIRST.replace(
            r#""seconds":1.5"#,
            r#""padding_tokens":5,"batches":6,"seconds":1.5,"tokenize_seconds":0.5,"device_seconds":1,"executor":{"name":"gpu1:50051","load_seconds":2.0}"#,
        );
        let later: Marker = serde_json::from_str(&later).unwrap();
        let stats = later.tally.stats;
        assert_eq!((stats.padding_tokens, stats.batches), (5, 6));
        assert_eq!((stats.tokenize_time, stats.device_time), (Duration::from_millis(500), Duration::from_secs(1)));
        assert_eq!(later.executor.unwrap().load_seconds, 2.0);
    }

    #[test]
    fn a_marker_has_the_keys_of_earlier_programs_and_is_read_back() {
        let first: Marker = serde_json::from_str(FIRST).unwrap();
        let written = serde_json::to_value(&first).unwrap();
        let keys: serde_json::Value = serde_json::from_str(FIRST).unwrap();
        for (key, value) in keys.as_object().unwrap() {
            assert_eq!(&written[key], value, "{key}");
        }
        for key in ["padding_tokens", "batches", "tokenize_seconds", "device_seconds"] {
            assert!(written[key].is_number(), "{key}");
        }
        assert_eq!(serde_json::from_value::<Marker>(written).unwrap(), first);

        let mut marker = first;
        marker.tally = Tally::default();
        marker.tally.stats.rows = 100;
        marker.tally.add_written(40);
        let written = serde_json::to_value(&marker).unwrap();
        assert_eq!((&written["rows"], &written["rows_written"]), (&100.into(), &40.into()));
        assert_eq!(serde_json::from_value::<Marker>(written).unwrap().tally.rows_written(), 40);
    }
}
