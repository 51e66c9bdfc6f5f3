//! A time limit for tests. A test that hangs fails under its name instead of blocking the others.
//!
//! The helpers that every test uses call [`watch`]. The first call starts a thread that ends the process when a test
//! takes longer than `RERANK_TEST_SECONDS` (default: a quarter of an hour). libtest runs each test on a thread with the
//! test's name.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// The limit if `RERANK_TEST_SECONDS` is not set: several times the slowest test on two busy cores.
const DEFAULT_SECONDS: u64 = 900;

/// The running tests and their start times.
static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The test of this thread. It ends with the thread.
    static TEST: Test = Test::start();
}

/// A test in [`RUNNING`]. A thread that a test started is not a test, and has no name here.
struct Test(Option<String>);

impl Test {
    fn start() -> Self {
        static WATCHDOG: Once = Once::new();
        WATCHDOG.call_once(|| drop(std::thread::spawn(end_when_a_test_hangs)));
        let name = std::thread::current().name().filter(|name| name.contains("::")).map(str::to_owned);
        if let Some(name) = &name {
            RUNNING.lock().unwrap().insert(name.clone(), Instant::now());
        }
        Self(name)
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        if let Some(name) = &self.0 {
            RUNNING.lock().unwrap().remove(name);
        }
    }
}

/// Applies the limit to the test on this thread.
pub(crate) fn watch() {
    TEST.with(|_| ());
}

fn end_when_a_test_hangs() {
    let seconds = std::env::var("RERANK_TEST_SECONDS").map_or(DEFAULT_SECONDS, |seconds| seconds.parse().unwrap());
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let running = RUNNING.lock().unwrap();
        if running.values().all(|start| start.elapsed() < Duration::from_secs(seconds)) {
            continue;
        }
        // Not `eprintln`, which libtest may capture.
        let mut stderr = std::io::stderr().lock();
        for (name, start) in &*running {
            let elapsed = start.elapsed().as_secs();
            let verdict = if elapsed < seconds { "was running" } else { "HANGS" };
            writeln!(stderr, "test {name} {verdict}, after {elapsed} s of {seconds}").unwrap();
        }
        // Processes that tests started would survive otherwise.
        #[cfg(unix)]
        drop(Command::new("pkill").args(["-KILL", "-P", &std::process::id().to_string()]).status());
        // Not `exit`: its handlers wait for ONNX Runtime.
        std::process::abort();
    }
}

#[test]
#[ignore = "hangs, for the test of the limit"]
fn hang() {
    watch();
    std::thread::park();
}

#[test]
fn a_test_that_hangs_fails_with_its_name() {
    watch();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "support::time_limit::hang", "--ignored"]).env("RERANK_TEST_SECONDS", "2");
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(message.contains("test support::time_limit::hang HANGS, after 2 s of 2"), "{message}");
}
