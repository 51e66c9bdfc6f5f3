//! The values that a process keeps open: a few by key, each opened once, the least recently used closed first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use once_cell::sync::OnceCell;

use crate::error::Result;

/// Open values by key. The lock is held only to look at the lists, never while a value opens or closes: a caller that
/// asks for an open value, or opens another one, does not wait.
#[derive(Debug)]
pub(super) struct Opened<K, V>(Mutex<Lists<K, V>>);

#[derive(Debug)]
struct Lists<K, V> {
    /// The most recently used comes last.
    open: Vec<(K, V)>,
    /// What callers are opening now. Callers that ask for the same key share a cell.
    opening: Vec<(K, Arc<OnceCell<V>>)>,
}

impl<K: Clone + PartialEq, V: Clone> Opened<K, V> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Lists { open: Vec::new(), opening: Vec::new() }))
    }

    /// The value of `key`, opened if it is not open yet, and the entries evicted to keep at most `max` (at least 1),
    /// for the caller to drop. A failure evicts nothing and is not remembered.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn get_or_open(
        &self,
        key: &K,
        max: usize,
        open: impl FnOnce() -> Result<V>,
    ) -> Result<(V, Vec<(K, V)>)> {
        let cell = {
            let mut lists = self.lock();
            if let Some(value) = lists.touch(key) {
                return Ok((value, lists.evict(max)));
            }
            lists.cell(key)
        };
        let result = cell.get_or_try_init(open).cloned();
        let mut lists = self.lock();
        lists.leave(key, cell);
        let value = result?;
        // Another caller that shared the cell may have been here first.
        if lists.touch(key).is_none() {
            lists.open.push((key.clone(), value.clone()));
        }
        Ok((value, lists.evict(max)))
    }

    /// All open values, the most recently used last.
    pub(super) fn values(&self) -> Vec<V> {
        self.lock().open.iter().map(|(_, value)| value.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lists<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + PartialEq, V: Clone> Lists<K, V> {
    /// The open value of `key`, which becomes the most recently used.
    fn touch(&mut self, key: &K) -> Option<V> {
        let position = self.open.iter().position(|(other, _)| other == key)?;
        self.open[position..].rotate_left(1);
        self.open.last().map(|(_, value)| value.clone())
    }

    /// The cell in which `key` is being opened.
    fn cell(&mut self, key: &K) -> Arc<OnceCell<V>> {
        if let Some((_, cell)) = self.opening.iter().find(|(other, _)| other == key) {
            return Arc::clone(cell);
        }
        let cell = Arc::default();
        self.opening.push((key.clone(), Arc::clone(&cell)));
        cell
    }

    /// Releases a cell. The last caller removes it: while others wait on it, newcomers must share it.
    fn leave(&mut self, key: &K, cell: Arc<OnceCell<V>>) {
        drop(cell);
        self.opening.retain(|(other, cell)| other != key || Arc::strong_count(cell) > 1);
    }

    fn evict(&mut self, max: usize) -> Vec<(K, V)> {
        let surplus = self.open.len().saturating_sub(max.max(1));
        self.open.drain(..surplus).collect()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded as channel;

    use super::*;
    use crate::error::Error;

    #[test]
    fn the_least_recently_used_goes_first() {
        let recent = Opened::new();
        let mut opened = Vec::new();
        let mut get = |key: &'static str, max| {
            let (value, evicted) = recent
                .get_or_open(&key, max, || {
                    opened.push(key);
                    Ok(key.len())
                })
                .unwrap();
            assert_eq!(value, key.len());
            evicted.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(get("a", 2).is_empty());
        assert!(get("bb", 2).is_empty());
        assert!(get("a", 2).is_empty());
        assert_eq!(get("ccc", 2), ["bb"]);
        assert_eq!(get("ccc", 0), ["a"]);
        assert_eq!(opened, ["a", "bb", "ccc"]);
        assert_eq!(recent.values(), [3]);
    }

    #[test]
    fn what_cannot_be_opened_is_tried_again_and_evicts_nothing() {
        let recent = Opened::new();
        recent.get_or_open(&"a", 1, || Ok(1)).unwrap();
        assert!(recent.get_or_open(&"b", 1, || Err(Error::Stopped)).is_err());
        assert_eq!(recent.get_or_open(&"a", 1, || Err(Error::Stopped)).unwrap().0, 1);
        assert_eq!(recent.get_or_open(&"b", 1, || Ok(2)).unwrap().0, 2);
        assert!(recent.lock().opening.is_empty());
    }

    #[test]
    fn a_slow_open_holds_up_its_own_key_only() {
        let recent = Opened::new();
        recent.get_or_open(&"open", 4, || Ok(1)).unwrap();
        let (begun, begins) = channel();
        let (finish, finished) = channel::<()>();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                recent.get_or_open(&"slow", 4, || {
                    begun.send(()).unwrap();
                    finished.recv().unwrap();
                    Ok(2)
                })
            });
            begins.recv().unwrap();
            let same = scope.spawn(|| recent.get_or_open(&"slow", 4, || Ok(3)));
            // All of these would hang if they waited.
            assert_eq!(recent.get_or_open(&"open", 4, || Err(Error::Stopped)).unwrap().0, 1);
            assert_eq!(recent.get_or_open(&"other", 4, || Ok(4)).unwrap().0, 4);
            assert!(recent.get_or_open(&"broken", 4, || Err(Error::Stopped)).is_err());
            assert_eq!(recent.values(), [1, 4]);
            finish.send(()).unwrap();
            assert_eq!((slow.join().unwrap().unwrap().0, same.join().unwrap().unwrap().0), (2, 2));
        });
        assert_eq!(recent.values(), [1, 4, 2]);
        assert!(recent.lock().opening.is_empty());
    }

    #[test]
    fn whoever_waited_for_a_failure_tries_again() {
        let recent = Opened::new();
        let (begun, begins) = channel();
        let (finish, finished) = channel::<()>();
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| {
                recent.get_or_open(&"a", 1, || {
                    begun.send(()).unwrap();
                    finished.recv().unwrap();
                    Err(Error::Stopped)
                })
            });
            begins.recv().unwrap();
            let waiting = scope.spawn(|| recent.get_or_open(&"a", 1, || Ok(5)));
            finish.send(()).unwrap();
            assert!(failing.join().unwrap().is_err());
            assert_eq!(waiting.join().unwrap().unwrap().0, 5);
        });
        assert_eq!(recent.values(), [5]);
        assert!(recent.lock().opening.is_empty());
    }
}
