//! All tensors of a checkpoint, whichever file holds them, and an account of them that refuses those that nobody read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::account::CheckpointPart;
use super::files::ShardIndex;
use super::ignored::TENSORS;
use super::json;
use super::safetensors::read_header;
use super::tensor::{LowRank, Tensor};
use crate::error::{Error, Result};

/// Modules of the reference classes that are not in their base model.
const HEADS: [&str; 2] = ["classifier.", "lm_head."];

/// All tensors of a checkpoint by the names of its class. It remembers which were read: [`Tensors::account`] refuses
/// the others, unless they are known to change no score.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    by_name: BTreeMap<String, Tensor>,
    /// Tensors without weights: the name of their file, and their own.
    skipped: Vec<(String, String)>,
    /// The file that errors name for a missing tensor: the index, or the only weights file.
    source: PathBuf,
    /// The names of the files in the checkpoint's folder, by their resolved paths.
    files: BTreeMap<PathBuf, String>,
    /// The names of renamed tensors in their files: see [`Tensors::named_after`].
    stored_names: BTreeMap<String, String>,
    /// The names that an adapter has replaced or added.
    replaced: BTreeSet<String>,
    read: Mutex<BTreeSet<String>>,
}

/// Two names that stand for one tensor in the reference: the embeddings, which are the output layer too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tied {
    pub(crate) table: &'static str,
    pub(crate) head: &'static str,
}

impl Clone for Tensors {
    /// A copy of which nothing has been read yet.
    fn clone(&self) -> Self {
        Self {
            by_name: self.by_name.clone(),
            skipped: self.skipped.clone(),
            source: self.source.clone(),
            files: self.files.clone(),
            stored_names: self.stored_names.clone(),
            replaced: self.replaced.clone(),
            read: Mutex::default(),
        }
    }
}

impl Tensors {
    /// Reads the header of one weights file.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let mut tensors = Self { source: path.to_owned(), ..Self::default() };
        tensors.add_file(path)?;
        Ok(tensors)
    }

    /// Reads the headers of all shards that an index names: every tensor in them, as transformers does. The index must
    /// match them.
    pub(crate) fn from_index(path: &Path) -> Result<Self> {
        let index: ShardIndex = json::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));

        let mut tensors = Self { source: path.to_owned(), ..Self::default() };
        let mut shards: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (name, shard) in &index.weight_map {
            if Path::new(shard).components().count() != 1 {
                return Err(Error::checkpoint(
                    path,
                    format!("tensor {name}: shard '{shard}' is not a plain file name"),
                ));
            }
            let file = folder.join(shard);
            if !shards.contains_key(shard.as_str()) {
                if !file.exists() {
                    let message =
                        format!("missing, though {} names it; download or save the shards again", file_name(path));
                    return Err(Error::checkpoint(file, message));
                }
                shards.insert(shard, tensors.add_file(&file)?);
            }
            if !shards[shard.as_str()].contains(name) {
                return Err(Error::checkpoint(
                    file,
                    format!("tensor {name} is missing, though the index puts it here"),
                ));
            }
        }
        Ok(tensors)
    }

    /// Adds the tensors of a file. Returns all names in it.
    fn add_file(&mut self, path: &Path) -> Result<BTreeSet<String>> {
        let header = read_header(path)?;
        let names = header.tensors.keys().chain(&header.skipped).cloned().collect();
        self.files.insert(header.file.to_path_buf(), file_name(path));
        self.skipped.extend(header.skipped.into_iter().map(|name| (file_name(path), name)));
        for (name, tensor) in header.tensors {
            if let Some(other) = self.by_name.insert(name.clone(), tensor) {
                let message = format!("tensor {name} is in {} as well; keep one of them", other.file.display());
                return Err(Error::checkpoint(path, message));
            }
        }
        Ok(names)
    }

    /// The names of the files that were read: the weights and, if there is one, their index.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        let index = self.source.file_name().and_then(|name| name.to_str());
        self.files.values().map(String::as_str).chain(index)
    }

    /// The same tensors under the names of their class. Programs that wrap a model save it with a prefix (`module.`,
    /// `base_model.model.`); the base model alone is saved without the first part of its names. `anchor` is a tensor
    /// that every checkpoint of the class has.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if several tensors could be the anchor, or two become one.
    pub(crate) fn named_after(mut self, anchor: &str) -> Result<Self> {
        let base = anchor.find('.').map_or("", |dot| &anchor[..=dot]);
        let (prefix, added) = if let Some(prefix) = self.prefix_of(anchor)? {
            (prefix, "")
        } else if let Some(prefix) = self.prefix_of(&anchor[base.len()..])? {
            (prefix, base)
        } else {
            return Ok(self);
        };
        if prefix.is_empty() && added.is_empty() {
            return Ok(self);
        }
        let renamed = |name: &str| match name.strip_prefix(&prefix) {
            Some(rest) if HEADS.iter().any(|head| rest.starts_with(head)) => rest.to_owned(),
            Some(rest) => format!("{added}{rest}"),
            None => name.to_owned(),
        };
        for (stored, tensor) in std::mem::take(&mut self.by_name) {
            let name = renamed(&stored);
            if let Some(other) = self.stored_names.insert(name.clone(), stored.clone()) {
                let message = format!("tensors {other} and {stored} are both the model's {name}; keep one of them");
                return Err(Error::checkpoint(&self.source, message));
            }
            self.by_name.insert(name.clone(), Tensor { name, ..tensor });
        }
        Ok(self)
    }

    /// The same tensors, with `other` in the place of `name`, if that was not saved.
    pub(crate) fn with_name(mut self, name: &str, other: &str) -> Self {
        if !self.by_name.contains_key(name)
            && let Some(tensor) = self.by_name.remove(other)
        {
            let stored = self.stored_names.remove(other).unwrap_or_else(|| other.to_owned());
            self.stored_names.insert(name.to_owned(), stored);
            self.by_name.insert(name.to_owned(), Tensor { name: name.to_owned(), ..tensor });
        }
        self
    }

    /// What comes before `name` in the only tensor whose name ends with it; `None` if there is no such tensor.
    fn prefix_of(&self, name: &str) -> Result<Option<String>> {
        if self.by_name.contains_key(name) {
            return Ok(Some(String::new()));
        }
        let prefix =
            |tensor: &String| Some(tensor.strip_suffix(name)?.to_owned()).filter(|prefix| prefix.ends_with('.'));
        let mut prefixes = self.by_name.keys().filter_map(prefix);
        match (prefixes.next(), prefixes.next()) {
            (Some(first), Some(second)) => Err(Error::checkpoint(
                &self.source,
                format!("tensors {first}{name} and {second}{name} could both be the model's; keep those of one model"),
            )),
            (prefix, _) => Ok(prefix),
        }
    }

    /// The tensor of this name, which must have exactly this shape.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is missing or has another shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor =
            self.find(name).ok_or_else(|| Error::checkpoint(&self.source, format!("tensor {name} is missing")))?;
        if tensor.shape != shape {
            return Err(Error::checkpoint(
                tensor.file.as_path(),
                format!("tensor {name} has shape {:?}, but config.json makes it {shape:?}", tensor.shape),
            ));
        }
        self.marks().insert(name.to_owned());
        Ok(tensor)
    }

    /// The tensor of this name, if there is one. It does not count as read.
    pub(crate) fn find(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_name.values()
    }

    /// The name of a tensor in its file.
    pub(crate) fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.stored_names.get(name).map_or(name, String::as_str)
    }

    /// The names of the tensors that an adapter has replaced or added, as the checkpoint's files have them.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = &str> {
        self.replaced.iter().map(|name| self.stored_name(name))
    }

    /// Whether an adapter has replaced or added this tensor.
    pub(crate) fn is_replaced(&self, name: &str) -> bool {
        self.replaced.contains(name)
    }

    /// Puts a tensor of an adapter in the place of this one, or beside the others.
    pub(super) fn replace(&mut self, name: &str, tensor: Tensor) {
        self.replaced.insert(name.to_owned());
        self.by_name.insert(name.to_owned(), Tensor { name: name.to_owned(), ..tensor });
    }

    /// Adds an update to the tensor of this name, if there is one.
    pub(super) fn update(&mut self, name: &str, update: LowRank) {
        if let Some(tensor) = self.by_name.get_mut(name) {
            tensor.update = Some(Arc::new(update));
        }
    }

    /// What became of each tensor. Call this when the graph with all exits has been built.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a tensor that the graph does not use and that is not known to change no score.
    pub(crate) fn account(&self) -> Result<Vec<CheckpointPart>> {
        let read = self.marks();
        let reason = |name: &str| TENSORS.reason_by_path(name).unwrap_or_default();
        let mut parts = Vec::new();
        for (name, tensor) in &self.by_name {
            let stored = self.stored_name(name);
            // An adapter's tensors are in a file of its own.
            let file = self.files.get(tensor.file.as_path()).cloned().unwrap_or_else(|| file_name(&tensor.file));
            parts.push(if read.contains(name) {
                CheckpointPart::used(&file, stored)
            } else if !reason(name).is_empty() {
                CheckpointPart::ignored(&file, stored, reason(name))
            } else {
                return Err(Error::checkpoint(
                    tensor.file.as_path(),
                    format!(
                        "tensor {stored} has no place in the model that config.json describes; correct config.json, or save \
                         the model again without the tensor"
                    ),
                ));
            });
        }
        parts.extend(self.skipped.iter().map(|(file, name)| CheckpointPart::ignored(file, name, reason(name))));
        Ok(parts)
    }

    fn marks(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
