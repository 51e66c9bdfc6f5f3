//! Runs blocking work from any runtime.

use datafusion::error::{DataFusionError, Result};
use tokio::runtime::{Handle, RuntimeFlavor, worker_index};

/// Runs work that may block for seconds, without holding up other tasks.
pub(super) async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match Handle::try_current() {
        Ok(handle) => {
            handle.spawn_blocking(work).await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
        }
        Err(_) => work(),
    }
}

/// Runs work that may block for seconds from a synchronous function, which cannot wait for it otherwise. The work must
/// not use the runtime.
///
/// On a worker of a multi-threaded runtime, the worker's other tasks move to another thread. On all other threads (that
/// of `block_on`, that of a `LocalSet`, where `block_in_place` would panic, a blocking thread, or one outside any
/// runtime) nothing can be moved, and the work runs like any other code.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    match (flavor, worker_index()) {
        (Ok(RuntimeFlavor::MultiThread), Some(_)) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, spawn, spawn_blocking, spawn_local};

    use super::*;

    /// From a task, from a local task, from a blocking thread, and nested.
    async fn from_everywhere() {
        assert_eq!(blocking(|| blocking(|| 1)), 1);
        assert_eq!(spawn(async { blocking(|| blocking(|| 2)) }).await.unwrap(), 2);
        assert_eq!(spawn_blocking(|| blocking(|| 3)).await.unwrap(), 3);
        let local = LocalSet::new();
        let task = local.run_until(async { spawn_local(async { blocking(|| blocking(|| 4)) }).await.unwrap() });
        assert_eq!(task.await, 4);
    }

    #[test]
    fn it_runs_on_every_runtime_and_on_none() {
        assert_eq!(blocking(|| 0), 0);
        Builder::new_current_thread().build().unwrap().block_on(from_everywhere());
        let many = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        many.block_on(from_everywhere());
        // A local set that a worker runs and that calls back into the runtime.
        let nested = many.spawn(async {
            blocking(|| {
                let local = LocalSet::new();
                Handle::current().block_on(local.run_until(async { blocking(|| 5) }))
            })
        });
        assert_eq!(many.block_on(nested).unwrap(), 5);
    }
}
