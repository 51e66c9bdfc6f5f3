//! Output files that are made of the scores of several units.

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

/// A copy of row groups of an input with their scores, which several units commit. Making it twice does no harm: the
/// second is the same.
#[derive(Debug, Clone)]
pub(crate) struct ScoredCopy {
    /// The units in order.
    pub(crate) units: Vec<Unit>,
    input: InputFile,
    /// The files of the units' scores.
    scores: Vec<Location>,
    columns: Columns,
    /// The codec of the added columns.
    compression: Compression,
    /// The path of the copy relative to OUTPUT.
    name: String,
    destination: Destination,
    /// Where the record is written that it is complete.
    record: Location,
}

impl ScoredCopy {
    /// The output file of these units of the job with these records.
    pub(crate) fn new(
        ledger: &Ledger,
        input: InputFile,
        units: &[Unit],
        columns: Columns,
        compression: Compression,
    ) -> Self {
        let name = &input.identity.name;
        let first = units.first().cloned().unwrap_or_default();
        let destination = Destination {
            location: ledger.pieced_file(&first, name),
            staging: ledger.staging_file(&format!("{}-copy", first.id)),
            replaces: Replaces::Any,
        };
        Self {
            units: units.to_vec(),
            scores: units.iter().map(|unit| ledger.data_file(unit, name)).collect(),
            columns,
            compression,
            name: first.output_name(name),
            destination,
            record: ledger.file_record(&first),
            input,
        }
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn input(&self) -> &InputFile {
        &self.input
    }

    /// Makes the copy and records it. Ends with an error soon after `stopped` is true.
    ///
    /// # Errors
    /// If the scores of a unit are missing, the input was changed, or a file cannot be read or written.
    pub(crate) async fn make(&self, stopped: Arc<AtomicBool>) -> Result<FileMarker> {
        let groups = self.units.first().map(|first| first.groups.clone()).unwrap_or_default();
        let (destination, input) = (self.destination.clone(), self.input.clone());
        let added = self.columns.added();
        let mut output = OutputFile::splice(destination, input, groups, added, self.compression, stopped).await?;
        if let Err(error) = self.write(&mut output).await {
            output.abort().await;
            return Err(error);
        }
        let written = output.finish().await?;
        let marker = FileMarker {
            input: self.input.identity.name.clone(),
            output: self.name.clone(),
            rows: self.units.iter().map(|unit| unit.rows).sum(),
            size_bytes: written.size_bytes,
            etag: written.etag,
            finished: now(),
        };
        write_small(&self.record, serde_json::to_vec(&marker).context("a record is not JSON")?).await?;
        Ok(marker)
    }

    async fn write(&self, output: &mut OutputFile) -> Result<()> {
        for (unit, scores) in self.units.iter().zip(&self.scores) {
            let context = || {
                format!("cannot read the scores of unit {}; delete {scores} and run the same command again", unit.id)
            };
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
