//! Integration tests, one binary.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

/// Fixtures: the tiny checkpoint, the golden scores and sessions over them.
mod support;

/// The SQL functions: every script of `tests/slt`, golden scores through SQL, runtimes.
mod sql;
