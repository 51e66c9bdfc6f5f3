//! The JSON messages that carry a job and its units to executors.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::datatypes::{Schema, SchemaRef};
use object_store::path::Path;
use parquet::arrow::encode_arrow_schema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{InputFile, InputIdentity, decode_arrow_schema};
use crate::job::{JobSettings, Unit};
use crate::storage::Location;

/// Version of the messages. Raise it with every change that an older program would misread.
const VERSION: u32 = 3;

/// The advice when programs of different versions meet.
const MIXED_VERSIONS: &str = "run one version of this program on client, scheduler and executors";

/// A location in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// `/` for local disks, which all machines must mount alike; else the URL of the store.
    root: String,
    path: String,
}

impl Place {
    pub(crate) fn of(location: &Location) -> Self {
        Self { root: location.root().to_owned(), path: location.path.to_string() }
    }

    /// The location, opened by this process.
    pub(crate) fn location(&self) -> Result<Location> {
        let path = Path::parse(&self.path).with_context(|| format!("'{}' is not a path of a store", self.path))?;
        Ok(Location::parse(&self.root)?.with_path(path))
    }
}

/// The data shared by all units of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobMessage {
    version: u32,
    /// OUTPUT.
    pub(crate) output: Place,
    /// From [`datafusion_rerank::cluster::PlannedModel::to_json`].
    pub(crate) model: Value,
    /// Fingerprints of all models of the job; a query may name several.
    pub(crate) fingerprints: Vec<String>,
    /// The settings that the output depends on.
    pub(crate) settings: JobSettings,
    /// For a query, the settings of calls that do not set them themselves.
    pub(crate) session: BTreeMap<String, String>,
    /// For a query, the columns of its input, in the encoding of Parquet footers.
    pub(crate) input: Option<String>,
}

impl JobMessage {
    pub(crate) fn new(
        output: &Location,
        model: Value,
        fingerprints: Vec<String>,
        settings: JobSettings,
        session: BTreeMap<String, String>,
        input: Option<&Schema>,
    ) -> Self {
        let input = input.map(encode_arrow_schema);
        Self { version: VERSION, output: Place::of(output), model, fingerprints, settings, session, input }
    }

    /// For a query, the columns of its input.
    pub(crate) fn input(&self) -> Result<SchemaRef> {
        let input = self.input.as_deref().context("the job has a query, but no columns")?;
        Ok(Arc::new(decode_arrow_schema(input)?))
    }

    pub(crate) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).context("a job is not JSON")
    }

    /// # Errors
    /// If another version wrote the message.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let unreadable = || format!("the job of a plan cannot be read; {MIXED_VERSIONS}");
        let Versioned { version } = serde_json::from_slice(text).with_context(unreadable)?;
        if version != VERSION {
            bail!("the plan has a job of version {version}, this program knows version {VERSION}; {MIXED_VERSIONS}");
        }
        serde_json::from_slice(text).with_context(unreadable)
    }
}

/// What an executor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Scores the unit.
    Score,
    /// Makes the output file of several units, of which the unit is the first.
    Copy,
}

/// A unit and its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitMessage {
    /// Its input index is 0: the message holds one file.
    pub(crate) unit: Unit,
    pub(crate) work: Work,
    file: Place,
    input: InputIdentity,
}

impl UnitMessage {
    pub(crate) fn new(unit: &Unit, work: Work, file: &InputFile) -> Self {
        let unit = Unit { input: 0, ..unit.clone() };
        Self { unit, work, file: Place::of(&file.location), input: file.identity.clone() }
    }

    pub(crate) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).context("a unit is not JSON")
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("the unit of a plan cannot be read; {MIXED_VERSIONS}"))
    }

    pub(crate) fn input_name(&self) -> &str {
        &self.input.name
    }

    /// The unit's input, opened by this process.
    pub(crate) fn input(&self) -> Result<InputFile> {
        Ok(InputFile { location: self.file.location()?, identity: self.input.clone() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> JobSettings {
        JobSettings {
            options: json!({"max_length": 64}),
            sql: Some("SELECT 1".into()),
            query: "q".into(),
            passage: "p".into(),
            score: "s".into(),
            on_error: "null".into(),
            unit_rows: 10,
            compression: "none".into(),
            row_group_rows: 7,
        }
    }

    fn job() -> JobMessage {
        JobMessage {
            version: VERSION,
            output: Place::of(&Location::parse("/data/out put").unwrap()),
            model: json!({"name": "m3"}),
            fingerprints: vec!["f".into()],
            settings: settings(),
            session: BTreeMap::from([("rerank.model".to_owned(), "m3".to_owned())]),
            input: None,
        }
    }

    #[test]
    fn a_job_is_read_back_as_it_was() {
        assert_eq!(JobMessage::parse(job().to_text().unwrap().as_bytes()).unwrap(), job());
    }

    #[test]
    fn other_versions_are_refused() {
        let newer = JobMessage { version: 4, ..job() }.to_text().unwrap();
        let error = JobMessage::parse(newer.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("the plan has a job of version 4, this program knows version 3"), "{error}");
        let mut unknown: Value = serde_json::from_str(&job().to_text().unwrap()).unwrap();
        unknown["more"] = json!(1);
        let error = format!("{:#}", JobMessage::parse(unknown.to_string().as_bytes()).unwrap_err());
        assert!(error.contains("unknown field `more`") && error.contains("run one version"), "{error}");
    }

    #[test]
    fn a_unit_is_read_back_as_it_was() {
        let location = Location::parse("s3://bucket/a b/100%.parquet").unwrap();
        let identity = InputIdentity { name: "a b/100%.parquet".into(), size_bytes: 9, version: "v".into() };
        let file = InputFile { location, identity };
        let id = "0123456789abcdef".to_owned();
        let unit = Unit { id, input: 3, number: 2, groups: 4..6, first_row: 40, rows: 20, bytes: 100, piece: None };
        let message = UnitMessage::new(&unit, Work::Copy, &file);
        let read = UnitMessage::parse(&message.to_text().unwrap()).unwrap();
        assert_eq!(read, message);
        assert_eq!(read.unit, Unit { input: 0, ..unit });
        let input = read.input().unwrap();
        assert!(input.location.is_same(&file.location), "{}", input.location);
        assert_eq!(input.identity, file.identity);
        assert_eq!(read.unit.output_name(read.input_name()), "a b/100%-00002-0123456789abcdef.parquet");
    }
}
