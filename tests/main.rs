//! The integration tests, one binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "tests say what they measured")]

/// How large batches are made.
mod batches;
/// A job that is killed at any moment, or whose store misbehaves.
mod chaos;
/// Checkpoints as they come: sharded, in half precision, linked, corrupt.
mod checkpoint;
/// The command line program, as a process.
mod cli;
/// Jobs and queries on a cluster.
#[cfg(feature = "cluster")]
mod cluster;
/// What every family must do alike, whatever the layout, the batch or the order of its input.
mod conformance;
/// Every family against the scores of the reference library.
mod golden;
/// Models on their way from the hub, and what is kept of them.
mod hub;
/// Resumable jobs: units, commits, and what is left when something goes wrong.
mod job;
/// ONNX exports, ours and other people's.
mod onnx;
/// Models that take long to open or to load hold up nobody else.
#[cfg(unix)]
mod opening;
/// SQL with calls in every position, its result, and how many pairs it cost.
mod operator;
/// What runs how often: the operator and the rules that place it.
mod plans;
/// Scores in 8 bits.
mod precision;
/// Jobs that put a query around the score.
mod query;
/// How well the bundled model ranks.
mod ranking;
/// The commands of the README.
mod readme;
/// The program against a real S3-compatible server.
mod s3;
/// `rerank.toml`, completions and manual pages.
mod settings;
/// The SQL shell.
mod shell;
/// The SQL functions: every script of `tests/slt`, golden scores through SQL, runtimes.
mod sql;
/// Scored record batch streams.
mod stream;
/// Helpers of the tests above.
mod support;
