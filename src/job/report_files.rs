//! The files that `--report` writes.

use anyhow::{Result, bail};

use super::ledger::Ledger;
use crate::files::{Inputs, Target};
use crate::storage::Location;

/// The paths of the report.
#[derive(Debug)]
pub(crate) struct ReportFiles {
    /// The JSON.
    pub(crate) json: Location,
    /// The HTML page, if requested.
    pub(crate) html: Option<Location>,
}

impl ReportFiles {
    /// `x.html` requests a page, with the JSON beside it in `x.json`. Any other name is JSON.
    ///
    /// # Errors
    /// If a file would replace what the run reads or writes, or would be read by the next run.
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

/// The role of a file that must not be replaced; `None` if it may be written.
fn conflict(file: &Location, inputs: &Inputs, target: &Target) -> Option<&'static str> {
    if inputs.are_at(file) {
        return Some("is INPUT");
    }
    if inputs.take(file) {
        return Some("would be read as INPUT too");
    }
    let of_output = match target {
        Target::File(output, _) => output.is_same(file).then_some("is OUTPUT"),
        Target::Directory(output) => Ledger::owns(output, file).then_some("belongs to the job in OUTPUT"),
    };
    of_output.or_else(|| file.is_special().then_some("is not a regular file"))
}
