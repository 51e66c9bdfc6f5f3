//! The definition of a resumable job: everything its output depends on, and its units.

use anyhow::{Context, Result};
use datafusion_rerank::Precision;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::unit::Unit;
use crate::files::{FileFormat, InputIdentity};

/// Version of the files below `_rerank`, and of how units are divided and named.
pub(crate) const FORMAT: u32 = 1;

/// `_rerank/job.json`: written before any work, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`FORMAT`] of the program that began the job.
    pub(crate) format: u32,
    /// Version of that program.
    pub(crate) version: String,
    /// When the job began, in RFC 3339.
    pub(crate) created: String,
    /// INPUT as typed.
    pub(crate) input: String,
    /// The models: that of the command line, and those that a query names.
    pub(crate) models: Vec<ModelIdentity>,
    /// The settings that the output depends on.
    pub(crate) settings: JobSettings,
    /// The files as they were when the job began, sorted by name.
    pub(crate) inputs: Vec<InputIdentity>,
    /// The units, by input and number.
    pub(crate) units: Vec<Unit>,
}

/// A model, independent of the location of its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelIdentity {
    /// Its directory when the job began; the model may be moved.
    pub(crate) location: String,
    pub(crate) family: String,
    /// Its content: [`datafusion_rerank::Model::fingerprint`].
    pub(crate) fingerprint: String,
    /// The directory of its adapter, if it has one. The fingerprint covers its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) adapter: Option<String>,
    /// The precision when no option sets one. It depends on the device.
    #[serde(default = "fp32")]
    pub(crate) precision: String,
}

/// The precision of manifests that do not record one.
fn fp32() -> String {
    Precision::Fp32.to_string()
}

impl ModelIdentity {
    /// The part of the identity that scores depend on.
    fn key(&self) -> String {
        let precision = Some(&self.precision).filter(|precision| **precision != fp32());
        [Some(&self.fingerprint), precision].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
    }
}

/// The flags that the output depends on. Device, threads, batch tokens and window rows are not included: they affect
/// scores by rounding only, and a job may resume on another machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobSettings {
    /// The model options that were given, by name.
    pub(crate) options: Value,
    /// `--sql`.
    #[serde(default)]
    pub(crate) sql: Option<String>,
    /// `--query`.
    pub(crate) query: String,
    /// `--passage`.
    pub(crate) passage: String,
    /// `--score`.
    pub(crate) score: String,
    /// `--on-error`.
    pub(crate) on_error: String,
    /// `--unit-rows`.
    pub(crate) unit_rows: u64,
    /// `--compression`.
    pub(crate) compression: String,
    /// `--row-group-rows`.
    pub(crate) row_group_rows: u64,
}

impl Manifest {
    /// The manifest of a new job. Sets the ids of the units.
    pub(crate) fn new(
        input: &str,
        models: Vec<ModelIdentity>,
        settings: JobSettings,
        inputs: Vec<InputIdentity>,
        mut units: Vec<Unit>,
    ) -> Result<Self> {
        let keys: Vec<String> = models.iter().map(ModelIdentity::key).collect();
        let key = serde_json::to_string(&(FORMAT, keys, &settings)).context("options are not JSON")?;
        for unit in &mut units {
            unit.id = unit_id(&key, &inputs[unit.input], unit);
        }
        Ok(Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: now(),
            input: input.to_owned(),
            models,
            settings,
            inputs,
            units,
        })
    }

    pub(crate) fn input_name(&self, unit: &Unit) -> &str {
        &self.inputs[unit.input].name
    }

    /// The output files that are made of several units: those units, in order.
    pub(crate) fn pieced_files(&self) -> impl Iterator<Item = &[Unit]> {
        (0..self.units.len()).filter(|&unit| self.units[unit].begins_file()).map(|first| self.pieces_from(first))
    }

    /// The units of the output file that begins with the unit of this id; `None` if there is no such file.
    #[cfg(any(feature = "cluster", test))]
    pub(crate) fn pieces_of(&self, id: &str) -> Option<&[Unit]> {
        let first = self.units.iter().position(|unit| unit.id == id && unit.begins_file())?;
        Some(self.pieces_from(first))
    }

    fn pieces_from(&self, first: usize) -> &[Unit] {
        let count = self.units[first].piece.map_or(1, |piece| piece.units);
        &self.units[first..self.units.len().min(first + count)]
    }

    /// The number of rows of the job.
    pub(crate) fn rows(&self) -> u64 {
        self.units.iter().map(|unit| unit.rows).sum()
    }

    /// Describes how the job `now` differs from this one; `None` if it is the same job. The model's directory, the
    /// spelling of INPUT and the program's version are ignored.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        if self.format != now.format {
            return Some(format!("the job's files are of format {}, this program's of {}", self.format, now.format));
        }
        let keys = |models: &[ModelIdentity]| {
            let one = |model: &ModelIdentity| format!("{} {}", model.family, model.key());
            models.iter().map(one).collect::<Vec<_>>()
        };
        if keys(&self.models) != keys(&now.models) {
            let shown = |models: &[ModelIdentity]| {
                let one = |(key, model): (String, &ModelIdentity)| match &model.adapter {
                    None => key,
                    Some(adapter) => format!("{key} with the adapter {adapter}"),
                };
                keys(models).into_iter().zip(models).map(one).collect::<Vec<_>>().join(", ")
            };
            let (before, after) = (shown(&self.models), shown(&now.models));
            return Some(format!("the model is another ({before} became {after})"));
        }
        self.settings.difference(&now.settings).or_else(|| self.inputs_difference(now)).or_else(|| {
            // The same files are divided alike, unless a reader counts their rows differently. A unit's id covers its
            // range.
            let ids = |manifest: &Self| manifest.units.iter().map(|unit| unit.id.clone()).collect::<Vec<_>>();
            (ids(self) != ids(now)).then(|| "the units are cut in another way".to_owned())
        })
    }

    fn inputs_difference(&self, now: &Self) -> Option<String> {
        // Both are sorted by name: the first pair that differs is the file that was added, removed or changed.
        let (mut before, mut after) = (self.inputs.iter().peekable(), now.inputs.iter().peekable());
        loop {
            match (before.next(), after.next()) {
                (None, None) => return None,
                (Some(old), None) => return Some(format!("the input {} is gone", old.name)),
                (None, Some(new)) => return Some(format!("the input {} is new", new.name)),
                (Some(old), Some(new)) if old.name < new.name => {
                    return Some(format!("the input {} is gone", old.name));
                }
                (Some(old), Some(new)) if old.name > new.name => return Some(format!("the input {} is new", new.name)),
                (Some(old), Some(new)) if old != new => {
                    return Some(format!(
                        "the input {} was changed ({} bytes, {} became {} bytes, {})",
                        old.name, old.size_bytes, old.version, new.size_bytes, new.version
                    ));
                }
                (Some(_), Some(_)) => {}
            }
        }
    }
}

impl JobSettings {
    /// Whether the output of the input with this name is a copy of it with columns added. Otherwise it is the encoded
    /// rows of a unit.
    pub(crate) fn splices(&self, input: &str) -> bool {
        self.sql.is_none() && FileFormat::of_input(input) == FileFormat::Parquet
    }

    fn difference(&self, now: &Self) -> Option<String> {
        let Self { options, sql, query, passage, score, on_error, unit_rows, compression, row_group_rows } = self;
        let text = |sql: &Option<String>| sql.clone().unwrap_or_else(|| "not given".to_owned());
        let flags = [
            ("--sql", text(sql), text(&now.sql)),
            ("--query", query.clone(), now.query.clone()),
            ("--passage", passage.clone(), now.passage.clone()),
            ("--score", score.clone(), now.score.clone()),
            ("--on-error", on_error.clone(), now.on_error.clone()),
            ("--unit-rows", unit_rows.to_string(), now.unit_rows.to_string()),
            ("--compression", compression.clone(), now.compression.clone()),
            ("--row-group-rows", row_group_rows.to_string(), now.row_group_rows.to_string()),
            ("the set of model options", options.to_string(), now.options.to_string()),
        ];
        let (flag, before, after) = flags.into_iter().find(|(_, before, after)| before != after)?;
        Some(format!("{flag} was {before} and is {after} now"))
    }
}

/// The current time in RFC 3339, to the second.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

fn unit_id(key: &str, input: &InputIdentity, unit: &Unit) -> String {
    let mut hash = Sha256::new();
    for part in [key, &input.name, &input.version] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    for number in [input.size_bytes, unit.groups.start as u64, unit.groups.end as u64, unit.first_row, unit.rows] {
        hash.update(number.to_le_bytes());
    }
    let mut digits = [0; 8];
    digits.copy_from_slice(&hash.finalize()[..8]);
    format!("{:016x}", u64::from_be_bytes(digits))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::unit::cut;
    use super::*;
    use crate::files::Group;

    fn settings() -> JobSettings {
        JobSettings {
            options: json!({"max_length": 512}),
            sql: None,
            query: "query".into(),
            passage: "passage".into(),
            score: "score".into(),
            on_error: "fail".into(),
            unit_rows: 10,
            compression: "zstd".into(),
            row_group_rows: 100,
        }
    }

    fn input(name: &str) -> InputIdentity {
        InputIdentity { name: name.into(), size_bytes: 5, version: "v1".into() }
    }

    fn manifest(settings: JobSettings, inputs: Vec<InputIdentity>, fingerprint: &str) -> Manifest {
        let model = ModelIdentity {
            location: "/models/m3".into(),
            family: "m3".into(),
            fingerprint: fingerprint.into(),
            adapter: None,
            precision: fp32(),
        };
        let units = units(inputs.len(), settings.unit_rows);
        Manifest::new("in", vec![model], settings, inputs, units).unwrap()
    }

    fn units(files: usize, unit_rows: u64) -> Vec<Unit> {
        let groups = [Group { rows: 6, bytes: 1 }, Group { rows: 6, bytes: 1 }];
        (0..files).flat_map(|file| cut(file, &groups, unit_rows, true)).collect()
    }

    fn base() -> Manifest {
        manifest(settings(), vec![input("a.parquet"), input("b.parquet")], "f")
    }

    #[test]
    fn the_same_job_has_the_same_units() {
        let (one, mut two) = (base(), base());
        two.created = "2000-01-01T00:00:00Z".into();
        two.input = "./in".into();
        two.models[0].location = "/other".into();
        assert_eq!(one.difference(&two), None);
        assert_eq!(one.units, two.units);
        let mut ids: Vec<&str> = one.units.iter().map(|unit| unit.id.as_str()).collect();
        assert_eq!(ids.len(), 4);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4, "ids are distinct");
        assert_eq!(one.rows(), 24);
    }

    #[test]
    fn whatever_changes_the_output_changes_every_id_and_is_named() {
        let mut cases = Vec::new();
        let mut change = |expected: &'static str, change: fn(&mut JobSettings)| {
            let mut settings = settings();
            change(&mut settings);
            cases.push((expected, manifest(settings, base().inputs, "f")));
        };
        change("--query was query and is q now", |s| s.query = "q".into());
        change("--passage was", |s| s.passage = "p".into());
        change("--score was", |s| s.score = "s".into());
        change("--on-error was fail and is null now", |s| s.on_error = "null".into());
        change("--compression was", |s| s.compression = "none".into());
        change("--row-group-rows was 100 and is 7 now", |s| s.row_group_rows = 7);
        change("--unit-rows was 10 and is 20 now", |s| s.unit_rows = 20);
        change(r#"the set of model options was {"max_length":512} and is {} now"#, |s| s.options = json!({}));
        cases.push(("the model is another (m3 f became m3 g)", manifest(settings(), base().inputs, "g")));
        let mut half = base();
        half.models[0].precision = "fp16".into();
        let half = Manifest::new("in", half.models, settings(), half.inputs, units(2, 10)).unwrap();
        cases.push(("the model is another (m3 f became m3 f fp16)", half));
        for (expected, other) in cases {
            let difference = base().difference(&other).unwrap();
            assert!(difference.starts_with(expected), "{difference}");
            assert!(base().units.iter().all(|unit| other.units.iter().all(|other| other.id != unit.id)), "{expected}");
        }
    }

    #[test]
    fn inputs_that_came_went_or_changed_are_named() {
        let with = |inputs: &[InputIdentity]| base().difference(&manifest(settings(), inputs.to_vec(), "f")).unwrap();
        let (a, b) = (input("a.parquet"), input("b.parquet"));
        assert_eq!(with(std::slice::from_ref(&b)), "the input a.parquet is gone");
        assert_eq!(with(std::slice::from_ref(&a)), "the input b.parquet is gone");
        assert_eq!(with(&[a.clone(), input("ab.parquet"), b.clone()]), "the input ab.parquet is new");
        assert_eq!(with(&[a.clone(), b.clone(), input("c.parquet")]), "the input c.parquet is new");
        let changed = InputIdentity { version: "v2".into(), ..b };
        assert_eq!(with(&[a, changed]), "the input b.parquet was changed (5 bytes, v1 became 5 bytes, v2)");
    }

    #[test]
    fn a_manifest_is_read_back_as_it_was() {
        let text = serde_json::to_string(&base()).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), base());
        let older = text.replace(r#","precision":"fp32""#, "");
        assert!(older.len() < text.len());
        assert_eq!(serde_json::from_str::<Manifest>(&older).unwrap(), base());
    }
    /// `job.json` as version 0.1.0 wrote it before units recorded their groups.
    const FIRST_FORMAT: &str = r#"{"format":1,"version":"0.1.0","created":"2026-01-01T00:00:00Z","input":"in","models":[{"location":"/models/m3","family":"m3","fingerprint":"f","precision":"fp32"}],"settings":{"options":{"max_length":512},"sql":null,"query":"query","passage":"passage","score":"score","on_error":"fail","unit_rows":10,"compression":"zstd","row_group_rows":100},"inputs":[{"name":"a.parquet","size_bytes":5,"version":"v1"},{"name":"b.parquet","size_bytes":5,"version":"v1"}],"units":[UNITS]}"#;

    #[test]
    fn a_job_of_an_earlier_program_resumes() {
        let base = base();
        let unit = |unit: &Unit| {
            let Unit { id, input, number, rows, bytes, .. } = unit;
            format!(r#"{{"id":"{id}","input":{input},"number":{number},"rows":{rows},"bytes":{bytes}}}"#)
        };
        let units: Vec<String> = base.units.iter().map(unit).collect();
        assert_eq!(units[1], r#"{"id":"c8b9242eeb3e78b4","input":0,"number":1,"rows":6,"bytes":1}"#);
        let earlier = FIRST_FORMAT.replace("UNITS", &units.join(","));
        let earlier: Manifest = serde_json::from_str(&earlier).unwrap();
        assert_eq!(earlier.difference(&base), None);
        assert_eq!(earlier.rows(), base.rows());
        // That version can read current manifests: they have all the keys it knows, and it ignores others.
        let written = serde_json::to_value(&base).unwrap();
        let known: serde_json::Value = serde_json::from_str(&FIRST_FORMAT.replace("UNITS", &units[1])).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&written), keys(&known));
        assert!(keys(&known["units"][0]).iter().all(|key| written["units"][1].get(key) == known["units"][0].get(key)));
    }

    #[test]
    fn outputs_are_copies_of_parquet_inputs_unless_a_query_makes_them() {
        let settings = settings();
        for (input, splices) in [("a.parquet", true), ("deep/b", true), ("c.arrow", false), ("d.FEATHER", false)] {
            assert_eq!(settings.splices(input), splices, "{input}");
        }
        assert!(!JobSettings { sql: Some("SELECT 1".into()), ..settings }.splices("a.parquet"));
    }

    #[test]
    fn the_units_of_a_file_are_found() {
        let base = base();
        assert_eq!(base.pieced_files().count(), 0);
        let units =
            (0..2).flat_map(|file| cut(file, &[Group { rows: 25, bytes: 1 }, Group { rows: 3, bytes: 1 }], 10, true));
        let pieced = Manifest::new("in", base.models, base.settings, base.inputs, units.collect()).unwrap();
        let files: Vec<&[Unit]> = pieced.pieced_files().collect();
        assert_eq!(files, [&pieced.units[..3], &pieced.units[4..7]]);
        assert_eq!(pieced.pieces_of(&pieced.units[4].id), Some(&pieced.units[4..7]));
        assert_eq!(pieced.pieces_of(&pieced.units[5].id), None);
        assert_eq!(pieced.pieces_of(&pieced.units[3].id), None);
    }
}
