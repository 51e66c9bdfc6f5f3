//! Models by name, each opened once per process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::models::Family;
use crate::reranker::Reranker;

/// Names that stand for checkpoint directories. Clones share the same names.
///
/// A name resolves, in this order, to: a location registered for it; for `m3` and the other families' short names,
/// the family's published checkpoint in the local Hugging Face cache; a hub id (`org/name`) in that cache; a directory
/// of that path.
#[derive(Debug, Clone, Default)]
pub struct ModelRegistry {
    locations: Arc<Mutex<HashMap<String, PathBuf>>>,
}

/// A model is shared by all sessions that run it in the same way.
type OpenedKey = (PathBuf, EngineOptions);

/// What is open in this process.
static OPENED: Mutex<Option<HashMap<OpenedKey, Reranker>>> = Mutex::new(None);

impl ModelRegistry {
    /// Makes `name` stand for the checkpoint directory `location`, replacing what it stood for.
    pub fn register(&self, name: impl Into<String>, location: impl Into<PathBuf>) {
        self.lock().insert(name.into(), location.into());
    }

    /// Whether `name` was registered.
    pub fn contains(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Opens a model by name or location, or returns it if this process has it open in this way already.
    ///
    /// # Errors
    /// [`Error::Model`] if the name resolves to nothing, and the errors of [`Reranker::open`].
    pub fn open(&self, name: &str, options: &EngineOptions) -> Result<Reranker> {
        let location = self.resolve(name)?;
        let key = location.canonicalize().unwrap_or_else(|_| location.clone());
        let key = (key, options.clone());
        // Held while opening, so that two sessions that ask at once do not open the same model twice.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.get_or_insert_with(HashMap::new);
        if let Some(reranker) = opened.get(&key) {
            return Ok(reranker.clone());
        }
        let reranker = Reranker::open(&location, options)?;
        opened.insert(key, reranker.clone());
        Ok(reranker)
    }

    /// The directory that a name or location stands for.
    ///
    /// # Errors
    /// [`Error::Model`], saying what to do.
    pub fn resolve(&self, name: &str) -> Result<PathBuf> {
        if let Some(location) = self.lock().get(name) {
            return Ok(location.clone());
        }
        let path = Path::new(name);
        if let Some(family) = Family::from_name(name) {
            return in_hub_cache(family.hub_id()).ok_or_else(|| {
                Error::model(
                    name,
                    format!(
                        "no location is registered for it, and {0} is not in the Hugging Face cache; name its directory, or run `hf download {0}`",
                        family.hub_id()
                    ),
                )
            });
        }
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        in_hub_cache(name).ok_or_else(|| {
            let mut names: Vec<String> = Family::ALL.iter().map(|family| family.name().to_owned()).collect();
            names.extend(self.lock().keys().cloned());
            names.sort();
            names.dedup();
            Error::model(
                name,
                format!(
                    "it is neither a known name ({}), nor a directory, nor in the Hugging Face cache",
                    names.join(", ")
                ),
            )
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, PathBuf>> {
        self.locations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The snapshot of a hub model in the local cache, of the revision that `main` pointed to when it was fetched.
/// (Layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>)
fn in_hub_cache(id: &str) -> Option<PathBuf> {
    let (organisation, model) = id.split_once('/').filter(|(organisation, model)| {
        !organisation.is_empty() && !model.is_empty() && !model.contains('/') && !id.contains("..")
    })?;
    let folder = hub_cache()?.join(format!("models--{organisation}--{model}"));
    let revision = std::fs::read_to_string(folder.join("refs/main")).ok()?;
    Some(folder.join("snapshots").join(revision.trim())).filter(|snapshot| snapshot.is_dir())
}

/// The hub cache's folder, found as Python's `huggingface_hub` finds it.
fn hub_cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| Some(variable("HF_HOME")?.join("hub")))
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(variable("HOME")?.join(".cache/huggingface/hub")))
}
