//! The one error type of the library.

use std::path::{Path, PathBuf};

/// Result alias used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by what a caller can do about it.
///
/// Every message is one line that names the thing, the value and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ONNX Runtime library was not found, or is too old.
    #[error("{message}")]
    Library {
        /// Where it was searched for, and how to get it.
        message: String,
    },

    /// A file of a checkpoint is missing, unreadable or contradicts itself.
    #[error("checkpoint file {}: {message}", path.display())]
    Checkpoint {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it, naming the tensor or key.
        message: String,
    },

    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A model name or location that resolves to nothing.
    #[error("model '{model}': {message}")]
    Model {
        /// The name or location as given.
        model: String,
        /// Why it cannot be used, and what to do.
        message: String,
    },

    /// An unknown option, a value that it does not take, or one that the model cannot honour.
    #[error("option {name}: {message}")]
    Option {
        /// The option's name.
        name: String,
        /// The value given and what is allowed.
        message: String,
    },

    /// The input arrays cannot be scored.
    #[error("{message}")]
    Input {
        /// The argument, its type or length, and what is expected.
        message: String,
    },

    /// Arrow data could not be read or assembled.
    #[error("{source}")]
    Arrow {
        /// Arrow's own error.
        source: arrow::error::ArrowError,
    },

    /// The requested execution device cannot be used.
    #[error("device {device}: {message}")]
    Device {
        /// The device as given.
        device: String,
        /// Why, and what to do.
        message: String,
    },

    /// ONNX Runtime refused the graph or failed while running it.
    #[error("model {model}: {action}: {source}")]
    Runtime {
        /// Location of the model.
        model: String,
        /// What was attempted, with shapes.
        action: String,
        /// ONNX Runtime's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// There is no folder for converted weights and batch measurements.
    #[error(
        "there is no cache folder: RERANK_CACHE is not set and this user has no cache folder; set RERANK_CACHE, or --cache \
         of the command line, to a folder"
    )]
    NoCacheFolder,

    /// The engine was shut down while work was still queued.
    #[error("the scoring engine stopped before this batch was scored; open the model again")]
    Stopped,
}

impl Error {
    pub(crate) fn checkpoint(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_owned(), message: message.into() }
    }

    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn model(model: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Model { model: model.into(), message: message.into() }
    }

    pub(crate) fn option(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Option { name: name.into(), message: message.into() }
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input { message: message.into() }
    }

    /// Adds a remark to a checkpoint error.
    pub(crate) fn with_remark(self, remark: &str) -> Self {
        match self {
            Self::Checkpoint { path, message } => Self::Checkpoint { path, message: format!("{message} ({remark})") },
            other => other,
        }
    }
}
