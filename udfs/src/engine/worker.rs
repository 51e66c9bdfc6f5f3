//! Devices and the threads that feed them from one queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::backoff::{MemoryLimit, Ran};
use super::batch::{Batch, cut};
use super::session::{Feed, Program, Session, is_out_of_memory};
use super::window::{Cancel, Encoded, Window, WindowScores};
use super::{Device, EngineOptions, ScoreStats};
use crate::error::{Error, Result};

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
    /// Batches of a device that are under way at once.
    pub(crate) batches_in_flight: usize,
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
            let running = Arc::new(Mutex::new(Running { session, limit: MemoryLimit::default() }));
            for _ in 0..spec.batches_in_flight {
                let worker = Worker {
                    device: Arc::clone(&running),
                    feed: Feed::new(spec.pad_id),
                    devices,
                    stats: Arc::clone(&engine.stats),
                };
                let jobs = jobs.clone();
                let thread = std::thread::Builder::new()
                    .name(format!("rerank-{device}"))
                    .spawn(move || worker.work(&jobs))
                    .map_err(|e| Error::model(&spec.model, format!("its worker thread cannot be started: {e}")))?;
                engine.workers.push(thread);
            }
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
    let load = |device: Device| Session::load(&spec.program, &spec.model, spec.columns, device, spec.options.threads());
    std::thread::scope(|scope| {
        let loading: Vec<_> = spec.options.devices.iter().map(|device| scope.spawn(move || load(device))).collect();
        loading.into_iter().map(|loaded| loaded.join().unwrap_or(Err(Error::Stopped))).collect()
    })
}

/// A device and what is known of its memory.
struct Running {
    session: Session,
    limit: MemoryLimit,
}

/// One of the threads that share a device.
struct Worker {
    device: Arc<Mutex<Running>>,
    feed: Feed,
    /// How many devices there are.
    devices: u32,
    stats: Arc<Mutex<ScoreStats>>,
}

impl Worker {
    /// Runs batches until there can be no more.
    fn work(mut self, jobs: &Receiver<Job>) {
        for Job { window, batch } in jobs {
            let pairs = batch.members.len() as u64;
            let outcome = window.is_wanted().then(|| self.run(&window, batch)).flatten();
            // Before the scores are handed over: whoever has them finds what they cost.
            if let Some(Ok((_, cost))) = &outcome {
                *self.stats.lock().unwrap_or_else(PoisonError::into_inner) +=
                    ScoreStats { rows: pairs, pairs, ..*cost };
            }
            window.finish_batch(outcome);
        }
    }

    /// Pads a batch, then waits for the device and runs it; `None` if it is not wanted any more by then.
    fn run(&mut self, window: &Window, batch: Batch) -> Option<Result<(Vec<Ran>, ScoreStats)>> {
        let Self { device, feed, devices, .. } = self;
        feed.fill(window.pairs(&batch), batch.padded_tokens);
        let size = batch.members.len();

        let Running { session, limit } = &mut *device.lock().unwrap_or_else(PoisonError::into_inner);
        if !window.is_wanted() {
            return None;
        }
        let start = Instant::now();
        let ran = limit.run(
            batch,
            |member| window.tokens(member),
            is_out_of_memory,
            |part| {
                // A smaller one is a part of what has been padded.
                if part.members.len() < size {
                    feed.fill(window.pairs(part), part.padded_tokens);
                }
                session.run(feed)
            },
        );
        let device_time = start.elapsed() / *devices;
        Some(ran.map(|ran| {
            let cost = window.cost(&ran, device_time);
            (ran, cost)
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Reranker;
    use crate::text::EncodedPair;

    fn window(rows: u32) -> Encoded {
        let pair = |row: u32| EncodedPair {
            ids: (0..5 + row % 7).map(|token| 10 + (row * 31 + token * 7) % 500).collect(),
            query_tokens: 1,
            passage_tokens: 1,
            head_tokens: 0,
            tail_tokens: 0,
            truncated: false,
        };
        Encoded::of_pairs((0..rows).map(pair).collect())
    }

    /// Logits of several windows that are submitted at once, in batches of a few pairs.
    fn logits(program: &Program, batches_in_flight: usize) -> Vec<Vec<f32>> {
        let engine = Engine::start(&EngineSpec {
            program: program.clone(),
            model: "tiny".to_owned(),
            pad_id: 1,
            columns: 1,
            batch_tokens: 40,
            batches_in_flight,
            options: EngineOptions { threads: Some(1), ..EngineOptions::default() },
        })
        .unwrap();
        let results: Vec<_> = (1..20)
            .map(|rows| {
                let (sender, receiver) = std::sync::mpsc::channel();
                engine.submit(window(rows * 3), Cancel::default(), move |result| sender.send(result).unwrap());
                receiver
            })
            .collect();
        let logits = results.into_iter().map(|receiver| receiver.recv().unwrap().unwrap().logits).collect();
        assert!(engine.stats().batches > 100, "{:?}", engine.stats());
        logits
    }

    #[test]
    fn scores_do_not_depend_on_how_many_batches_are_in_flight() {
        let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-xlmr-reranker");
        let folder = tempfile::tempdir().unwrap();
        Reranker::open(checkpoint, &EngineOptions::default()).unwrap().export(folder.path()).unwrap();
        let program = Program::File(folder.path().join("model.onnx"));
        let one = logits(&program, 1);
        assert!(one.iter().flatten().all(|logit| logit.is_finite()));
        assert_eq!(logits(&program, 2), one);
        assert_eq!(logits(&program, 5), one);
    }
}
