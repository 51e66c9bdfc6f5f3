//! The formats of files, by their names.

use clap::ValueEnum;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, the file format.
    Arrow,
}

impl FileFormat {
    /// What a name's extension says.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "arrow" | "feather" => Some(Self::Arrow),
            _ => None,
        }
    }
}

/// The formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, the file format.
    ArrowFile,
    /// Arrow IPC, the stream format.
    ArrowStream,
}

impl OutputKind {
    /// What a name's extension says.
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
    /// For readers that have no zstd.
    Snappy,
    /// No compression.
    None,
}
