//! The Hugging Face cache on this machine: its folder, and where a model's files are in it.
//!
//! The layout is the same as in Python's `huggingface_hub`, so each program finds what the other has downloaded
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>):
//!
//! ```text
//! models--ORG--NAME/blobs/<id>               contents, by git id or SHA-256
//! models--ORG--NAME/refs/<revision>          the commit that a branch or tag pointed to
//! models--ORG--NAME/snapshots/<commit>/...   links to blobs, by file name
//! .locks/models--ORG--NAME/                  locks of running downloads
//! ```

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Prefix of a model's folder. Data sets and Spaces have others.
const MODELS: &str = "models";

/// Separates the parts of a folder name. A repository name may contain it, an organisation may not.
const SEPARATOR: &str = "--";

const BLOBS: &str = "blobs";
const LOCKS: &str = ".locks";
const REFS: &str = "refs";
const SNAPSHOTS: &str = "snapshots";

/// Id of a model repository on the Hugging Face Hub: `ORG/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubId {
    organisation: String,
    name: String,
}

impl HubId {
    /// Parses `ORG/NAME`. `None` if the hub would not allow the id: both parts consist of ASCII letters, digits, `-`,
    /// `_` and `.`, do not start with a dot and do not contain `..`.
    pub fn parse(id: &str) -> Option<Self> {
        let (organisation, name) = id.split_once('/')?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_plain = |part: &str| {
            !part.is_empty() && part.chars().all(allowed) && !part.contains("..") && !part.starts_with('.')
        };
        (is_plain(organisation) && is_plain(name))
            .then(|| Self { organisation: organisation.to_owned(), name: name.to_owned() })
    }

    /// The id and the commit of a snapshot folder in any hub cache; `None` for any other path.
    pub fn of_snapshot(folder: &Path) -> Option<(Self, &str)> {
        let mut names = folder.iter().rev().map(|name| name.to_str());
        let (commit, snapshots, repository) = (names.next()??, names.next()??, names.next()??);
        (snapshots == SNAPSHOTS).then_some((Self::of_folder(repository)?, commit))
    }

    /// The id of a repository's folder in a cache.
    fn of_folder(folder: &str) -> Option<Self> {
        let id = folder.strip_prefix(MODELS)?.strip_prefix(SEPARATOR)?;
        let (organisation, name) = id.split_once(SEPARATOR)?;
        Some(Self { organisation: organisation.to_owned(), name: name.to_owned() })
    }

    /// The name of the repository's folder in a cache.
    fn folder_name(&self) -> String {
        [MODELS, &self.organisation, &self.name].join(SEPARATOR)
    }

    /// The user or organisation that owns the repository.
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    /// The repository's name, without its owner.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)
    }
}

/// A Hugging Face cache. Its folder need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    folder: PathBuf,
}

impl HubCache {
    /// The cache in a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The user's cache, found the way Python finds it: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `hub` in `HF_HOME`,
    /// `huggingface/hub` in `XDG_CACHE_HOME`, or else `.cache/huggingface/hub` in the home folder. An empty variable
    /// counts as unset. `None` if there is no home folder either.
    pub fn from_env() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        variable("HF_HUB_CACHE")
            .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(variable("HF_HOME")?.join("hub")))
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface/hub")))
            // Not `dirs::cache_dir`: Python uses `~/.cache` on macOS and Windows too.
            .or_else(|| Some(dirs::home_dir()?.join(".cache/huggingface/hub")))
            .map(Self::new)
    }

    /// The cache's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The models that have a folder in the cache, sorted by folder name; none if the cache does not exist.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn ids(&self) -> io::Result<Vec<HubId>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            entries => entries?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        let mut names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        names.sort_unstable();
        Ok(names.into_iter().filter_map(HubId::of_folder).collect())
    }

    /// Where a model's files are. They need not exist.
    pub fn repository(&self, id: &HubId) -> HubRepository {
        let name = id.folder_name();
        HubRepository { locks: self.folder.join(LOCKS).join(&name), folder: self.folder.join(name) }
    }
}

/// Where a model's files are in a cache.
#[derive(Debug, Clone)]
pub struct HubRepository {
    folder: PathBuf,
    locks: PathBuf,
}

impl HubRepository {
    /// The folder of file contents, each named by its git id or, for a large file, by its SHA-256.
    pub fn blobs(&self) -> PathBuf {
        self.folder.join(BLOBS)
    }

    /// The folder of the locks that downloads hold.
    pub fn locks(&self) -> &Path {
        &self.locks
    }

    /// The folder of branches and tags: one file each, which holds the commit.
    pub fn refs(&self) -> PathBuf {
        self.folder.join(REFS)
    }

    /// The folder with one folder per commit.
    pub fn snapshots(&self) -> PathBuf {
        self.folder.join(SNAPSHOTS)
    }

    /// The folder of a commit's files, by their names.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.snapshots().join(commit)
    }

    /// The commit that a branch or tag pointed to when it was downloaded; `None` if it was never downloaded.
    pub fn commit(&self, revision: &str) -> Option<String> {
        std::fs::read_to_string(self.refs().join(revision)).ok().map(|commit| commit.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_those_of_python() {
        let id = HubId::parse("org/a--b").unwrap();
        let repository = HubCache::new("/cache").repository(&id);
        assert_eq!(repository.snapshot("abc"), Path::new("/cache/models--org--a--b/snapshots/abc"));
        assert_eq!(repository.blobs(), Path::new("/cache/models--org--a--b/blobs"));
        assert_eq!(repository.refs(), Path::new("/cache/models--org--a--b/refs"));
        assert_eq!(repository.locks(), Path::new("/cache/.locks/models--org--a--b"));
        assert_eq!(HubId::of_snapshot(&repository.snapshot("abc")), Some((id, "abc")));
        for other in ["/models/b", "/cache/models--org--a/blobs/x", "/cache/datasets--org--a/snapshots/abc", "/", ""] {
            assert_eq!(HubId::of_snapshot(Path::new(other)), None, "{other}");
        }
        assert_eq!(HubId::of_folder("models--gpt2"), None);
    }

    #[test]
    fn ids_are_those_the_hub_allows() {
        assert_eq!(HubId::parse("BAAI/bge-reranker-v2-m3").unwrap().to_string(), "BAAI/bge-reranker-v2-m3");
        for wrong in ["", "m3", "a/b/c", "/b", "a/", "../b", "a/..", "a b/c", "./m3", "https://huggingface.co/a/b"] {
            assert_eq!(HubId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn models_are_listed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path());
        for name in ["models--org--b", "models--org--a", "datasets--org--c", ".locks"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("version.txt"), "1").unwrap();
        let ids: Vec<String> = cache.ids().unwrap().iter().map(HubId::to_string).collect();
        assert_eq!(ids, ["org/a", "org/b"]);
        assert_eq!(HubCache::new(folder.path().join("nothing")).ids().unwrap(), []);
    }
}
