//! One binary for all integration tests, so that they link once.

// The command line program, as a process.
mod cli;
