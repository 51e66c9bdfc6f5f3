//! When rows go although they do not fill a window.

use std::task::Context;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use tokio::sync::watch;

use super::clock::Clock;
use crate::engine::{Activity, Load};
use crate::window::Growth;

/// What windows follow, beside their source.
#[derive(Debug, Clone)]
pub(crate) struct Following {
    /// The longest time that rows wait while the source has no more.
    pub(crate) max_delay: Duration,
    /// The engines that score the windows.
    pub(crate) engines: Vec<Activity>,
    /// The size of the first window.
    pub(crate) growth: Growth,
}

impl Following {
    /// What windows follow that several models score: every engine, the shorter delay and the smaller first window.
    /// `None` if one of the models follows nothing.
    #[cfg(feature = "datafusion")]
    pub(crate) fn all(models: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        models.into_iter().reduce(|one, other| one.zip(other).map(|(one, other)| one.and(other))).flatten()
    }

    #[cfg(feature = "datafusion")]
    fn and(mut self, other: Self) -> Self {
        self.engines.extend(other.engines);
        Self {
            max_delay: self.max_delay.min(other.max_delay),
            growth: self.growth.and(other.growth),
            engines: self.engines,
        }
    }
}

/// Decides when rows go although they do not fill a window.
pub(super) struct Pace<C> {
    following: Following,
    clock: C,
    /// Windows that were submitted.
    begun: usize,
    /// Wakes the stream when an engine has less to do.
    changed: Option<BoxFuture<'static, ()>>,
}

impl<C: Clock> Pace<C> {
    pub(super) fn new(following: Following, clock: C) -> Self {
        Self { following, clock, begun: 0, changed: None }
    }

    /// The first of the rows that wait has come.
    pub(super) fn start(&mut self) {
        self.clock.start(self.following.max_delay);
    }

    /// A window was submitted.
    pub(super) fn has_begun(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    /// Whether another window may go behind one that is in flight. If not, wakes the task when that has changed.
    pub(super) fn lets_more_go(&mut self, context: &mut Context<'_>) -> bool {
        self.begun > 1 || self.holds(context, |loads, _, _| loads.iter().copied().all(Load::is_drained))
    }

    /// Whether the rows that wait go now. If not, wakes the task when that may have changed.
    pub(super) fn is_due(&mut self, in_flight: usize, context: &mut Context<'_>) -> bool {
        self.holds(context, |loads, clock, context| is_due(loads, in_flight, clock.is_over(context)))
    }

    /// Whether something holds for the engines' loads. If not, wakes the task when one has changed.
    fn holds(
        &mut self,
        context: &mut Context<'_>,
        mut check: impl FnMut(&[Load], &mut C, &mut Context<'_>) -> bool,
    ) -> bool {
        loop {
            // These see every change from here on.
            let mut watches: Vec<_> = self.following.engines.iter().map(Activity::watch).collect();
            let loads: Vec<Load> = watches.iter_mut().map(|watch| *watch.borrow_and_update()).collect();
            if check(&loads, &mut self.clock, context) {
                return true;
            }
            let mut changed = any_changed(watches);
            if changed.poll_unpin(context).is_pending() {
                self.changed = Some(changed);
                return false;
            }
        }
    }
}

/// Whether rows that do not fill a window are scored now that the source has no more. `in_flight` is the number of this
/// stream's own windows; `is_over` whether the first of the rows has waited for the longest delay.
fn is_due(loads: &[Load], in_flight: usize, is_over: bool) -> bool {
    let all_are = |state: fn(Load) -> bool| loads.iter().copied().all(state);
    all_are(Load::is_idle) || is_over && (in_flight == 0 || all_are(Load::is_drained))
}

/// Completes when one of the engines is idle or drained again.
fn any_changed(watches: Vec<watch::Receiver<Load>>) -> BoxFuture<'static, ()> {
    let changed = |mut watch: watch::Receiver<Load>| {
        async move {
            // Fails only if nobody can submit to the engine any more, and then nothing changes.
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    };
    select_all(watches.into_iter().map(changed)).map(drop).boxed()
}
