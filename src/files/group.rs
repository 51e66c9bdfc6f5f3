//! The pieces that files are read in.

/// The least piece of a file that can be read alone: a row group of a Parquet file, a record batch of an Arrow file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its rows.
    pub(crate) rows: u64,
    /// Its bytes in the file.
    pub(crate) bytes: u64,
}
