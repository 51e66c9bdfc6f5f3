//! The files that a run reads.

use anyhow::{Context, Result, bail};
use glob::{MatchOptions, Pattern};
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::format::FileFormat;
use crate::storage::{Location, list};

/// The length of a time in RFC 3339 up to the second.
const SECONDS: usize = "2026-01-01T00:00:00".len();

/// The files that an INPUT argument selects.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The file itself, or the directory that relative names start at.
    pub(crate) base: Location,
    selection: InputSelection,
    /// Sorted by name; at least one.
    pub(crate) files: Vec<InputFile>,
}

#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    pub(crate) location: Location,
    pub(crate) identity: InputIdentity,
}

/// An input file as a job records it. A different identity means different content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputIdentity {
    /// Path relative to [`Inputs::base`], with `/` between names.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) size_bytes: u64,
    /// The store's entity tag. For local files, the time of the last change instead, because their tag depends on more
    /// than the content.
    pub(crate) version: String,
}

impl InputFile {
    fn new(location: Location, meta: ObjectMeta, name: String) -> Self {
        let tag = if location.local_path().is_some() { None } else { meta.e_tag };
        let version = tag.unwrap_or_else(|| meta.last_modified.to_rfc3339());
        Self { location, identity: InputIdentity { name, size_bytes: meta.size, version } }
    }

    /// # Errors
    /// If the file is another than when the job began.
    pub(crate) async fn check_unchanged(&self) -> Result<()> {
        let location = &self.location;
        let Some(meta) = location.meta().await? else { bail!("{location} was removed during the run") };
        // Some stores tell the entity tag or the fraction of the second only to one who asks for this very file.
        let (recorded, modified) = (&self.identity.version, meta.last_modified.to_rfc3339());
        let is_same = if location.local_path().is_some() {
            *recorded == modified
        } else {
            meta.e_tag.as_ref() == Some(recorded) || recorded.get(..SECONDS) == modified.get(..SECONDS)
        };
        if meta.size != self.identity.size_bytes || !is_same {
            bail!("{location} was changed during the run; the scores are of what it was, start the job over");
        }
        Ok(())
    }

    /// The file's format.
    pub(crate) fn format(&self) -> FileFormat {
        FileFormat::of_input(&self.identity.name)
    }
}

/// Selects files below a directory.
#[derive(Debug, Clone)]
enum InputSelection {
    /// The argument is a file.
    OneFile,
    /// All Parquet and Arrow files of a directory.
    Directory,
    /// The files whose relative path matches.
    Glob(Pattern),
}

impl InputSelection {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::OneFile => false,
            Self::Directory => {
                let hidden = name.split('/').any(|part| part.starts_with(['.', '_']));
                !hidden && FileFormat::of(name).is_some()
            }
            Self::Glob(pattern) => pattern.matches_with(
                name,
                MatchOptions {
                    case_sensitive: true,
                    require_literal_separator: true,
                    require_literal_leading_dot: true,
                },
            ),
        }
    }
}

impl Inputs {
    /// Finds the files.
    ///
    /// # Errors
    /// If there are none, or the store cannot be read.
    pub(crate) async fn find(text: &str) -> Result<Self> {
        let (base, selection) = match split_glob(text) {
            // A file's name may look like a pattern.
            Some(_) if std::path::Path::new(text).is_file() => (Location::parse(text)?, InputSelection::Directory),
            Some((directory, pattern)) => {
                let pattern = Pattern::new(pattern).with_context(|| format!("INPUT '{text}' is not a glob"))?;
                (Location::parse(directory)?, InputSelection::Glob(pattern))
            }
            None => (Location::parse(text)?, InputSelection::Directory),
        };
        if let InputSelection::Directory = selection
            && let Some(meta) = base.meta().await?
        {
            let name = base.path.filename().unwrap_or_default().to_owned();
            let file = InputFile::new(base.clone(), meta, name);
            return Ok(Self { base, selection: InputSelection::OneFile, files: vec![file] });
        }

        let taken = selection.clone();
        let listed = list(&base, move |name| taken.takes(name)).await?;
        let mut files: Vec<InputFile> = listed
            .into_iter()
            .filter_map(|meta| {
                let location = base.with_path(meta.location.clone());
                let name = location.relative_to(&base)?;
                Some(InputFile::new(location, meta, name))
            })
            .collect();
        if files.is_empty() {
            match selection {
                InputSelection::Glob(_) => bail!("INPUT '{text}': no file matches"),
                _ => bail!("INPUT '{text}': there is no such file, nor any .parquet, .arrow or .feather file below it"),
            }
        }
        files.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
        Ok(Self { base, selection, files })
    }

    /// Whether INPUT is a single file, not a directory or glob.
    pub(crate) fn is_one_file(&self) -> bool {
        matches!(self.selection, InputSelection::OneFile)
    }

    /// Whether the location is INPUT or one of its files, also through symbolic links.
    pub(crate) fn are_at(&self, location: &Location) -> bool {
        self.base.is_same(location) || self.files.iter().any(|file| file.location.resolved().is_same(location))
    }

    /// Whether a file at this location would be an input of this run or, once written, of the next.
    pub(crate) fn take(&self, location: &Location) -> bool {
        match self.selection {
            InputSelection::OneFile => location.is_same(&self.base),
            _ => location.relative_to(&self.base).is_some_and(|name| self.selection.takes(&name)),
        }
    }
}

/// The directory before the first component with a wildcard, and the pattern from there on.
fn split_glob(text: &str) -> Option<(&str, &str)> {
    let wildcard = text.find(['*', '?', '['])?;
    Some(match text[..wildcard].rfind('/') {
        // The root directory keeps its slash.
        Some(0) => ("/", &text[1..]),
        Some(slash) => (&text[..slash], &text[slash + 1..]),
        None => (".", text),
    })
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        folder
    }

    fn find(folder: &tempfile::TempDir, text: &str) -> Result<Inputs> {
        let text = folder.path().join(text);
        tokio::runtime::Runtime::new().unwrap().block_on(Inputs::find(text.to_str().unwrap()))
    }

    fn names(inputs: &Inputs) -> Vec<&str> {
        inputs.files.iter().map(|file| file.identity.name.as_str()).collect()
    }

    #[test]
    fn globs_split_before_their_first_wildcard() {
        assert_eq!(split_glob("a/b/*.parquet"), Some(("a/b", "*.parquet")));
        assert_eq!(split_glob("a/b*/c/*.parquet"), Some(("a", "b*/c/*.parquet")));
        assert_eq!(split_glob("*.parquet"), Some((".", "*.parquet")));
        assert_eq!(split_glob("/*.parquet"), Some(("/", "*.parquet")));
        assert_eq!(split_glob("s3://bucket/a/[ab].parquet"), Some(("s3://bucket/a", "[ab].parquet")));
        assert_eq!(split_glob("a/b.parquet"), None);
    }

    #[test]
    fn a_directory_is_searched_in_depth_for_what_can_be_read() {
        let folder = folder(&[
            "c.arrow",
            "d.feather",
            "e.arrows",
            "b.parquet",
            "a/x.PARQUET",
            "_temporary/y.parquet",
            ".z.parquet",
            "readme.md",
        ]);
        let inputs = find(&folder, "").unwrap();
        assert_eq!(names(&inputs), ["a/x.PARQUET", "b.parquet", "c.arrow", "d.feather"]);
        assert!(!inputs.is_one_file());
        assert!(inputs.take(&inputs.base.below("new/c.parquet")));
        assert!(!inputs.take(&inputs.base.below("_new/c.parquet")));
    }

    #[test]
    fn a_glob_matches_within_directories_unless_doubled() {
        let folder = folder(&["a1.parquet", "a2.parquet", "b.parquet", "d/a3.parquet"]);
        assert_eq!(names(&find(&folder, "a*.parquet").unwrap()), ["a1.parquet", "a2.parquet"]);
        assert_eq!(names(&find(&folder, "**/a*.parquet").unwrap()), ["a1.parquet", "a2.parquet", "d/a3.parquet"]);
        let one = find(&folder, "b*").unwrap();
        assert!(!one.is_one_file());
        assert!(!one.take(&one.base.below("out/b.parquet")));
    }

    #[test]
    fn a_file_is_one_file_whatever_its_name() {
        let folder = folder(&["data[1].txt"]);
        let inputs = find(&folder, "data[1].txt").unwrap();
        assert!(inputs.is_one_file());
        assert!(inputs.take(&inputs.base));
        assert_eq!(inputs.files[0].identity.size_bytes, 1);
        assert_eq!(inputs.files[0].format(), FileFormat::Parquet);
    }

    #[tokio::test]
    async fn a_file_that_changes_is_noticed() {
        let folder = folder(&["a.parquet"]);
        let input = Inputs::find(folder.path().join("a.parquet").to_str().unwrap()).await.unwrap();
        let file = &input.files[0];
        file.check_unchanged().await.unwrap();
        let path = folder.path().join("a.parquet");
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let change = async |content: &str, later: u64| {
            std::fs::write(&path, content).unwrap();
            let changed = std::fs::File::options().write(true).open(&path).unwrap();
            changed.set_modified(modified + std::time::Duration::from_nanos(later)).unwrap();
            file.check_unchanged().await.unwrap_err().to_string()
        };
        assert!(change("xy", 0).await.contains("was changed during the run"));
        assert!(change("y", 1).await.contains("was changed during the run"));
        std::fs::remove_file(&path).unwrap();
        assert!(file.check_unchanged().await.unwrap_err().to_string().contains("was removed during the run"));

        // A store has tags, which some tell only to one who asks for the file.
        let location = Location::parse("memory:///a.parquet").unwrap();
        location.store.put(&location.path, "x".into()).await.unwrap();
        let listed = ObjectMeta { e_tag: None, ..location.meta().await.unwrap().unwrap() };
        let file = InputFile::new(location.clone(), listed, "a.parquet".to_owned());
        file.check_unchanged().await.unwrap();
        let told = InputFile::new(location.clone(), location.meta().await.unwrap().unwrap(), "a.parquet".to_owned());
        told.check_unchanged().await.unwrap();
        location.store.put(&location.path, "xy".into()).await.unwrap();
        assert!(file.check_unchanged().await.is_err() && told.check_unchanged().await.is_err());
    }

    #[test]
    fn nothing_found_is_an_error() {
        let folder = folder(&["a.txt"]);
        for (text, expected) in [
            ("", "nor any .parquet, .arrow or .feather file below it"),
            ("missing.parquet", "no such file"),
            ("*.parquet", "no file matches"),
        ] {
            let error = find(&folder, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
