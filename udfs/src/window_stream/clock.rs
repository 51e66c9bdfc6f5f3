//! How long rows have waited.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

/// Measures how long rows wait.
pub(super) trait Clock {
    /// Begins a delay; it replaces the one before.
    fn start(&mut self, delay: Duration);

    /// Whether the delay is over. If not, wakes the task when it is.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool;
}

/// Tokio's clock. Without a runtime, or in one whose timers are disabled, it shows the time but wakes nobody.
#[derive(Default)]
pub(super) struct TokioClock {
    end: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    has_no_timer: bool,
}

impl Clock for TokioClock {
    fn start(&mut self, delay: Duration) {
        self.end = Instant::now().checked_add(delay);
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(end) = self.end else { return false };
        if Instant::now() >= end {
            return true;
        }
        if self.timer.is_none() && !self.has_no_timer && Handle::try_current().is_ok() {
            // Nothing tells whether a runtime has timers, and without them this panics.
            self.timer = catch_unwind(AssertUnwindSafe(|| Box::pin(sleep_until(end)))).ok();
            self.has_no_timer = self.timer.is_none();
        }
        let Some(timer) = &mut self.timer else { return false };
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(context).is_ready()
    }
}
