//! Requests to stop: Ctrl-C, or SIGTERM from a scheduler.

use std::fmt;

/// The request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The error of a run that was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    signal: Signal,
    advice: String,
}

impl Stopped {
    fn new(signal: Signal) -> Self {
        Self { signal, advice: "files that were not complete have been removed".to_owned() }
    }

    /// The error of work that its client cancelled.
    #[cfg(feature = "cluster")]
    pub(crate) fn cancelled() -> Self {
        Self::new(Signal::Terminate)
    }

    /// Adds what is left and how to resume.
    pub(crate) fn with_advice(self, advice: String) -> Self {
        Self { advice, ..self }
    }

    /// 128 plus the signal's number, as in shells.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.signal {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.signal {
            Signal::Interrupt => "interrupted",
            Signal::Terminate => "terminated",
        };
        write!(f, "{how}; {}", self.advice)
    }
}

impl std::error::Error for Stopped {}

/// Waits for the first request to stop. A second one ends the process at once, in case cleaning up hangs (an object
/// store that does not respond).
pub(crate) async fn requested() -> Stopped {
    let first = Stopped::new(signal().await);
    tokio::spawn(async { exit_now(Stopped::new(signal().await).exit_code()) });
    first
}

/// Ends the process without running the exit handlers of its libraries.
///
/// When a run fails, a batch may still be on the device. ONNX Runtime's exit handlers free what that batch uses, which
/// causes spurious errors or a crash. Waiting for the batch, or for a model to load, can take long.
pub(crate) fn exit_now(code: u8) -> ! {
    signal_hook::low_level::exit(i32::from(code))
}

#[cfg(unix)]
async fn signal() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return interrupt().await };
    tokio::select! {
        stopped = interrupt() => stopped,
        _ = terminate.recv() => Signal::Terminate,
    }
}

#[cfg(not(unix))]
async fn signal() -> Signal {
    interrupt().await
}

async fn interrupt() -> Signal {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Signal::Interrupt,
        // Without a handler, the system's default applies: it ends the process.
        Err(error) => {
            tracing::warn!(%error, "Ctrl-C cannot be handled");
            std::future::pending().await
        }
    }
}
