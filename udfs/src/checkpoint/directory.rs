//! A checkpoint directory, and which of its files are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::account::CheckpointPart;
use super::adapter_modules::LORA;
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
        // A link whose target is gone is not an absent file.
        let existing = |name: &str| Some(path.join(name)).filter(|file| file.symlink_metadata().is_ok());

        if let Some(file) = existing(ADAPTER_CONFIG_FILE) {
            return Err(adapter_error(path, &Config::read(&file)?));
        }
        if existing(TOKENIZER_FILE).is_none() {
            return Err(Error::checkpoint(
                path.join(TOKENIZER_FILE),
                "missing; save the checkpoint with its fast tokenizer (`tokenizer.save_pretrained`)",
            ));
        }
        let config = existing(CONFIG_FILE).map(|file| Config::read(&file)).transpose()?;
        let weights = if let Some(file) = existing(WEIGHTS_FILE) {
            let shards = shards(path);
            if missing_shard(path, &shards).is_some() {
                tracing::warn!("{} is not read: {}", path.join(INDEX_FILE).display(), unused_index(path, &shards));
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
            .filter(|file| file.symlink_metadata().is_ok())
    }

    /// What becomes of the files in the directory, except for those that describe the tokenizer.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub(crate) fn account_files(&self) -> Result<Vec<CheckpointPart>> {
        let tokenizer = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE];
        let used = self.weights_names()?;
        let shards = shards(&self.path);
        let part = |name: &String| {
            let ignored = match name.as_str() {
                CONFIG_FILE => None,
                _ if used.contains(name) => None,
                INDEX_FILE => Some(unused_index(&self.path, &shards)),
                _ if shards.contains(name) => Some("a shard of the index, which is not read".to_owned()),
                _ => Some(FILES.reason_by_end(name).unwrap_or("not part of a model").to_owned()),
            };
            CheckpointPart::of_file(name, ignored.as_deref())
        };
        Ok(file_names(&self.path)?.iter().filter(|name| !tokenizer.contains(&name.as_str())).map(part).collect())
    }

    /// The names of the weights files, and of the index if it is used.
    fn weights_names(&self) -> Result<Vec<String>> {
        Ok(match &self.weights {
            Weights::Tensors(tensors) => tensors.files().map(str::to_owned).collect(),
            Weights::Onnx(_) => self.onnx_names()?,
        })
    }

    /// The names of the files of a ready-made graph, sorted: weights beside it are named after it (`model.onnx.data`,
    /// `model.onnx_data`).
    pub(super) fn onnx_names(&self) -> Result<Vec<String>> {
        Ok(file_names(&self.path)?.into_iter().filter(|name| name.starts_with(ONNX_FILE)).collect())
    }
}

/// The names of the files in a folder, sorted.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>> {
    let fail = |source| Error::io(folder, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        // Follows links: a hub cache consists of them.
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The shards that the index of a folder names; none if there is no index.
fn shards(folder: &Path) -> BTreeSet<String> {
    let index = std::fs::read(folder.join(INDEX_FILE)).ok();
    index.and_then(|index| shard_files(&index)).unwrap_or_default()
}

/// One of the `shards` that is not there.
fn missing_shard<'a>(folder: &Path, shards: &'a BTreeSet<String>) -> Option<&'a String> {
    shards.iter().find(|shard| !folder.join(shard).exists())
}

/// Why the index of a folder, which names these `shards`, is not read.
fn unused_index(folder: &Path, shards: &BTreeSet<String>) -> String {
    let reason = format!("{WEIGHTS_FILE} takes precedence, as in transformers");
    match missing_shard(folder, shards) {
        Some(missing) => format!("{reason}; it is stale, since it names {missing}, which is not there"),
        None => reason,
    }
}

/// The error for a folder with an adapter. transformers opens the adapter's base, even if there are whole weights
/// beside it.
fn adapter_error(folder: &Path, config: &Config) -> Error {
    let kind = config.optional_text("peft_type").ok().flatten().unwrap_or(LORA);
    if kind != LORA {
        return config.error(format!("this is an adapter of the kind {kind}, which is not supported; only {LORA} is"));
    }
    let base = config.optional_text("base_model_name_or_path").ok().flatten();
    let (of_base, base) = base.map_or((String::new(), "its base"), |base| (format!(" of {base}"), base));
    let shown = folder.display();
    let merged = if [WEIGHTS_FILE, INDEX_FILE].iter().any(|name| folder.join(name).exists()) {
        format!("; if the weights here are merged already, remove {ADAPTER_CONFIG_FILE}")
    } else {
        String::new()
    };
    config.error(format!(
        "this is a LoRA adapter{of_base}; open {base} with the option adapter = {shown} (on the command line: \
         --adapter '{}'){merged}",
        shell_quoted(folder)
    ))
}

/// A path as a shell takes it between single quotes.
fn shell_quoted(path: &Path) -> String {
    path.display().to_string().replace('\'', r"'\''")
}

fn no_weights(folder: &Path) -> Error {
    let missing = format!("missing, and so are {INDEX_FILE} and {ONNX_FILE}");
    let pickle = [PICKLE_FILE, "pytorch_model.bin.index.json"].into_iter().find(|name| folder.join(name).exists());
    let remedy = match pickle {
        None => "save the checkpoint with `save_pretrained`".to_owned(),
        Some(name) => format!(
            "there is {name}, which is not read because loading it may run code; convert it: python3 -c \"import sys, os, \
             torch, safetensors.torch as s; d = sys.argv[1]; w = {{k: v.clone().contiguous() for f in sorted(os.listdir(d)) \
             if f.startswith('pytorch_model') and f.endswith('.bin') for k, v in torch.load(os.path.join(d, f), 'cpu', \
             weights_only=True).items()}}; assert w; s.save_file(w, os.path.join(d, '{WEIGHTS_FILE}'), {{'format': \
             'pt'}})\" '{}'",
            shell_quoted(folder)
        ),
    };
    Error::checkpoint(folder.join(WEIGHTS_FILE), format!("{missing}; {remedy}"))
}
