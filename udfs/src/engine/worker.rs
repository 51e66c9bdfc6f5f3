//! The threads that run batches on a device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::ScoreStats;
use super::activity::Queued;
use super::backoff::{MemoryLimit, Ran};
use super::batch::Batch;
use super::session::{Feed, RunBatch, is_out_of_memory};
use super::window::Window;
use crate::error::Result;
use crate::panics::catch_panic;

/// A batch in the queue.
pub(super) struct QueuedBatch {
    pub(super) window: Arc<Window>,
    pub(super) batch: Batch,
    /// Counts it until it is taken.
    pub(super) queued: Queued,
}

/// A device and what is known of its memory. The device's threads take turns with it.
///
/// It stays usable if a thread panics while running a batch, so a poisoned lock is ignored: the session keeps nothing
/// between batches, and the limit is updated between runs.
pub(super) struct Running<R> {
    session: R,
    limit: MemoryLimit,
}

impl<R> Running<R> {
    pub(super) fn new(session: R) -> Self {
        Self { session, limit: MemoryLimit::default() }
    }
}

/// One of the threads that share a device.
pub(super) struct Worker<R> {
    /// The model's location, for messages.
    pub(super) model: String,
    pub(super) device: Arc<Mutex<Running<R>>>,
    /// Filled from scratch for each batch.
    pub(super) feed: Feed,
    /// The number of devices.
    pub(super) devices: u32,
    pub(super) stats: Arc<Mutex<ScoreStats>>,
}

impl<R: RunBatch> Worker<R> {
    /// Runs batches until the queue is closed. A panic fails its window only, and the thread takes the next batch.
    pub(super) fn work(mut self, jobs: &Receiver<QueuedBatch>) {
        let model = self.model.clone();
        for QueuedBatch { window, batch, queued } in jobs {
            drop(queued);
            let (pairs, padded_tokens) = (batch.members.len(), batch.padded_tokens);
            let scoring = format_args!("scoring {pairs} pairs of {padded_tokens} tokens");
            let ran = catch_panic(&model, scoring, || self.run(&window, batch));
            // Count before handing over the scores, so that a caller that has them also sees their cost.
            if let Ok(Some((_, cost))) = &ran {
                let pairs = pairs as u64;
                *self.stats.lock().unwrap_or_else(PoisonError::into_inner) +=
                    ScoreStats { rows: pairs, pairs, ..*cost };
            }
            let finish = || {
                window.finish_batch(ran.transpose());
                Ok(())
            };
            if let Err(error) = catch_panic(&model, "handing over scores", finish) {
                tracing::error!("{error}");
            }
        }
    }

    /// Pads a batch, waits for the device and runs the batch. Returns `None` if it is no longer wanted by then.
    fn run(&mut self, window: &Window, batch: Batch) -> Result<Option<(Vec<Ran>, ScoreStats)>> {
        if !window.is_wanted() {
            return Ok(None);
        }
        let Self { device, feed, devices, .. } = self;
        feed.fill(window.pairs(&batch), batch.padded_tokens);
        let size = batch.members.len();

        let Running { session, limit } = &mut *device.lock().unwrap_or_else(PoisonError::into_inner);
        if !window.is_wanted() {
            return Ok(None);
        }
        let start = Instant::now();
        let ran = limit.run(
            batch,
            |member| window.tokens(member),
            is_out_of_memory,
            |part| {
                // The feed holds the whole batch; pad again for a part.
                if part.members.len() < size {
                    feed.fill(window.pairs(part), part.padded_tokens);
                }
                session.run(feed)
            },
        )?;
        let cost = window.cost(&ran, start.elapsed() / *devices);
        Ok(Some((ran, cost)))
    }
}
