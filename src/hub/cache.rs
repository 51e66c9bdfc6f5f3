//! The rerankers in the Hugging Face cache.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datafusion_rerank::{CONFIG_FILE, Family, HubCache, HubId, HubRepository};

use super::HubModel;
use super::files::is_complete;

/// A commit of a reranker in the cache.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) model: HubModel,
    pub(crate) commit: String,
    /// The branches and tags that pointed to this commit when they were downloaded.
    pub(crate) refs: Vec<String>,
    pub(crate) folder: PathBuf,
    pub(crate) family: Family,
    /// Of all files, some of which other commits may share.
    pub(crate) size_bytes: u64,
    /// Whether it has every file that scoring needs.
    pub(crate) complete: bool,
}

/// The user's cache. Its folder need not exist.
pub(crate) fn find_cache() -> Result<HubCache> {
    HubCache::from_env().context("there is no folder for the Hugging Face cache; set HF_HOME to one")
}

/// A commit, abbreviated.
pub(crate) fn short_commit(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

impl Snapshot {
    /// The commits of every reranker in a cache, by model and commit.
    pub(crate) fn list(cache: &HubCache) -> Result<Vec<Self>> {
        let list = || {
            let mut snapshots = Vec::new();
            for id in cache.ids()? {
                snapshots.extend(Self::list_repository(&cache.repository(&id), &id)?);
            }
            Ok::<_, io::Error>(snapshots)
        };
        list().with_context(|| format!("cannot list the Hugging Face cache {}", cache.folder().display()))
    }

    fn list_repository(repository: &HubRepository, id: &HubId) -> io::Result<Vec<Self>> {
        let mut refs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, file) in files(&repository.refs())? {
            refs.entry(std::fs::read_to_string(file)?.trim().to_owned()).or_default().push(name);
        }
        let mut snapshots = Vec::new();
        for commit in names(&repository.snapshots())? {
            let folder = repository.snapshot(&commit);
            let config = folder.join(CONFIG_FILE);
            // Most repositories of a cache are not rerankers.
            let Some(family) = std::fs::read(&config).ok().and_then(|json| Family::of_config(&config, &json).ok())
            else {
                continue;
            };
            let mut size_bytes = 0;
            for (_, file) in files(&folder)? {
                // Follows links, which may be broken.
                size_bytes += std::fs::metadata(file).map_or(0, |meta| meta.len());
            }
            snapshots.push(Self {
                model: HubModel::new(id.clone()),
                refs: refs.remove(&commit).unwrap_or_default(),
                complete: is_complete(&folder),
                commit,
                folder,
                family,
                size_bytes,
            });
        }
        Ok(snapshots)
    }
}

/// The names in a folder, sorted; none if there is no such folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().into_string().ok()))
        .filter_map(io::Result::transpose)
        .collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// The files in a folder and its subfolders, with their names relative to it.
fn files(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for name in names(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(below, path)| (format!("{name}/{below}"), path)));
        } else {
            found.push((name, path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG_JSON: &str = r#"{"architectures": ["XLMRobertaForSequenceClassification"]}"#;

    #[test]
    fn files_are_found_in_depth_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "refs/pr/2", "refs/pr/1", "a"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let names: Vec<String> = files(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "refs/pr/1", "refs/pr/2"]);
        assert_eq!(files(&folder.path().join("nothing")).unwrap(), []);
    }

    #[test]
    fn only_rerankers_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let list = || Snapshot::list(&HubCache::new(folder.path())).unwrap();
        let put = |path: &str, content: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        put("version.txt", "1");
        put("models--org--bert/snapshots/abc/config.json", r#"{"architectures": ["BertModel"]}"#);
        put("models--org--empty/refs/main", "abc");
        put("models--org--mine/snapshots/abc/config.json", CONFIG_JSON);
        assert!(list().is_empty(), "a truncated configuration has no family");
        let config = std::fs::read_to_string("tests/fixtures/tiny-xlmr-reranker/config.json").unwrap();
        put("models--org--mine/snapshots/abc/config.json", &config);
        put("models--org--mine/snapshots/abc/onnx/model.onnx", "12345");
        put("models--org--mine/refs/main", "abc\n");
        put("models--org--mine/refs/refs/pr/1", "abc");
        let snapshots = list();
        assert_eq!(snapshots.len(), 1);
        let Snapshot { model, commit, refs, family, size_bytes, complete, .. } = &snapshots[0];
        assert_eq!((model.to_string().as_str(), commit.as_str(), *family), ("org/mine", "abc", Family::M3));
        assert_eq!(*refs, ["main", "refs/pr/1"]);
        assert_eq!((*size_bytes, *complete), (config.len() as u64 + 5, false));
    }
}
