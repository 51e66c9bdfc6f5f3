//! The integration tests, one binary.

/// Every family against the scores of the reference library.
mod golden;
