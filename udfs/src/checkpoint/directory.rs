//! A checkpoint directory, and which of its files are read.

use std::path::{Path, PathBuf};

use super::files::{CONFIG_FILE, INDEX_FILE, ONNX_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use super::{Config, Tensors};
use crate::error::{Error, Result};

/// A directory with a model: a published checkpoint, or a user's ONNX export beside its tokenizer.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The directory, as the user named it.
    pub(crate) path: PathBuf,
    /// Absent only for an ONNX export without one.
    pub(crate) config: Option<Config>,
    pub(crate) weights: Weights,
}

/// Where the parameters are.
#[derive(Debug)]
pub(crate) enum Weights {
    /// Safetensors; this crate builds the graph.
    Tensors(Tensors),
    /// A ready-made graph, run unchanged.
    Onnx(PathBuf),
}

impl Checkpoint {
    /// Reads the configuration and the tensor headers, but no weights.
    ///
    /// # Errors
    /// [`Error::Model`] if there is no such directory, [`Error::Checkpoint`] or [`Error::Io`] if a file in it is wrong.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        if !path.is_dir() {
            return Err(Error::model(
                shown,
                format!(
                    "there is no such directory; give the directory that holds {CONFIG_FILE}, {WEIGHTS_FILE} and {TOKENIZER_FILE}"
                ),
            ));
        }
        let existing = |name: &str| Some(path.join(name)).filter(|file| file.exists());

        if existing(TOKENIZER_FILE).is_none() {
            return Err(Error::checkpoint(
                path.join(TOKENIZER_FILE),
                "missing; save the checkpoint with its fast tokenizer (`tokenizer.save_pretrained`)",
            ));
        }
        let config = existing(CONFIG_FILE).map(|file| Config::read(&file)).transpose()?;
        let weights = if let Some(index) = existing(INDEX_FILE) {
            Weights::Tensors(Tensors::from_index(&index)?)
        } else if let Some(file) = existing(WEIGHTS_FILE) {
            Weights::Tensors(Tensors::from_file(&file)?)
        } else if let Some(file) = existing(ONNX_FILE) {
            Weights::Onnx(file)
        } else {
            return Err(Error::checkpoint(
                path.join(WEIGHTS_FILE),
                format!(
                    "missing, and so are {INDEX_FILE} and {ONNX_FILE}; a checkpoint with pytorch_model.bin must be saved as safetensors"
                ),
            ));
        };
        if config.is_none() && matches!(weights, Weights::Tensors(_)) {
            return Err(Error::checkpoint(path.join(CONFIG_FILE), "missing; the graph cannot be built without it"));
        }
        Ok(Self { path: path.to_owned(), config, weights })
    }

    pub(crate) fn tokenizer_file(&self) -> PathBuf {
        self.path.join(TOKENIZER_FILE)
    }

    /// Whether the graph is ready-made.
    pub(crate) fn is_onnx(&self) -> bool {
        matches!(self.weights, Weights::Onnx(_))
    }

    /// The small files that must accompany the weights.
    pub(crate) fn companions(&self) -> impl Iterator<Item = PathBuf> {
        [CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE]
            .into_iter()
            .map(|name| self.path.join(name))
            .filter(|file| file.exists())
    }
}
