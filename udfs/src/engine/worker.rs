//! Worker threads, one a device, fed from one queue.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::backoff::MemoryLimit;
use super::batch::{Batch, cut};
use super::session::{Program, Session, is_out_of_memory};
use super::window::{Cancel, Encoded, Window, WindowScores};
use super::{Device, Devices, ScoreStats};
use crate::error::{Error, Result};

/// How a model is run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Where the model runs. Default: the CPU.
    pub devices: Devices,
    /// Threads of the CPU device. Default: all cores that the process may use.
    pub threads: Option<usize>,
    /// Most tokens in a device batch, padding included. Default: what
    /// [`Reranker::tune_batches`](crate::Reranker::tune_batches) found, or else 512 a thread on the CPU, 65,536 on a GPU.
    pub batch_tokens: Option<usize>,
    /// Folder in which weights of another [`Precision`](crate::Precision) and what was measured of batches are kept.
    /// Default: the variable `RERANK_CACHE`, or else `rerank` in the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl EngineOptions {
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Tokens of a batch where neither the caller nor a measurement says.
    pub(crate) fn usual_batch_tokens(&self) -> usize {
        self.devices.usual_batch_tokens(self.threads())
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
    /// Most tokens in a batch.
    pub(crate) batch_tokens: usize,
    pub(crate) options: EngineOptions,
}

struct Job {
    window: Arc<Window>,
    batch: Batch,
}

/// A loaded model that scores windows.
pub(crate) struct Engine {
    queue: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    columns: usize,
    batch_tokens: AtomicUsize,
    stats: Arc<Mutex<ScoreStats>>,
}

impl Engine {
    /// Loads the model on each device and starts their workers.
    ///
    /// # Errors
    /// Those of [`Session::load`].
    pub(crate) fn start(spec: &EngineSpec) -> Result<Self> {
        let sessions = load_on_each(spec)?;
        let (queue, jobs) = crossbeam_channel::unbounded();
        let mut engine = Self {
            queue: Some(queue),
            workers: Vec::new(),
            columns: spec.columns,
            batch_tokens: AtomicUsize::new(spec.batch_tokens),
            stats: Arc::default(),
        };
        let devices = sessions.len() as u32;
        for (session, device) in sessions.into_iter().zip(spec.options.devices.iter()) {
            let (jobs, stats) = (jobs.clone(), Arc::clone(&engine.stats));
            let worker = std::thread::Builder::new()
                .name(format!("rerank-{device}"))
                .spawn(move || work(session, &jobs, devices, &stats))
                .map_err(|e| Error::model(&spec.model, format!("its worker thread cannot be started: {e}")))?;
            engine.workers.push(worker);
        }
        Ok(engine)
    }

    /// What the device has run so far, for whomever.
    pub(crate) fn stats(&self) -> ScoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most tokens in a batch.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.load(Ordering::Relaxed)
    }

    /// Sets how windows are cut that are submitted from now on.
    pub(crate) fn set_batch_tokens(&self, tokens: usize) {
        self.batch_tokens.store(tokens, Ordering::Relaxed);
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
        let batches = cut(&encoded.lengths(), self.batch_tokens());
        self.queue(encoded, batches, cancel, on_done);
    }

    /// Runs the rows as one batch, whatever its size, and gives what it cost; blocks until it has run. A batch that does
    /// not fit into the device's memory runs in parts.
    ///
    /// # Errors
    /// Those of running a model.
    pub(crate) fn run_whole(&self, encoded: Encoded) -> Result<ScoreStats> {
        let batches = cut(&encoded.lengths(), usize::MAX);
        let (sender, receiver) = std::sync::mpsc::channel();
        // The receiver is gone only with this call.
        self.queue(encoded, batches, Cancel::default(), move |result| drop(sender.send(result)));
        Ok(receiver.recv().map_err(|_| Error::Stopped)??.stats)
    }

    fn queue(
        &self,
        encoded: Encoded,
        batches: Vec<Batch>,
        cancel: Cancel,
        on_done: impl FnOnce(Result<WindowScores>) + Send + 'static,
    ) {
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
        for worker in self.workers.drain(..) {
            // The last handle may be dropped by a callback, on a worker itself.
            if worker.thread().id() != std::thread::current().id() && worker.join().is_err() {
                tracing::error!("a scoring worker panicked");
            }
        }
    }
}

/// A session on each device, loaded at the same time: what is read from disk once is still in memory for the others.
fn load_on_each(spec: &EngineSpec) -> Result<Vec<Session>> {
    let load = |device: Device| {
        Session::load(&spec.program, &spec.model, spec.pad_id, spec.columns, device, spec.options.threads())
    };
    std::thread::scope(|scope| {
        let loading: Vec<_> = spec.options.devices.iter().map(|device| scope.spawn(move || load(device))).collect();
        loading.into_iter().map(|loaded| loaded.join().unwrap_or(Err(Error::Stopped))).collect()
    })
}

/// Runs batches until there can be no more; `devices` is how many workers do.
fn work(mut session: Session, jobs: &Receiver<Job>, devices: u32, stats: &Mutex<ScoreStats>) {
    let mut limit = MemoryLimit::default();
    for Job { window, batch } in jobs {
        let pairs = batch.members.len() as u64;
        let outcome = window.is_wanted().then(|| {
            let start = Instant::now();
            let ran = limit.run(
                batch,
                |member| window.tokens(member),
                is_out_of_memory,
                |batch| session.run(window.pairs(batch), batch.padded_tokens),
            )?;
            let cost = window.cost(&ran, start.elapsed() / devices);
            Ok((ran, cost))
        });
        // Before the scores are handed over: whoever has them finds what they cost.
        if let Some(Ok((_, cost))) = &outcome {
            *stats.lock().unwrap_or_else(PoisonError::into_inner) += ScoreStats { rows: pairs, pairs, ..*cost };
        }
        window.finish_batch(outcome);
    }
}
