//! What executors are told of a job and of its units, as JSON.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, bail};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::InputFile;
use crate::job::{InputIdentity, Manifest, Settings, Unit, UnitEntry};
use crate::storage::Location;

/// Version of the messages, raised by every change that an older program would misread.
const VERSION: u32 = 1;

/// The remedy where programs do not understand each other.
const MIXED_VERSIONS: &str = "run one version of this program on client, scheduler and executors";

/// A place in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// `/` for local disks, which all machines must see alike; else the URL of the store.
    root: String,
    path: String,
}

impl Place {
    pub(crate) fn of(location: &Location) -> Self {
        Self { root: location.root().to_owned(), path: location.path.to_string() }
    }

    /// The location as this process reaches it.
    pub(crate) fn location(&self) -> Result<Location> {
        let path = Path::parse(&self.path).with_context(|| format!("'{}' is not a path of a store", self.path))?;
        Ok(Location::parse(&self.root)?.with_path(path))
    }
}

/// What all units of a job share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobMessage {
    version: u32,
    /// OUTPUT.
    pub(crate) output: Place,
    /// [`datafusion_rerank::cluster::PlannedModel::to_json`].
    pub(crate) model: Value,
    /// Fingerprints of all models of the job: a query may name more than one.
    pub(crate) fingerprints: Vec<String>,
    /// What is read, computed and written.
    pub(crate) settings: Settings,
    /// Of a query, what its calls use that say nothing else.
    pub(crate) session: BTreeMap<String, String>,
}

impl JobMessage {
    pub(crate) fn new(output: &Location, model: Value, manifest: &Manifest, session: BTreeMap<String, String>) -> Self {
        let fingerprints = manifest.models.iter().map(|model| model.fingerprint.clone()).collect();
        let settings = manifest.settings.clone();
        Self { version: VERSION, output: Place::of(output), model, fingerprints, settings, session }
    }

    pub(crate) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).context("a job is not JSON")
    }

    /// # Errors
    /// If another version wrote it.
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

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitMessage {
    entry: UnitEntry,
    groups: Range<usize>,
    first_row: u64,
    file: Place,
    input: InputIdentity,
}

impl UnitMessage {
    pub(crate) fn new(entry: &UnitEntry, unit: &Unit, file: &InputFile) -> Self {
        // The only input of its message.
        let entry = UnitEntry { input: 0, ..entry.clone() };
        let input =
            InputIdentity { name: file.name.clone(), size_bytes: file.size_bytes, version: file.version.clone() };
        Self { entry, groups: unit.groups.clone(), first_row: unit.first_row, file: Place::of(&file.location), input }
    }

    pub(crate) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).context("a unit is not JSON")
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("the unit of a plan cannot be read; {MIXED_VERSIONS}"))
    }

    /// What it is in the job's manifest.
    pub(crate) fn entry(&self) -> &UnitEntry {
        &self.entry
    }

    pub(crate) fn unit(&self) -> Unit {
        let UnitEntry { number, rows, bytes, .. } = self.entry;
        Unit { input: 0, number, groups: self.groups.clone(), first_row: self.first_row, rows, bytes }
    }

    pub(crate) fn input(&self) -> Result<InputFile> {
        let InputIdentity { name, size_bytes, version } = self.input.clone();
        Ok(InputFile { location: self.file.location()?, size_bytes, name, version })
    }

    /// The manifest as if the job had no other unit.
    pub(crate) fn manifest(&self, job: &JobMessage) -> Result<Manifest> {
        let mut manifest =
            Manifest::new("", Vec::new(), job.settings.clone(), vec![self.input.clone()], &[self.unit()])?;
        // Its id depends on the models too, and was settled when the job began.
        manifest.units = vec![self.entry.clone()];
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> Settings {
        Settings {
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
        }
    }

    #[test]
    fn a_job_is_read_back_as_it_was() {
        assert_eq!(JobMessage::parse(job().to_text().unwrap().as_bytes()).unwrap(), job());
    }

    #[test]
    fn other_versions_are_refused() {
        let newer = JobMessage { version: 2, ..job() }.to_text().unwrap();
        let error = JobMessage::parse(newer.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("the plan has a job of version 2, this program knows version 1"), "{error}");
        let mut unknown: Value = serde_json::from_str(&job().to_text().unwrap()).unwrap();
        unknown["more"] = json!(1);
        let error = format!("{:#}", JobMessage::parse(unknown.to_string().as_bytes()).unwrap_err());
        assert!(error.contains("unknown field `more`") && error.contains("run one version"), "{error}");
    }

    #[test]
    fn a_unit_is_read_back_as_it_was() {
        let location = Location::parse("s3://bucket/a b/100%.parquet").unwrap();
        let file = InputFile { location, size_bytes: 9, name: "a b/100%.parquet".into(), version: "v".into() };
        let unit = Unit { input: 3, number: 2, groups: 4..6, first_row: 40, rows: 20, bytes: 100 };
        let entry = UnitEntry { id: "0123456789abcdef".into(), input: 3, number: 2, rows: 20, bytes: 100 };
        let message = UnitMessage::new(&entry, &unit, &file);
        let read = UnitMessage::parse(&message.to_text().unwrap()).unwrap();
        assert_eq!(read, message);
        assert_eq!(read.unit(), Unit { input: 0, ..unit });
        let input = read.input().unwrap();
        assert!(input.location.is_same(&file.location), "{}", input.location);
        let manifest = read.manifest(&job()).unwrap();
        assert_eq!(manifest.output_name(&manifest.units[0]), "a b/100%-00002-0123456789abcdef.parquet");
    }
}
