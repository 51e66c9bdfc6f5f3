//! What is written, on its way to an upload.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use crate::storage::Upload;

/// Bytes handed to the upload at once.
const PIECE_BYTES: usize = 1 << 20;

/// Sends what is written to an upload, on a thread that may block.
pub(super) struct UploadSink {
    pub(super) upload: Option<Upload>,
    /// Bytes written.
    pub(super) position: u64,
    piece: Vec<u8>,
    runtime: Handle,
    /// Whether the file is no longer wanted: because the run was stopped, or because this copy failed.
    stopped: [Arc<AtomicBool>; 2],
}

impl UploadSink {
    pub(super) fn new(upload: Upload, runtime: Handle, stopped: [Arc<AtomicBool>; 2]) -> Self {
        Self { upload: Some(upload), position: 0, piece: Vec::new(), runtime, stopped }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.stopped.iter().any(|stopped| stopped.load(Ordering::Relaxed)) {
            return Err(io::Error::other("the copy was stopped"));
        }
        let piece = std::mem::take(&mut self.piece);
        let upload = self.upload.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(self.runtime.block_on(upload.put(piece.into()))?)
    }
}

impl Write for UploadSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES + bytes.len());
        }
        self.piece.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}
