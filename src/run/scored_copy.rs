//! The copy of an input with the scores of all its units.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::files::{Columns, Compression, Destination, InputFile, InputIdentity, OutputFile, Source};
use crate::job::{FileMarker, Ledger, Unit, now};
use crate::storage::{Location, Replaces, write_small};

/// Batches of scores read ahead.
const BATCHES_AHEAD: usize = 2;

/// Rows of scores read at once.
const BATCH_ROWS: usize = 65_536;

/// An output file that is made when all units of its input are done. Making it twice does no harm: the second is the
/// same.
#[derive(Debug, Clone)]
pub(crate) struct ScoredCopy {
    /// The index of the input.
    pub(crate) input: usize,
    pub(crate) file: InputFile,
    /// The units of the input in order, each with the file of its scores.
    pub(crate) units: Vec<(Unit, Location)>,
    pub(crate) columns: Columns,
    /// The codec of the added columns.
    pub(crate) compression: Compression,
    /// Where the copy appears.
    pub(crate) location: Location,
    /// Where it is written until it is complete, on local disks.
    pub(crate) staging: Option<Location>,
    /// Where the record is written that it is complete.
    pub(crate) record: Location,
}

impl ScoredCopy {
    /// The copy of an input of the job with these records.
    pub(crate) fn new(
        ledger: &Ledger,
        input: usize,
        file: InputFile,
        units: &[Unit],
        columns: Columns,
        compression: Compression,
    ) -> Self {
        let name = file.identity.name.clone();
        let first = units.first().cloned().unwrap_or_default();
        Self {
            input,
            units: units.iter().map(|unit| (unit.clone(), ledger.data_file(unit, &name, true))).collect(),
            columns,
            compression,
            location: ledger.copy(&name),
            staging: ledger.staging_file(&format!("{}-copy", first.id)),
            record: ledger.copy_record(&first),
            file,
        }
    }

    /// Makes the copy and records it. Ends with an error soon after `stopped` is true.
    ///
    /// # Errors
    /// If the scores of a unit are missing, the input was changed, or a file cannot be read or written.
    pub(crate) async fn make(&self, stopped: Arc<AtomicBool>) -> Result<FileMarker> {
        let destination = Destination {
            location: self.location.clone(),
            staging: self.staging.clone(),
            replaces: Replaces::Same,
        };
        let added = self.columns.added();
        let mut output =
            OutputFile::splice(destination, self.file.clone(), added, self.compression, stopped).await?;
        if let Err(error) = self.write(&mut output).await {
            output.abort().await;
            return Err(error);
        }
        let written = output.finish().await?;
        let name = self.file.identity.name.clone();
        let marker = FileMarker {
            input: name.clone(),
            output: name,
            rows: self.units.iter().map(|(unit, _)| unit.rows).sum(),
            size_bytes: written.size_bytes,
            etag: written.etag,
            finished: now(),
        };
        write_small(&self.record, serde_json::to_vec(&marker).context("a record is not JSON")?).await?;
        Ok(marker)
    }

    async fn write(&self, output: &mut OutputFile) -> Result<()> {
        for (unit, scores) in &self.units {
            let context = || format!("cannot read the scores of unit {}", unit.id);
            let Some(size_bytes) = scores.file_size_bytes().await? else {
                bail!("the scores of unit {} are gone; run the same command again to score it", unit.id);
            };
            let identity = InputIdentity { name: unit.id.clone(), size_bytes, version: String::new() };
            let file = InputFile { location: scores.clone(), identity };
            let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
            let runtime = Handle::current();
            let reading = tokio::task::spawn_blocking(move || {
                let source = Source::open(&file, &runtime)?;
                let groups = 0..source.groups().len();
                for batch in source.read(&file, groups, None, BATCH_ROWS, &runtime)? {
                    if sender.blocking_send(batch?).is_err() {
                        break;
                    }
                }
                anyhow::Ok(())
            });
            let mut rows = 0;
            while let Some(batch) = receiver.recv().await {
                rows += batch.num_rows() as u64;
                output.write(&batch).await?;
            }
            drop(receiver);
            reading.await.with_context(context)?.with_context(context)?;
            if rows != unit.rows {
                bail!("unit {} has {rows} scores, expected {}", unit.id, unit.rows);
            }
        }
        Ok(())
    }
}
