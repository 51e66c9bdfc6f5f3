//! The files of `--report`.

use anyhow::{Result, bail};

use super::ledger::Ledger;
use crate::files::{Inputs, Target};
use crate::storage::Location;

/// Where the report goes.
#[derive(Debug)]
pub(crate) struct ReportFiles {
    /// The JSON.
    pub(crate) json: Location,
    /// The page, if one is wanted.
    pub(crate) html: Option<Location>,
}

impl ReportFiles {
    /// `x.html` is a page, with the JSON beside it in `x.json`; any other name is JSON.
    ///
    /// # Errors
    /// If one of them would replace what the run reads or writes, or would be read by the next run.
    pub(super) fn find(text: &str, inputs: &Inputs, target: &Target) -> Result<Self> {
        let html = text.strip_suffix(".html");
        let json = html.map_or_else(|| text.to_owned(), |stem| format!("{stem}.json"));
        let files = Self { json: Location::parse(&json)?, html: html.map(|_| Location::parse(text)).transpose()? };
        for file in std::iter::once(&files.json).chain(&files.html) {
            if let Some(what) = conflict(file, inputs, target) {
                bail!("--report '{text}' would write {file}, which {what}; name another file");
            }
        }
        Ok(files)
    }
}

/// What a file is to the run that must not be replaced.
fn conflict(file: &Location, inputs: &Inputs, target: &Target) -> Option<&'static str> {
    if inputs.are_at(file) {
        return Some("is INPUT");
    }
    if inputs.take(file) {
        return Some("would be read as INPUT too");
    }
    match target {
        Target::File(output, _) => output.is_same(file).then_some("is OUTPUT"),
        Target::Directory(output) => Ledger::owns(output, file).then_some("belongs to the job in OUTPUT"),
    }
}
