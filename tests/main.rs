//! The integration tests, as one binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "tests say what they measured")]

/// The size of batches.
mod batches;
/// A job that is killed at any moment, or whose store misbehaves.
mod chaos;
/// Checkpoints in every form: sharded, in half precision, linked, corrupt.
mod checkpoint;
/// The command line program, as a process.
mod cli;
/// Jobs and queries on a cluster.
#[cfg(feature = "cluster")]
mod cluster;
/// Columns that pass through: their bytes, types and names.
mod columns;
/// Checks that every family must pass, whatever the layout, the batch or the order of its input.
mod conformance;
/// Random SQL with calls, and the same with stored scores.
mod differential;
/// Every family against the scores of the reference library.
mod golden;
/// Downloads from the hub, and the cache.
mod hub;
/// Resumable jobs: units, commits, and the state after failures.
mod job;
/// ONNX exports, ours and other people's.
mod onnx;
/// A model that is slow to open or to load blocks nobody else.
#[cfg(unix)]
mod opening;
/// SQL with calls in every position: results, and numbers of scored pairs.
mod operator;
/// How often what runs: the operator and the rules that place it.
mod plans;
/// Scores in 8 bits.
mod precision;
/// Jobs with a query around the score.
mod query;
/// The ranking quality of the bundled model.
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
/// Checkpoints as other programs save them, with and without adapters.
mod variants;
