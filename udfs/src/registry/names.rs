//! Which checkpoint a model name stands for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "bundled")]
use super::bundled::{self, BUNDLED_MODEL};
use super::opened::Opened;
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::hub_cache::{HubCache, HubId};
use crate::models::Family;
use crate::reranker::Reranker;
use crate::suggestion::did_you_mean;

/// How many models a process keeps open by default.
pub(crate) const DEFAULT_MAX_MODELS: usize = 4;

/// Names that stand for checkpoint directories. Clones share the same names.
///
/// A name resolves to the first of these: the location registered for it; for `m3` and the other families' short names,
/// the family's published checkpoint in the local Hugging Face cache; with the feature `bundled`, the bundled model for
/// `tiny`; a directory of that path; a hub id (`org/name`) in that cache. The case of names does not matter, that of
/// directories and hub ids does. `./m3` is the directory.
#[derive(Debug, Clone, Default)]
pub struct ModelRegistry {
    /// By name, in lower case.
    locations: Arc<Mutex<HashMap<String, PathBuf>>>,
    /// `None` stands for the cache that the environment names.
    hub_cache: Option<HubCache>,
}

/// All sessions that run a model with the same options share it.
type OpenedKey = (PathBuf, EngineOptions);

/// What is open in this process.
static OPENED: Opened<OpenedKey, Reranker> = Opened::new();

impl ModelRegistry {
    /// Makes `name` stand for the checkpoint directory `location`. Replaces an earlier location.
    pub fn register(&self, name: impl Into<String>, location: impl Into<PathBuf>) {
        self.lock().insert(name.into().to_lowercase(), location.into());
    }

    /// Whether `name` was registered.
    pub fn contains(&self, name: &str) -> bool {
        self.lock().contains_key(&name.to_lowercase())
    }

    /// Every name that stands for a model: the families', the bundled model's and the registered ones, in lower case,
    /// sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Family::ALL.iter().map(|family| family.name().to_owned()).collect();
        #[cfg(feature = "bundled")]
        names.push(BUNDLED_MODEL.to_owned());
        names.extend(self.lock().keys().cloned());
        names.sort();
        names.dedup();
        names
    }

    /// Looks for hub models in `folder` instead of the Hugging Face cache that the environment names.
    #[must_use]
    pub fn with_hub_cache(self, folder: impl Into<PathBuf>) -> Self {
        Self { hub_cache: Some(HubCache::new(folder)), ..self }
    }

    /// Opens a model by name or location, or returns it if this process already has it open with these options.
    ///
    /// Concurrent callers for the same model open it once. An open model is returned at once, even while another one
    /// opens. The process keeps the 4 most recently used models; the memory of any other is freed when its last user
    /// drops it.
    ///
    /// # Errors
    /// [`Error::Model`] if the name resolves to nothing, and the errors of [`Reranker::open`].
    pub fn open(&self, name: &str, options: &EngineOptions) -> Result<Reranker> {
        self.open_within(name, options, DEFAULT_MAX_MODELS)
    }

    /// Like [`Self::open`], but keeps `max_models` (at least 1) open.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_within(&self, name: &str, options: &EngineOptions, max_models: usize) -> Result<Reranker> {
        self.open_among(name, options, max_models, || self.names())
    }

    /// Like [`Self::open_within`], for a caller that knows more names than this registry: `names` are those that an
    /// error lists.
    pub(crate) fn open_among(
        &self,
        name: &str,
        options: &EngineOptions,
        max_models: usize,
        names: impl FnOnce() -> Vec<String>,
    ) -> Result<Reranker> {
        let location = self.locate(name, options.cache.as_deref(), names)?;
        let path = location.canonicalize().unwrap_or_else(|_| location.clone());
        let key = (path, options.clone());
        let (reranker, evicted) = OPENED.get_or_open(&key, max_models, || Reranker::open(&location, options))?;
        // If this was the model's last user, dropping it waits for its workers.
        drop(evicted);
        Ok(reranker)
    }

    /// The models that the process keeps open, whichever registry or session opened them; the most recently used comes
    /// last.
    pub fn open_models() -> Vec<Reranker> {
        OPENED.values()
    }

    /// Whether both hold the same names, as clones do.
    #[cfg(feature = "datafusion")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.locations, &other.locations) && self.hub_cache == other.hub_cache
    }

    /// The directory that a name or location stands for. The bundled model is written to the default cache folder if it
    /// is not there.
    ///
    /// # Errors
    /// [`Error::Model`], saying what to do.
    pub fn resolve(&self, name: &str) -> Result<PathBuf> {
        self.locate(name, None, || self.names())
    }

    /// Like [`Self::resolve`], with the folder of [`EngineOptions::cache`](crate::EngineOptions::cache) and the names
    /// that an error lists.
    #[cfg_attr(not(feature = "bundled"), expect(unused_variables, reason = "only the bundled model is written to it"))]
    pub(crate) fn locate(
        &self,
        name: &str,
        cache: Option<&Path>,
        names: impl FnOnce() -> Vec<String>,
    ) -> Result<PathBuf> {
        if let Some(location) = self.lock().get(&name.to_lowercase()) {
            return Ok(location.clone());
        }
        let path = Path::new(name);
        if let Some(family) = Family::from_name(name) {
            return self.in_hub_cache(family.hub_id()).ok_or_else(|| {
                Error::model(
                    name,
                    format!(
                        "no location is registered for it, and {0} is not in the Hugging Face cache; run `rerank model pull {1}` or `hf download {0}`, or name its directory",
                        family.hub_id(),
                        family.name()
                    ),
                )
            });
        }
        #[cfg(feature = "bundled")]
        if name.eq_ignore_ascii_case(BUNDLED_MODEL) {
            return bundled::directory(cache);
        }
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        self.in_hub_cache(name).ok_or_else(|| {
            let names = names();
            let message = format!(
                "it is neither a known name ({}), nor a directory, nor in the Hugging Face cache{}",
                names.join(", "),
                did_you_mean(name, names.iter().map(String::as_str))
            );
            let remedy = match HubId::parse(name) {
                Some(_) => format!("; if it is a hub id, run `rerank model pull {name}` or `hf download {name}`"),
                None => String::new(),
            };
            Error::model(name, message + &remedy)
        })
    }

    /// The snapshot of a hub model in the local cache: the commit that `main` pointed to when it was downloaded.
    fn in_hub_cache(&self, id: &str) -> Option<PathBuf> {
        let repository = self.hub_cache.clone().or_else(HubCache::from_env)?.repository(&HubId::parse(id)?);
        Some(repository.snapshot(&repository.commit("main")?)).filter(|snapshot| snapshot.is_dir())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, PathBuf>> {
        self.locations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub cache with one snapshot of `id`.
    fn hub_cache_of(id: &str) -> (tempfile::TempDir, PathBuf) {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join(format!("models--{}", id.replace('/', "--")));
        let snapshot = model.join("snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc\n").unwrap();
        (cache, snapshot)
    }

    #[test]
    fn names_resolve_in_order() {
        let (cache, snapshot) = hub_cache_of(Family::M3.hub_id());
        let registry = ModelRegistry::default().with_hub_cache(cache.path());
        assert_eq!(registry.resolve("m3").unwrap(), snapshot);
        assert_eq!(registry.resolve(Family::M3.hub_id()).unwrap(), snapshot);
        assert_eq!(registry.resolve(cache.path().to_str().unwrap()).unwrap(), cache.path());
        registry.register("m3", "/somewhere/else");
        assert!(registry.contains("m3"));
        assert_eq!(registry.clone().resolve("m3").unwrap(), Path::new("/somewhere/else"));
        registry.register("Mine", "/models/mine");
        for name in ["mine", "Mine", "MINE"] {
            assert!(registry.contains(name));
            assert_eq!(registry.resolve(name).unwrap(), Path::new("/models/mine"));
        }
        assert_eq!(registry.resolve("M3").unwrap(), Path::new("/somewhere/else"));
    }

    #[test]
    fn names_that_stand_for_nothing_say_what_to_do() {
        let cache = tempfile::tempdir().unwrap();
        let registry = ModelRegistry::default().with_hub_cache(cache.path());
        registry.register("mine", "/models/mine");
        let error = registry.resolve("m3").unwrap_err().to_string();
        assert!(error.contains("run `rerank model pull m3` or `hf download BAAI/bge-reranker-v2-m3`"), "{error}");
        let error = registry.resolve("org/none").unwrap_err().to_string();
        assert!(error.ends_with("run `rerank model pull org/none` or `hf download org/none`"), "{error}");
        for name in ["m4", "org/none", "../etc", "a/b/c", "..", "/no/such/directory", ""] {
            if Path::new(name).is_dir() {
                continue;
            }
            let error = registry.resolve(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("model '{name}': it is neither a known name (")), "{error}");
            assert!(error.contains("mine"), "{error}");
        }
        for (name, meant) in [("gema", "gemma"), ("m33", "m3"), ("Minicpmm", "minicpm")] {
            let error = registry.resolve(name).unwrap_err().to_string();
            assert!(error.ends_with(&format!(" (did you mean '{meant}'?)")), "{error}");
        }
    }
}
