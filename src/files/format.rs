//! File formats, recognized by file names.

use clap::ValueEnum;

/// The format of an input file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// The Arrow IPC file format.
    Arrow,
}

impl FileFormat {
    /// The format of an input with this name. Without a known extension it is read as Parquet.
    pub(crate) fn of_input(name: &str) -> Self {
        Self::of(name).unwrap_or(Self::Parquet)
    }

    /// The format of a file name's extension.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "arrow" | "feather" => Some(Self::Arrow),
            _ => None,
        }
    }
}

/// The output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// Apache Parquet.
    Parquet,
    /// The Arrow IPC file format.
    ArrowFile,
    /// The Arrow IPC stream format.
    ArrowStream,
}

impl OutputKind {
    /// The format of a file name's extension.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "arrow" | "feather" => Some(Self::ArrowFile),
            "arrows" => Some(Self::ArrowStream),
            _ => None,
        }
    }
}

/// Compression codecs of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Small files at little cost.
    Zstd,
    /// For readers without zstd support.
    Snappy,
    /// No compression.
    None,
}
