//! How busy an engine is, for those who decide when to give it more.

use tokio::sync::watch;

/// What an engine has to do, for all callers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Windows that were submitted and have no answer yet.
    windows: usize,
    /// Those of them that are not cut into batches yet: they wait to be encoded, are being encoded, or wait for the
    /// weights.
    encoding: usize,
    /// Batches that no worker has taken.
    queued: usize,
}

impl Load {
    /// Whether there is nothing to do at all.
    pub(crate) fn is_idle(self) -> bool {
        self.windows == 0
    }

    /// Whether a window that is submitted now waits for no other, except for those that are running.
    pub(crate) fn is_drained(self) -> bool {
        self.encoding == 0 && self.queued == 0
    }
}

/// Counts the windows and batches of an engine, from before its weights are loaded. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(watch::Sender<Load>);

impl Activity {
    /// Counts a window until the guard is dropped: with its answer, or when nobody will answer it.
    pub(crate) fn submit(&self) -> Submitted {
        self.change(|load| {
            load.windows += 1;
            load.encoding += 1;
        });
        Submitted { activity: self.clone(), is_encoding: true }
    }

    /// The load, with a change whenever it becomes idle or drained. Other changes only show when it is read.
    pub(crate) fn watch(&self) -> watch::Receiver<Load> {
        self.0.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Load)) {
        self.0.send_if_modified(|load| {
            let before = *load;
            change(load);
            load.is_idle() && !before.is_idle() || load.is_drained() && !before.is_drained()
        });
    }
}

/// A window without an answer.
#[derive(Debug)]
pub(crate) struct Submitted {
    activity: Activity,
    is_encoding: bool,
}

impl Submitted {
    /// The window is encoded, and so many batches of it enter the queue. Each is counted until its guard is dropped.
    pub(crate) fn queue(&mut self, batches: usize) -> Vec<Queued> {
        let was_encoding = std::mem::take(&mut self.is_encoding);
        // In one step, so that the engine does not look drained in between.
        self.activity.change(|load| {
            load.encoding -= usize::from(was_encoding);
            load.queued += batches;
        });
        (0..batches).map(|_| Queued(self.activity.clone())).collect()
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        self.activity.change(|load| {
            load.windows -= 1;
            load.encoding -= usize::from(self.is_encoding);
        });
    }
}

/// A batch that no worker has taken.
#[derive(Debug)]
pub(crate) struct Queued(Activity);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.change(|load| load.queued -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_until_its_answer_and_a_batch_until_it_is_taken() {
        let activity = Activity::default();
        let load = || *activity.watch().borrow();
        assert!(load().is_idle() && load().is_drained());
        let mut submitted = activity.submit();
        assert!(!load().is_idle() && !load().is_drained());
        let batches = submitted.queue(2);
        assert_eq!(load(), Load { windows: 1, encoding: 0, queued: 2 });
        drop(batches);
        assert!(!load().is_idle() && load().is_drained());
        drop(submitted);
        assert_eq!(load(), Load::default());
    }

    #[test]
    fn a_window_that_is_never_encoded_is_no_longer_counted() {
        let activity = Activity::default();
        drop(activity.submit());
        assert_eq!(*activity.watch().borrow(), Load::default());
    }

    #[test]
    fn watchers_are_told_of_nothing_to_do_and_of_an_empty_queue() {
        let activity = Activity::default();
        let mut watch = activity.watch();
        let mut told = || watch.has_changed().unwrap().then(|| *watch.borrow_and_update());
        let (mut one, other) = (activity.submit(), activity.submit());
        assert_eq!(told(), None);
        let batches = one.queue(2);
        drop(other);
        assert_eq!(told(), None, "there are batches in the queue");
        drop(batches);
        assert!(told().is_some_and(|load| load.is_drained() && !load.is_idle()));
        drop(one);
        assert!(told().is_some_and(Load::is_idle));
        assert_eq!(told(), None);
    }
}
