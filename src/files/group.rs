//! The parts in which files are read.

/// The smallest part of a file that can be read alone: a row group of a Parquet file, a record batch of an Arrow file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) rows: u64,
    /// Its size in the file.
    pub(crate) bytes: u64,
}
