//! Reading: Parquet files into batches, on a thread that may block.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::input::InputFile;
use crate::layout::{Columns, Layout};
use crate::object_file::ObjectFile;
use crate::window::{Event, Gatherer, Rows, Window};

/// Files whose footers are read at once before the run.
const SURVEYS_AT_ONCE: usize = 16;

/// Windows read ahead of the scoring.
const WINDOWS_AHEAD: usize = 1;

/// Checks that all files are Parquet and have the columns, and counts their rows: what can be known to be wrong is
/// found before anything is scored.
pub(crate) async fn survey(files: &[InputFile], columns: &Columns) -> Result<u64> {
    let counts = files.iter().cloned().map(|file| {
        let columns = columns.clone();
        async move {
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let (metadata, _) = open(&file, &columns, &runtime)?;
                Ok::<_, anyhow::Error>(metadata.metadata().file_metadata().num_rows().unsigned_abs())
            })
            .await
            .context("a file could not be examined")?
        }
    });
    stream::iter(counts).buffered(SURVEYS_AT_ONCE).try_fold(0, |sum, rows| async move { Ok(sum + rows) }).await
}

/// Reads the files one after the other. Reading stops when the receiver is dropped.
pub(crate) fn read(files: Vec<InputFile>, columns: Columns, window_rows: usize) -> mpsc::Receiver<Result<Window>> {
    let (sender, receiver) = mpsc::channel(WINDOWS_AHEAD);
    let runtime = Handle::current();
    let reading = tokio::task::spawn_blocking({
        let sender = sender.clone();
        move || {
            if let Err(error) = read_all(&files, &columns, window_rows, &runtime, &sender) {
                // Nobody is left to tell if the run ended already.
                drop(sender.blocking_send(Err(error)));
            }
        }
    });
    tokio::spawn(async move {
        if let Err(error) = reading.await {
            drop(sender.send(Err(anyhow::Error::new(error).context("reading stopped"))).await);
        }
    });
    receiver
}

fn read_all(
    files: &[InputFile],
    columns: &Columns,
    window_rows: usize,
    runtime: &Handle,
    sender: &mpsc::Sender<Result<Window>>,
) -> Result<()> {
    let mut gatherer = Gatherer::new(window_rows);
    // Whether somebody still wants more.
    let mut push = |event: Event| match gatherer.push(event) {
        Some(window) => sender.blocking_send(Ok(window)).is_ok(),
        None => !sender.is_closed(),
    };
    for (file, input) in files.iter().enumerate() {
        let (metadata, layout) = open(input, columns, runtime)?;
        let layout = Arc::new(layout);
        if !push(Event::Begin { file, layout: Arc::clone(&layout) }) {
            return Ok(());
        }
        let leaves = metadata.parquet_schema().num_columns();
        let source = ObjectFile::new(input.location.clone(), input.size_bytes, leaves, runtime.clone());
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(source, metadata)
            .with_batch_size(window_rows)
            .build()
            .with_context(|| format!("cannot read {}", input.location))?;
        let mut first_row = 0;
        for batch in batches {
            let batch = batch.with_context(|| format!("cannot read {} after row {first_row}", input.location))?;
            let rows = batch.num_rows() as u64;
            if !push(Event::Rows(Rows { file, layout: Arc::clone(&layout), first_row, batch })) {
                return Ok(());
            }
            first_row += rows;
        }
        if !push(Event::End) {
            return Ok(());
        }
    }
    if let Some(window) = gatherer.finish() {
        drop(sender.blocking_send(Ok(window)));
    }
    Ok(())
}

/// Reads a file's footer and finds the columns. Blocks.
fn open(input: &InputFile, columns: &Columns, runtime: &Handle) -> Result<(ArrowReaderMetadata, Layout)> {
    let location = &input.location;
    // The footer is read onward, like one column.
    let source = ObjectFile::new(location.clone(), input.size_bytes, 1, runtime.clone());
    let metadata = ArrowReaderMetadata::load(&source, ArrowReaderOptions::new())
        .with_context(|| format!("cannot read {location} as Parquet"))?;
    let layout = Layout::new(metadata.schema(), columns).with_context(|| format!("cannot score {location}"))?;
    Ok((metadata, layout))
}
