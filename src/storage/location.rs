//! The location of a file: a local path or an object store's URL.

use std::fmt;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::{Path, PathPart};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use url::{Position, Url};

use super::store;

/// A file or directory in a store. It need not exist.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The path in the store.
    pub(crate) path: Path,
    /// The prefix of the path in messages: `/`, `s3://bucket/`.
    root: Arc<str>,
}

impl Location {
    /// Parses a local path or a URL. Stores are configured from the environment (`AWS_*` for `s3://`, `GOOGLE_*` for
    /// `gs://`, `AZURE_*` for `az://`).
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if !text.contains("://") {
            return Self::local(text, LocalPath::new(text));
        }
        let url = Url::parse(text).with_context(|| format!("'{text}' is not a URL"))?;
        // Links are resolved in these too.
        if let ("file", Ok(path)) = (url.scheme(), url.to_file_path()) {
            return Self::local(text, &path);
        }
        let (store, path) = store::open(&url).with_context(|| format!("cannot use '{text}'"))?;
        Ok(Self { store, path, root: format!("{}/", &url[..Position::BeforePath]).into() })
    }

    fn local(text: &str, path: &LocalPath) -> Result<Self> {
        let path = local_path(path).with_context(|| format!("'{text}' is not a path that can be used"))?;
        Ok(Self { store: Arc::new(LocalFileSystem::new()), path, root: "/".into() })
    }

    /// The prefix of the path: `/` for local disks, else the URL of the store.
    #[cfg(feature = "cluster")]
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Another path in the same store.
    pub(crate) fn with_path(&self, path: Path) -> Self {
        Self { path, ..self.clone() }
    }

    /// The file at this path relative to this directory. Names stay as they are, byte for byte.
    pub(crate) fn below(&self, relative: &str) -> Self {
        let names = relative.split('/').filter(|name| !name.is_empty());
        // `Path::from` would percent-encode a name that is percent-encoded already.
        let names = names.map(|name| PathPart::parse(name).unwrap_or_else(|_| PathPart::from(name)));
        self.with_path(self.path.parts().chain(names).collect())
    }

    /// The same place with symbolic links resolved. A path that was joined from names may contain some.
    pub(crate) fn resolved(&self) -> Self {
        let path = self.local_path().and_then(|path| Path::from_absolute_path(real_path(&path)).ok());
        path.map_or_else(|| self.clone(), |path| self.with_path(path))
    }

    /// Whether both are the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.root == other.root && self.path == other.path
    }

    /// The path relative to the directory `base`; `None` if it is not below `base`.
    pub(crate) fn relative_to(&self, base: &Self) -> Option<String> {
        if self.root != base.root {
            return None;
        }
        let parts: Vec<_> = self.path.prefix_match(&base.path)?.collect();
        let names: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        Some(names.join("/"))
    }

    /// The file's metadata; `None` if there is no file.
    pub(crate) async fn meta(&self) -> Result<Option<ObjectMeta>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at {self}")),
        }
    }

    /// The file's size in bytes; `None` if there is no file.
    pub(crate) async fn file_size_bytes(&self) -> Result<Option<u64>> {
        Ok(self.meta().await?.map(|meta| meta.size))
    }

    /// The file's content; `None` if there is no file.
    pub(crate) async fn read(&self) -> Result<Option<Bytes>> {
        let bytes = match self.store.get(&self.path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {self}")),
        }
    }

    /// Deletes the file. A missing file is not an error.
    pub(crate) async fn remove(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot delete {self}")),
        }
    }

    /// Whether a directory, device, pipe or socket is here, on a local disk: nothing that a file may replace.
    pub(crate) fn is_special(&self) -> bool {
        let meta = self.local_path().and_then(|path| std::fs::metadata(path).ok());
        meta.is_some_and(|meta| !meta.is_file())
    }

    /// The path in the local file system; `None` for other stores.
    pub(crate) fn local_path(&self) -> Option<PathBuf> {
        (*self.root == *"/").then(|| LocalFileSystem::new().path_to_filesystem(&self.path).ok())?
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.root, self.path)
    }
}

fn local_path(path: &LocalPath) -> Result<Path> {
    Ok(Path::from_absolute_path(real_path(&std::path::absolute(path)?))?)
}

/// Resolves links and `..` as far as the path exists, so that two names of one file become equal.
fn real_path(path: &LocalPath) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real_path(parent).join(name),
        // The last component is `..`, and its directory does not exist.
        (Some(parent), None) => real_path(parent).parent().map_or_else(|| parent.to_owned(), LocalPath::to_owned),
        (None, _) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_file_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Location::parse(folder.path().join(name).to_str().unwrap()).unwrap();
        assert!(at("a.parquet").is_same(&at("missing/../a.parquet")));
        assert!(!at("a.parquet").is_same(&at("b.parquet")));
        #[cfg(unix)]
        {
            std::fs::create_dir(folder.path().join("real")).unwrap();
            std::os::unix::fs::symlink(folder.path().join("real"), folder.path().join("link")).unwrap();
            assert!(at("real/x").is_same(&at("link/x")));
            let url = Url::from_file_path(folder.path().join("link/x")).unwrap();
            assert!(at("real/x").is_same(&Location::parse(url.as_str()).unwrap()));
            let below = at("").below("link/x");
            assert!(!below.is_same(&at("link/x")) && below.resolved().is_same(&at("link/x")));
        }
    }

    #[test]
    fn files_below_a_directory() {
        let base = Location::parse("/data/in").unwrap();
        let file = base.below("a/b c.parquet");
        assert_eq!(file.relative_to(&base).as_deref(), Some("a/b c.parquet"));
        assert_eq!(file.to_string(), "/data/in/a/b c.parquet");
        assert_eq!(base.relative_to(&file), None);
        for name in ["lang=a%2Fb/ts=2020-01-01%2001%3A00/x", "100% #1?.parquet", "中文/é~.parquet"] {
            assert_eq!(base.below(name).relative_to(&base).as_deref(), Some(name));
            assert_eq!(base.below(name).local_path(), Some(format!("/data/in/{name}").into()));
        }
        assert_eq!(Location::parse("/data/input").unwrap().relative_to(&base), None);
    }

    #[test]
    fn urls_name_their_bucket() {
        let location = Location::parse("s3://bucket/some/file.parquet").unwrap();
        assert_eq!(location.to_string(), "s3://bucket/some/file.parquet");
        assert_eq!(location.path.as_ref(), "some/file.parquet");
        assert!(!location.is_same(&Location::parse("s3://other/some/file.parquet").unwrap()));
        assert_eq!(Location::parse("gs://bucket/file").unwrap().to_string(), "gs://bucket/file");
    }

    #[test]
    fn only_local_files_have_a_local_path() {
        assert_eq!(Location::parse("/data/a b.parquet").unwrap().local_path(), Some("/data/a b.parquet".into()));
        assert_eq!(Location::parse("file:///data/x").unwrap().local_path(), Some("/data/x".into()));
        assert_eq!(Location::parse("s3://bucket/x").unwrap().local_path(), None);
        assert_eq!(Location::parse("memory:///x").unwrap().local_path(), None);
    }

    #[test]
    fn unknown_schemes_are_refused() {
        let error = format!("{:#}", Location::parse("gopher://x/y").unwrap_err());
        assert!(error.contains("cannot use 'gopher://x/y'"), "{error}");
    }
}
