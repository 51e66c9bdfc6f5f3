//! The threads that encode windows.
//!
//! They are no threads of rayon's pool, which does the work: a thread of the pool that waits for parts of one window
//! begins another window meanwhile, and within that a third, until its stack is full; and it would do so while it
//! holds the lock under which a model is loaded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crossbeam_channel::{Receiver, Sender};

type Job = Box<dyn FnOnce() + Send>;

/// Windows encoded at once in this process. The distinct texts of one already keep all cores busy; the others' work
/// fills in where that is sequential.
const THREADS: usize = 4;

/// Runs `job` on one of the encoding threads, first come, first served. It is dropped if the system had no thread to
/// give.
pub(crate) fn run_on_encoding_thread(job: impl FnOnce() + Send + 'static) {
    static QUEUE: OnceLock<Sender<Job>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (queue, jobs) = crossbeam_channel::unbounded::<Job>();
        for index in 0..THREADS {
            let jobs = jobs.clone();
            let thread = std::thread::Builder::new().name(format!("rerank-encode-{index}"));
            if let Err(error) = thread.spawn(move || work(&jobs)) {
                tracing::warn!("encoding thread {index} of {THREADS} cannot be started: {error}");
            }
        }
        queue
    });
    // Fails if no thread could be started: they end only with the process.
    drop(queue.send(Box::new(job)));
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        // Whoever waits learns of it, since what the job would have answered through is dropped.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("encoding a window panicked");
        }
    }
}
