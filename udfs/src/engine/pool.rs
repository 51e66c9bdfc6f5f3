//! Devices and the queue that feeds them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use super::activity::{Activity, Submitted};
use super::batch::{Batch, cut};
use super::options::EngineOptions;
use super::session::{Feed, Program, RunBatch, Session};
use super::window::{Cancel, Encoded, Window, WindowScores};
use super::worker::{QueuedBatch, Running, Worker};
use super::{Device, ScoreStats};
use crate::error::{Error, Result};
use crate::panics::panicked;

/// What an engine runs: everything needed to load its sessions.
#[derive(Debug, Clone)]
pub(crate) struct EngineSpec {
    pub(crate) program: Program,
    /// The model's location, for messages.
    pub(crate) model: String,
    pub(crate) pad_id: u32,
    /// Scores per pair.
    pub(crate) columns: usize,
    /// Token budget of a batch.
    pub(crate) batch_tokens: usize,
    /// Batches in flight on each device.
    pub(crate) batches_in_flight: usize,
    pub(crate) options: EngineOptions,
    /// Counts what the engine has to do.
    pub(crate) activity: Activity,
}

/// A loaded model that scores windows.
pub(crate) struct Engine {
    queue: Option<Sender<QueuedBatch>>,
    workers: Vec<JoinHandle<()>>,
    columns: usize,
    batch_tokens: AtomicUsize,
    stats: Arc<Mutex<ScoreStats>>,
    activity: Activity,
}

impl Engine {
    /// Loads the model on each device and starts the workers.
    ///
    /// # Errors
    /// Those of [`Session::load`]; [`Error::Model`] if a worker's thread cannot be started.
    pub(crate) fn start(spec: &EngineSpec) -> Result<Self> {
        Self::with_sessions(load_on_each(spec)?, spec)
    }

    /// Starts the workers of `sessions`, one for each device.
    fn with_sessions<R: RunBatch>(sessions: Vec<R>, spec: &EngineSpec) -> Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded();
        let mut engine = Self {
            queue: Some(queue),
            workers: Vec::new(),
            columns: spec.columns,
            batch_tokens: AtomicUsize::new(spec.batch_tokens),
            stats: Arc::default(),
            activity: spec.activity.clone(),
        };
        let devices = sessions.len() as u32;
        for (session, device) in sessions.into_iter().zip(spec.options.devices.iter()) {
            let running = Arc::new(Mutex::new(Running::new(session)));
            for _ in 0..spec.batches_in_flight {
                let worker = Worker {
                    model: spec.model.clone(),
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

    /// What the devices have run so far, for all callers.
    pub(crate) fn stats(&self) -> ScoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token budget of a batch, padding included.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.load(Ordering::Relaxed)
    }

    /// Sets the token budget of windows that are submitted from now on.
    pub(crate) fn set_batch_tokens(&self, tokens: usize) {
        self.batch_tokens.store(tokens, Ordering::Relaxed);
    }

    /// Cuts the rows into batches and queues them. Calls `on_done` with the scores, on a worker thread, or on this
    /// thread if there is nothing to run. Drops it if the engine stops before that.
    ///
    /// The queue is unbounded: callers bound the windows in flight. `submitted` counts the window until `on_done` is
    /// called or dropped.
    pub(crate) fn submit(
        &self,
        encoded: Encoded,
        cancel: Cancel,
        submitted: Submitted,
        on_done: impl FnOnce(Result<WindowScores>) + Send + 'static,
    ) {
        let batches = cut(&encoded.lengths(), self.batch_tokens());
        self.queue(encoded, batches, cancel, submitted, on_done);
    }

    /// Runs the rows as one batch, whatever its size, and returns its cost. Blocks until the batch has run. A batch
    /// that does not fit into the device's memory runs in parts.
    ///
    /// # Errors
    /// Those of running a model.
    pub(crate) fn run_whole(&self, encoded: Encoded) -> Result<ScoreStats> {
        let batches = cut(&encoded.lengths(), usize::MAX);
        let (sender, receiver) = std::sync::mpsc::channel();
        // The receiver is dropped only when this call ends.
        let submitted = self.activity.submit();
        self.queue(encoded, batches, Cancel::default(), submitted, move |result| drop(sender.send(result)));
        Ok(receiver.recv().map_err(|_| Error::Stopped)??.stats)
    }

    fn queue(
        &self,
        encoded: Encoded,
        batches: Vec<Batch>,
        cancel: Cancel,
        mut submitted: Submitted,
        on_done: impl FnOnce(Result<WindowScores>) + Send + 'static,
    ) {
        let queued = submitted.queue(batches.len());
        let on_done = move |result| {
            // First, so that whoever gets the last answer finds the engine idle.
            drop(submitted);
            on_done(result);
        };
        let window = Arc::new(Window::new(encoded, self.columns, batches.len(), cancel, Box::new(on_done)));
        if batches.is_empty() {
            window.complete();
        }
        for (batch, queued) in batches.into_iter().zip(queued) {
            let job = QueuedBatch { window: Arc::clone(&window), batch, queued };
            // If the workers are gone, the jobs are dropped, and the caller's callback with the last of them.
            if self.queue.as_ref().is_none_or(|queue| queue.send(job).is_err()) {
                return;
            }
        }
    }
}

impl Drop for Engine {
    /// Closes the queue and waits until the workers have drained it.
    fn drop(&mut self) {
        drop(self.queue.take());
        for worker in self.workers.drain(..) {
            // A callback runs on a worker and may drop the last handle, and a thread cannot join itself.
            if worker.thread().id() != std::thread::current().id() && worker.join().is_err() {
                tracing::error!("a scoring worker panicked");
            }
        }
    }
}

/// Loads a session on each device, all at once: what one reads from disk is then in memory for the others.
fn load_on_each(spec: &EngineSpec) -> Result<Vec<Session>> {
    let EngineSpec { program, model, columns, options, .. } = spec;
    let load = |device: Device| Session::load(program, model, *columns, device, options.threads());
    std::thread::scope(|scope| {
        let threads: Vec<_> = options.devices.iter().map(|device| scope.spawn(move || load(device))).collect();
        let sessions = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|payload| Err(panicked(model, "loading", payload.as_ref()))));
        sessions.collect()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Reranker;
    use crate::engine::Load;
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

    /// Logits of several windows submitted at once, in batches of a few pairs.
    fn logits(program: &Program, batches_in_flight: usize) -> Vec<Vec<f32>> {
        let engine = Engine::start(&EngineSpec {
            program: program.clone(),
            model: "tiny".to_owned(),
            pad_id: 1,
            columns: 1,
            batch_tokens: 40,
            batches_in_flight,
            options: EngineOptions { threads: Some(1), ..EngineOptions::default() },
            activity: Activity::default(),
        })
        .unwrap();
        let results: Vec<_> = (1..20)
            .map(|rows| {
                let (sender, receiver) = std::sync::mpsc::channel();
                engine.submit(window(rows * 3), Cancel::default(), engine.activity.submit(), move |result| {
                    sender.send(result).unwrap();
                });
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
        Reranker::open(checkpoint, &EngineOptions::default()).unwrap().model().export(folder.path()).unwrap();
        let program = Program::File(folder.path().join("model.onnx"));
        let one = logits(&program, 1);
        assert!(one.iter().flatten().all(|logit| logit.is_finite()));
        assert_eq!(logits(&program, 2), one);
        assert_eq!(logits(&program, 5), one);
    }

    /// Scores every pair with its length. Panics in the listed runs, counted from 1.
    struct Brittle {
        runs: usize,
        panics: &'static [usize],
    }

    impl RunBatch for Brittle {
        fn run(&mut self, feed: &Feed) -> Result<Vec<f32>> {
            self.runs += 1;
            assert!(!self.panics.contains(&self.runs), "run {} is broken", self.runs);
            Ok(feed.lengths().map(|tokens| tokens as f32).collect())
        }
    }

    /// An engine on a device that panics, with its counters.
    fn brittle(panics: &'static [usize], batches_in_flight: usize) -> Engine {
        let spec = EngineSpec {
            program: Program::File("no-such-file".into()),
            model: "brittle".to_owned(),
            pad_id: 1,
            columns: 1,
            batch_tokens: usize::MAX,
            batches_in_flight,
            options: EngineOptions::default(),
            activity: Activity::default(),
        };
        Engine::with_sessions(vec![Brittle { runs: 0, panics }], &spec).unwrap()
    }

    #[test]
    fn a_panic_fails_its_window_and_no_other() {
        for batches_in_flight in [1, 2] {
            let engine = brittle(&[2, 3, 5], batches_in_flight);
            for run in 1..=9 {
                let (sender, receiver) = std::sync::mpsc::channel();
                engine.submit(window(3), Cancel::default(), engine.activity.submit(), move |result| {
                    sender.send(result).unwrap();
                });
                let result = receiver.recv().unwrap();
                if [2, 3, 5].contains(&run) {
                    assert_eq!(
                        result.unwrap_err().to_string(),
                        format!(
                            "model 'brittle': scoring 3 pairs of 7 tokens panicked: run {run} is broken; this is a bug, please report it"
                        )
                    );
                } else {
                    assert_eq!(result.unwrap().logits, [5.0, 6.0, 7.0], "run {run}, {batches_in_flight} in flight");
                }
            }
            assert_eq!(engine.stats().batches, 6);
        }
    }

    #[test]
    fn windows_that_are_queued_behind_a_panic_are_scored() {
        for batches_in_flight in [1, 2] {
            let engine = brittle(&[1], batches_in_flight);
            let (sender, receiver) = std::sync::mpsc::channel();
            for _ in 0..20 {
                let sender = sender.clone();
                engine.submit(window(3), Cancel::default(), engine.activity.submit(), move |result| {
                    sender.send(result.is_ok()).unwrap();
                });
            }
            drop(sender);
            // Ends only if every callback was called or dropped.
            let scored: Vec<bool> = receiver.iter().collect();
            assert_eq!((scored.len(), scored.iter().filter(|scored| !**scored).count()), (20, 1));
        }
    }

    #[test]
    fn a_callback_that_panics_does_not_stop_the_worker() {
        let engine = brittle(&[], 1);
        engine.submit(window(1), Cancel::default(), engine.activity.submit(), |_| panic!("nobody expected scores"));
        assert_eq!(engine.run_whole(window(3)).unwrap().batches, 1);
    }

    #[test]
    fn what_is_answered_cancelled_or_broken_is_no_longer_counted() {
        let activity = |engine: &Engine| *engine.activity.watch().borrow();
        let engine = brittle(&[1, 3], 2);
        let cancelled = Cancel::default();
        cancelled.cancel();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        for cancel in [Cancel::default(), Cancel::default(), cancelled, Cancel::default()] {
            let sender = sender.clone();
            let submitted = engine.activity.submit();
            assert!(!activity(&engine).is_idle());
            engine.submit(window(3), cancel, submitted, move |_| {
                drop(sender);
                panic!("nobody expected scores");
            });
        }
        drop(sender);
        assert!(receiver.recv().is_err());
        // A window without batches is answered at once.
        let (sender, receiver) = std::sync::mpsc::channel();
        engine.submit(window(0), Cancel::default(), engine.activity.submit(), move |_| sender.send(()).unwrap());
        receiver.recv().unwrap();
        assert_eq!(activity(&engine), Load::default());
    }

    #[test]
    fn dropping_an_engine_waits_for_its_workers() {
        let engine = brittle(&[1], 2);
        let (sender, receiver) = std::sync::mpsc::channel();
        for _ in 0..3 {
            let sender = sender.clone();
            engine.submit(window(3), Cancel::default(), engine.activity.submit(), move |result| {
                sender.send(result.is_ok()).unwrap();
            });
        }
        drop((engine, sender));
        assert_eq!(receiver.try_iter().count(), 3);
    }
}
