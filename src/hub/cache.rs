//! The files of hub models on this machine.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datafusion_rerank::{Family, ModelRegistry};

use super::HubModel;
use super::files::{CONFIG, is_complete};

/// The cache that all programs of this user share.
#[derive(Debug)]
pub(crate) struct HubCache {
    folder: PathBuf,
}

/// What the cache has of one repository.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(super) folder: PathBuf,
    /// Where those who fetch its files keep their locks.
    #[cfg(feature = "hub")]
    pub(super) locks: PathBuf,
}

/// A revision of a reranker in the cache.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) model: HubModel,
    pub(crate) commit: String,
    /// The branches and tags that were this commit when they were fetched.
    pub(crate) refs: Vec<String>,
    pub(crate) folder: PathBuf,
    pub(crate) family: Family,
    /// Of all its files, some of which other revisions may share.
    pub(crate) size_bytes: u64,
    /// Whether it has all files that it needs to be scored with.
    pub(crate) complete: bool,
}

impl HubCache {
    /// The cache that the environment names. It need not exist.
    pub(crate) fn find() -> Result<Self> {
        let folder = ModelRegistry::default_hub_cache();
        let folder = folder.context("there is no folder for the Hugging Face cache; set HF_HOME to one")?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has of a model.
    pub(crate) fn repository(&self, model: &HubModel) -> Repository {
        Repository {
            folder: self.folder.join(model.folder()),
            #[cfg(feature = "hub")]
            locks: self.folder.join(".locks").join(model.folder()),
        }
    }

    /// All revisions of all rerankers in it, by model and commit.
    pub(crate) fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let fail = || format!("cannot list the Hugging Face cache {}", self.folder.display());
        let mut snapshots = Vec::new();
        for name in names(&self.folder).with_context(fail)? {
            if let Some(model) = HubModel::of_folder(&name) {
                snapshots.extend(self.repository(&model).snapshots(&model).with_context(fail)?);
            }
        }
        Ok(snapshots)
    }
}

impl Repository {
    /// The folder with the files of a commit, by their names.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The folder of a branch, a tag or a commit, if all files that are needed are here.
    #[cfg(feature = "hub")]
    pub(crate) fn complete_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let reference = std::fs::read_to_string(self.folder.join("refs").join(revision));
        let commit = reference.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        Some(self.snapshot(&commit)).filter(|folder| is_complete(folder))
    }

    /// The revisions that are of a family.
    fn snapshots(&self, model: &HubModel) -> io::Result<Vec<Snapshot>> {
        let mut refs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, file) in files(&self.folder.join("refs"))? {
            refs.entry(std::fs::read_to_string(file)?.trim().to_owned()).or_default().push(name);
        }
        let mut snapshots = Vec::new();
        for commit in names(&self.folder.join("snapshots"))? {
            let folder = self.snapshot(&commit);
            let config = folder.join(CONFIG);
            // Most repositories of a cache are something else.
            let Some(family) = std::fs::read(&config).ok().and_then(|json| Family::of_config(&config, &json).ok())
            else {
                continue;
            };
            let mut size_bytes = 0;
            for (_, file) in files(&folder)? {
                // Follows links, some of which may lead nowhere.
                size_bytes += std::fs::metadata(file).map_or(0, |meta| meta.len());
            }
            snapshots.push(Snapshot {
                model: model.clone(),
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

/// As much of a commit as people read.
pub(crate) fn short_commit(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// The names in a folder, sorted; none if there is no such folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        // In a cache lie files, too (`version.txt`).
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

/// The files below a folder, with their names relative to it.
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
        let cache = HubCache { folder: folder.path().to_owned() };
        let put = |path: &str, content: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        put("version.txt", "1");
        put("models--org--bert/snapshots/abc/config.json", r#"{"architectures": ["BertModel"]}"#);
        put("models--org--empty/refs/main", "abc");
        put("models--org--mine/snapshots/abc/config.json", CONFIG_JSON);
        assert!(cache.snapshots().unwrap().is_empty(), "a configuration that is not whole is of no family");
        let config = std::fs::read_to_string("tests/fixtures/tiny-xlmr-reranker/config.json").unwrap();
        put("models--org--mine/snapshots/abc/config.json", &config);
        put("models--org--mine/snapshots/abc/onnx/model.onnx", "12345");
        put("models--org--mine/refs/main", "abc\n");
        put("models--org--mine/refs/refs/pr/1", "abc");
        let snapshots = cache.snapshots().unwrap();
        assert_eq!(snapshots.len(), 1);
        let Snapshot { model, commit, refs, family, size_bytes, complete, .. } = &snapshots[0];
        assert_eq!((model.id().as_str(), commit.as_str(), *family), ("org/mine", "abc", Family::M3));
        assert_eq!(*refs, ["main", "refs/pr/1"]);
        assert_eq!((*size_bytes, *complete), (config.len() as u64 + 5, false));
    }
}
