//! Worker threads, one session each, fed from one queue.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::backoff::TokenBudget;
use super::batch::{Batch, cut};
use super::session::{Program, Session, is_out_of_memory};
use super::window::{Cancel, Encoded, Window, WindowScores};
use super::{Device, ScoreStats};
use crate::error::{Error, Result};

/// How a model is run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Where the model runs. Default: the CPU.
    pub device: Device,
    /// Threads of the CPU device. Default: all cores that the process may use.
    pub threads: Option<usize>,
    /// Most tokens in a device batch, padding included. Default: 4,096 on the CPU, 65,536 on a GPU.
    pub batch_tokens: Option<usize>,
    /// Folder in which weights of another [`Precision`](crate::Precision) are kept. Default: the variable
    /// `RERANK_CACHE`, or else `rerank` in the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl EngineOptions {
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.unwrap_or_else(|| self.device.default_batch_tokens())
    }
}

/// What an engine runs: everything a session is loaded from.
#[derive(Debug, Clone)]
pub(crate) struct EngineSpec {
    pub(crate) program: Program,
    /// The model's location, for messages.
    pub(crate) model: String,
    pub(crate) pad_id: u32,
    /// Scores per pair.
    pub(crate) columns: usize,
    pub(crate) options: EngineOptions,
}

struct Job {
    window: Arc<Window>,
    batch: Batch,
}

/// A loaded model that scores windows.
pub(crate) struct Engine {
    queue: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
    columns: usize,
    batch_tokens: usize,
    stats: Arc<Mutex<ScoreStats>>,
}

impl Engine {
    /// Loads the model and starts its worker.
    ///
    /// # Errors
    /// Those of [`Session::load`].
    pub(crate) fn start(spec: &EngineSpec) -> Result<Self> {
        let session = Session::load(&spec.program, &spec.model, spec.pad_id, spec.columns, &spec.options)?;
        let (queue, jobs) = crossbeam_channel::unbounded();
        let batch_tokens = spec.options.batch_tokens();
        let stats = Arc::<Mutex<ScoreStats>>::default();
        let worker_stats = Arc::clone(&stats);
        let worker = std::thread::Builder::new()
            .name("rerank-worker".to_owned())
            .spawn(move || work(session, TokenBudget::new(batch_tokens), &jobs, &worker_stats))
            .map_err(|e| Error::model(&spec.model, format!("its worker thread cannot be started: {e}")))?;
        Ok(Self { queue: Some(queue), worker: Some(worker), columns: spec.columns, batch_tokens, stats })
    }

    /// What the device has run so far, for whomever.
    pub(crate) fn stats(&self) -> ScoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the rows into batches and queues them. `on_done` is called with the scores from a worker thread, or from
    /// this one if there is nothing to run; it is dropped if the engine stops before that.
    ///
    /// The queue itself is not bounded: whoever submits bounds the windows in flight.
    pub(crate) fn submit(
        &self,
        encoded: Encoded,
        cancel: Cancel,
        on_done: impl FnOnce(Result<WindowScores>) + Send + 'static,
    ) {
        let batches = cut(&encoded.lengths(), self.batch_tokens);
        let window = Arc::new(Window::new(encoded, self.columns, batches.len(), cancel, Box::new(on_done)));
        if batches.is_empty() {
            window.complete();
        }
        for batch in batches {
            let job = Job { window: Arc::clone(&window), batch };
            // With the worker gone the jobs are dropped, and with the last of them the caller's callback.
            if self.queue.as_ref().is_none_or(|queue| queue.send(job).is_err()) {
                return;
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(worker) = self.worker.take()
            // The last handle may be dropped by a callback, on the worker itself.
            && worker.thread().id() != std::thread::current().id()
            && worker.join().is_err()
        {
            tracing::error!("a scoring worker panicked");
        }
    }
}

fn work(mut session: Session, mut budget: TokenBudget, jobs: &Receiver<Job>, stats: &Mutex<ScoreStats>) {
    for Job { window, batch } in jobs {
        let pairs = batch.members.len() as u64;
        let outcome = window.is_wanted().then(|| {
            let start = Instant::now();
            let ran = budget.run(
                batch,
                |member| window.tokens(member),
                is_out_of_memory,
                |batch| session.run(window.pairs(batch), batch.padded_tokens),
            )?;
            let cost = window.cost(&ran, start.elapsed());
            Ok((ran, cost))
        });
        // Before the scores are handed over: whoever has them finds what they cost.
        if let Some(Ok((_, cost))) = &outcome {
            *stats.lock().unwrap_or_else(PoisonError::into_inner) += ScoreStats { rows: pairs, pairs, ..*cost };
        }
        window.finish_batch(outcome);
    }
}
