//! The threads that encode windows.
//!
//! The work itself runs on rayon's pool, but windows must not start there: a pool thread that waits for parts of one
//! window would start another window meanwhile, and a third within that, until its stack overflows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crossbeam_channel::{Receiver, Sender};

type Encoding = Box<dyn FnOnce() + Send>;

/// Windows encoded at once in this process. One keeps all cores busy while it tokenizes; the others fill the gaps in
/// its sequential parts.
const THREADS: usize = 4;

/// Runs `job` on one of the encoding threads, first come, first served. Drops it if the system could not start any.
pub(crate) fn run_on_encoding_thread(job: impl FnOnce() + Send + 'static) {
    static QUEUE: OnceLock<Sender<Encoding>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (queue, jobs) = crossbeam_channel::unbounded::<Encoding>();
        for index in 0..THREADS {
            let jobs = jobs.clone();
            let thread = std::thread::Builder::new().name(format!("rerank-encode-{index}"));
            if let Err(error) = thread.spawn(move || work(&jobs)) {
                tracing::warn!("encoding thread {index} of {THREADS} cannot be started: {error}");
            }
        }
        queue
    });
    // Fails only if no thread could be started: the threads never end.
    drop(queue.send(Box::new(job)));
}

fn work(jobs: &Receiver<Encoding>) {
    for job in jobs {
        // Jobs catch the panics of their own work. A callback may still panic, and the thread serves other callers too.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a callback panicked on an encoding thread");
        }
    }
}
