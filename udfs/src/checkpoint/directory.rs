//! A checkpoint directory, and which of its files are read.

use std::path::{Path, PathBuf};

use super::account::CheckpointPart;
use super::adapter::Adapter;
use super::files::{
    ADAPTER_CONFIG_FILE, ADDED_TOKENS_FILE, CONFIG_FILE, INDEX_FILE, ONNX_FILE, PICKLE_FILE, SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, shard_files,
};
use super::ignored::FILES;
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

        if let Some(base) = Adapter::base_of(path) {
            let (of_base, base) =
                if base.is_empty() { (String::new(), "its base") } else { (format!(" of {base}"), &*base) };
            return Err(Error::checkpoint(
                path.join(ADAPTER_CONFIG_FILE),
                format!(
                    "this is a LoRA adapter{of_base}; open {base} with the option adapter = '{shown}' (on the command line: \
                     --adapter {shown})"
                ),
            ));
        }
        if existing(TOKENIZER_FILE).is_none() {
            return Err(Error::checkpoint(
                path.join(TOKENIZER_FILE),
                "missing; save the checkpoint with its fast tokenizer (`tokenizer.save_pretrained`)",
            ));
        }
        let config = existing(CONFIG_FILE).map(|file| Config::read(&file)).transpose()?;
        let weights = if let Some(file) = existing(WEIGHTS_FILE) {
            if let Some(index) = existing(INDEX_FILE) {
                tracing::warn!("{} is not read: {}", index.display(), stale(path));
            }
            Weights::Tensors(Tensors::from_file(&file)?)
        } else if let Some(index) = existing(INDEX_FILE) {
            Weights::Tensors(Tensors::from_index(&index)?)
        } else if let Some(file) = existing(ONNX_FILE) {
            Weights::Onnx(file)
        } else {
            return Err(no_weights(path));
        };
        if config.is_none() && matches!(weights, Weights::Tensors(_)) {
            return Err(Error::checkpoint(path.join(CONFIG_FILE), "missing; the graph cannot be built without it"));
        }
        Ok(Self { path: path.to_owned(), config, weights })
    }

    /// Whether the graph is ready-made.
    pub(crate) fn is_onnx(&self) -> bool {
        matches!(self.weights, Weights::Onnx(_))
    }

    /// The small files that must accompany the weights.
    pub(crate) fn companions(&self) -> impl Iterator<Item = PathBuf> {
        [CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE]
            .into_iter()
            .map(|name| self.path.join(name))
            .filter(|file| file.exists())
    }

    /// What becomes of the files in the directory, except for those that describe the tokenizer.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub(crate) fn account_files(&self) -> Result<Vec<CheckpointPart>> {
        let fail = |source| Error::io(&self.path, source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // Follows links: a hub cache consists of them.
            if entry.path().is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        let tokenizer = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE];
        let used = self.weights_names();
        let part = |name: &String| {
            let ignored = match name.as_str() {
                CONFIG_FILE => None,
                _ if used.contains(name) => None,
                INDEX_FILE => Some(stale(&self.path)),
                _ => Some(FILES.reason_by_end(name).unwrap_or("not part of a model").to_owned()),
            };
            CheckpointPart::of_file(name, ignored.as_deref())
        };
        Ok(names.iter().filter(|name| !tokenizer.contains(&name.as_str())).map(part).collect())
    }

    /// The names of the weights files, and of the index if it is used.
    fn weights_names(&self) -> Vec<String> {
        match &self.weights {
            Weights::Tensors(tensors) => tensors.files().map(str::to_owned).collect(),
            Weights::Onnx(_) => [ONNX_FILE, "model.onnx.data", "model.onnx_data"].map(str::to_owned).to_vec(),
        }
    }
}

/// Why the index of a folder is not read.
fn stale(folder: &Path) -> String {
    let reason = format!("{WEIGHTS_FILE} takes precedence, as in transformers");
    let shards = std::fs::read(folder.join(INDEX_FILE)).ok().and_then(|index| shard_files(&index));
    match shards.into_iter().flatten().find(|shard| !folder.join(shard).exists()) {
        Some(missing) => format!("{reason}; it is stale, since it names {missing}, which is not there"),
        None => reason,
    }
}

fn no_weights(folder: &Path) -> Error {
    let missing = format!("missing, and so are {INDEX_FILE} and {ONNX_FILE}");
    let pickle = [PICKLE_FILE, "pytorch_model.bin.index.json"].into_iter().find(|name| folder.join(name).exists());
    let remedy = match pickle {
        None => "save the checkpoint with `save_pretrained`".to_owned(),
        Some(name) => format!(
            "there is {name}, which is not read because loading it may run code; convert it: python3 -c \"import sys, glob, \
             torch, safetensors.torch as s; d = sys.argv[1]; s.save_file({{k: v.clone().contiguous() for f in \
             glob.glob(d + '/pytorch_model*.bin') for k, v in torch.load(f, 'cpu', weights_only=True).items()}}, \
             d + '/{WEIGHTS_FILE}', {{'format': 'pt'}})\" '{}'",
            folder.display()
        ),
    };
    Error::checkpoint(folder.join(WEIGHTS_FILE), format!("{missing}; {remedy}"))
}
