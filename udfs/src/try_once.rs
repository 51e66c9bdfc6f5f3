//! A value that is made on first use, where making it may fail.

use std::sync::{Mutex, OnceLock, PoisonError};

/// A cell for one value. Callers that need it while it is being made wait for it; a failure is returned to the caller
/// that tried, and the next one tries again. (`OnceLock` with a fallible initialiser, which std has not stabilised.)
#[derive(Debug)]
pub(crate) struct TryOnceLock<T> {
    value: OnceLock<T>,
    /// Held while the value is made, and by nobody who only reads it.
    making: Mutex<()>,
}

impl<T> TryOnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self { value: OnceLock::new(), making: Mutex::new(()) }
    }

    /// The value, if it has been made. Never waits.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Sets the value, unless there is one already; then `value` comes back.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)
    }

    /// The value, made with `make` if this is its first use.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        // Poisoned if an earlier `make` panicked: it left no value, so this caller tries again.
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = make()?;
        Ok(self.value.get_or_init(|| value))
    }
}

impl<T> Default for TryOnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded as channel;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn callers_at_once_share_one_attempt() {
        let (cell, attempts) = (TryOnceLock::new(), AtomicUsize::new(0));
        let (begun, begins) = channel();
        let (finish, finished) = channel::<()>();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                cell.get_or_try_init(|| {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    begun.send(()).unwrap();
                    finished.recv().unwrap();
                    Ok::<_, ()>(7)
                })
                .copied()
            });
            begins.recv().unwrap();
            assert_eq!(cell.get(), None, "a reader does not wait");
            let second = scope.spawn(|| {
                cell.get_or_try_init(|| {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, ()>(8)
                })
                .copied()
            });
            finish.send(()).unwrap();
            assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(7), Ok(7)));
        });
        assert_eq!(attempts.into_inner(), 1);
    }

    #[test]
    fn a_failure_is_retried_and_a_value_stays() {
        let cell = TryOnceLock::new();
        assert_eq!(cell.get_or_try_init(|| Err("no disk")), Err("no disk"));
        assert!(
            catch_unwind(AssertUnwindSafe(|| cell.get_or_try_init(|| -> Result<_, ()> { panic!("a bug") }))).is_err()
        );
        assert_eq!(cell.get_or_try_init(|| Ok::<_, ()>(1)), Ok(&1));
        assert_eq!(cell.get_or_try_init(|| Err("no disk")), Ok(&1));
        assert_eq!((cell.get(), cell.set(2)), (Some(&1), Err(2)));
    }
}
