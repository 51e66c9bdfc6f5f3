//! The program, as a process.

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;

use super::checkpoints::{MODEL, fixture};
use super::time_limit;

/// The program, without environment variables that change its behaviour.
pub(crate) fn rerank() -> Command {
    time_limit::watch();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rerank"));
    for variable in ["RERANK_MODEL", "RERANK_CONFIG", "RUST_LOG"] {
        command.env_remove(variable);
    }
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    command.env("RERANK_CACHE", own.join("cache")).env("XDG_CONFIG_HOME", own.join("config"));
    command.timeout(Duration::from_mins(2));
    command
}

/// The `--model` argument for a tiny checkpoint.
pub(crate) fn model(checkpoint: &str) -> String {
    format!("--model={}", fixture(checkpoint).display())
}

/// `rerank run` with the tiny encoder.
pub(crate) fn run(input: impl AsRef<Path>, output: impl AsRef<Path>) -> Command {
    let mut command = rerank();
    command.arg("run").arg(input.as_ref()).arg(output.as_ref()).arg(model(MODEL));
    command
}

pub(crate) fn lines(command: &mut Command) -> Vec<String> {
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
pub(crate) fn assert_fails(mut command: Command, expected: &str) {
    let output = command.assert().code(1).stdout("").get_output().stderr.clone();
    let message = String::from_utf8(output).unwrap();
    assert!(message.starts_with("error: ") && message.contains(expected), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}
