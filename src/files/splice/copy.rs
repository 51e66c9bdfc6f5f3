//! The copy, fed with the rows of the added columns.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::writer::SpliceWriter;
use crate::files::format::Compression;
use crate::files::input::InputFile;
use crate::storage::Upload;

/// Row groups of added columns that wait for the thread.
const GROUPS_AHEAD: usize = 1;

/// Writes a copy of some row groups of a Parquet file with added columns.
///
/// A thread copies the chunks of a row group while its scores are being computed, and waits for them.
pub(crate) struct Splice {
    thread: Option<JoinHandle<(SpliceWriter, Result<()>)>>,
    /// Takes the added columns of one row group after the other.
    sender: Option<mpsc::Sender<RecordBatch>>,
    /// The rows of each row group that is left.
    groups: std::vec::IntoIter<usize>,
    /// The rows of the row group that is being filled; `None` after the last.
    wanted: Option<usize>,
    /// Rows of the added columns that do not make up a row group yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    input: InputFile,
    added: SchemaRef,
    /// The upload, after a thread that has ended.
    upload: Option<Upload>,
    abandoned: Arc<AtomicBool>,
}

impl Splice {
    /// Begins a copy of these row groups of `input` with the columns `added`. Reads the input's footer. Copying ends
    /// with an error soon after `stopped` is true.
    ///
    /// # Errors
    /// If the file cannot be read, or cannot be copied with more columns.
    pub(crate) async fn begin(
        input: InputFile,
        groups: Range<usize>,
        added: SchemaRef,
        compression: Compression,
        upload: Upload,
        stopped: Arc<AtomicBool>,
    ) -> Result<Self> {
        let runtime = Handle::current();
        let abandoned = Arc::<AtomicBool>::default();
        let mut writer = {
            let (input, added) = (input.clone(), Arc::clone(&added));
            let stopped = [stopped, Arc::clone(&abandoned)];
            let open = move || SpliceWriter::open(&input, groups, &added, compression, upload, &runtime, stopped);
            tokio::task::spawn_blocking(open).await.context("the copy was not begun")??
        };
        let mut rows = writer.rows.clone().into_iter();
        let wanted = rows.next();
        let (sender, receiver) = mpsc::channel(GROUPS_AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            let written = writer.write_groups(receiver);
            (writer, written)
        });
        Ok(Self {
            thread: Some(thread),
            sender: Some(sender),
            groups: rows,
            wanted,
            pending: Vec::new(),
            pending_rows: 0,
            input,
            added,
            upload: None,
            abandoned,
        })
    }

    /// Appends rows of the added columns.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.pending_rows += rows.num_rows();
        self.pending.push(rows.clone());
        self.send_full().await
    }

    /// Hands the row groups that are complete to the thread.
    async fn send_full(&mut self) -> Result<()> {
        while let Some(wanted) = self.wanted.filter(|wanted| *wanted <= self.pending_rows) {
            let pending = concat_batches(&self.added, &self.pending)?;
            self.pending_rows -= wanted;
            self.pending = vec![pending.slice(wanted, self.pending_rows)];
            let sender = self.sender.as_ref().context("the copy has ended")?;
            if sender.send(pending.slice(0, wanted)).await.is_err() {
                return self.join(false).await;
            }
            self.wanted = self.groups.next();
        }
        Ok(())
    }

    /// Writes the footer and makes the file appear, if it is complete and the input is what it was.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.send_full().await?;
        if self.wanted.is_some() || self.pending_rows > 0 {
            bail!("the scores are not those of {}: it has another number of rows", self.input.location);
        }
        self.join(true).await?;
        self.input.check_unchanged().await?;
        Ok(self.upload.as_mut().context("the copy has ended")?.finish().await?)
    }

    /// Waits for the thread, which writes the footer if the copy is complete.
    async fn join(&mut self, complete: bool) -> Result<()> {
        self.sender = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let (mut writer, written) = thread.await.context("the copy has ended")?;
        let footer = move || {
            let written = written.and_then(|()| if complete { writer.write_footer() } else { Ok(()) });
            (writer.output.upload.take(), written)
        };
        let (upload, written) = tokio::task::spawn_blocking(footer).await.context("the copy has ended")?;
        self.upload = upload;
        written
    }

    /// The upload, also of a copy that failed or is not complete.
    pub(crate) async fn into_upload(mut self) -> Option<Upload> {
        self.abandoned.store(true, Ordering::Relaxed);
        // There is another error to report.
        drop(self.join(false).await);
        self.upload
    }
}
