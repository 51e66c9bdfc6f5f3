//! The files below a directory.

use std::ffi::OsStr;
use std::path::Path as LocalPath;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use walkdir::WalkDir;

use super::location::Location;
use super::unfinished::is_unfinished;

/// The files below a directory whose path relative to it is wanted, in no order. There may be none, and no directory.
///
/// # Errors
/// If the directory cannot be listed, or a wanted file of a local disk has a name that is not UTF-8 or holds a control
/// character. Such names of other files do not matter.
pub(crate) async fn list(
    directory: &Location,
    wanted: impl Fn(&str) -> bool + Send + 'static,
) -> Result<Vec<ObjectMeta>> {
    let context = || format!("cannot list {directory}");
    let Some(folder) = directory.local_path() else {
        let files = directory.store.list(Some(&directory.path)).try_filter(|meta| {
            let name = directory.with_path(meta.location.clone()).relative_to(directory);
            std::future::ready(name.is_some_and(|name| wanted(&name)))
        });
        return files.try_collect().await.with_context(context);
    };
    let listing = tokio::task::spawn_blocking(move || list_local(&folder, wanted));
    listing.await.with_context(context)?.with_context(context)
}

fn list_local(folder: &LocalPath, wanted: impl Fn(&str) -> bool) -> Result<Vec<ObjectMeta>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in WalkDir::new(folder).min_depth(1).follow_links(true) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if is_gone(&error) || error.loop_ancestor().is_some() => continue,
            Err(error) => return Err(error.into()),
        };
        let path = entry.path();
        let name = path.strip_prefix(folder).map(|name| name.as_os_str().to_string_lossy()).unwrap_or_default();
        if !entry.file_type().is_file() || entry.file_name().to_str().is_some_and(is_unfinished) || !wanted(&name) {
            continue;
        }
        let is_plain = |name: &OsStr| name.to_str().is_some_and(|name| !name.contains(char::is_control));
        if !is_plain(path.as_os_str()) {
            let shown = path.to_string_lossy().escape_debug().to_string();
            bail!("the name '{shown}' is not UTF-8 or holds a control character; rename the file");
        }
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        files.push(ObjectMeta {
            location: Path::from_absolute_path(path)?,
            last_modified: meta.modified()?.into(),
            size: meta.len(),
            e_tag: None,
            version: None,
        });
    }
    Ok(files)
}

/// Whether a link leads nowhere, or another process has removed the file.
fn is_gone(error: &walkdir::Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[ObjectMeta], directory: &Location) -> Vec<String> {
        let name = |meta: &ObjectMeta| directory.with_path(meta.location.clone()).relative_to(directory).unwrap();
        let mut names: Vec<String> = files.iter().map(name).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn local_files_have_the_names_and_times_that_the_store_tells() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let expected = ["a%2Fb/100% #x?.parquet", "plain", "中文/é.parquet"];
        for name in expected {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::write(folder.path().join("half#1"), "").unwrap();
        let files = list(&directory, |_| true).await.unwrap();
        assert_eq!(names(&files, &directory), expected);
        for file in &files {
            let meta = directory.with_path(file.location.clone()).meta().await.unwrap().unwrap();
            assert_eq!((file.size, file.last_modified), (meta.size, meta.last_modified));
        }
        assert_eq!(names(&list(&directory, |name| name.starts_with("pl")).await.unwrap(), &directory), ["plain"]);
        assert!(list(&directory.below("missing"), |_| true).await.unwrap().is_empty());
    }

    #[tokio::test]
    #[cfg(unix)]
    async fn names_that_nobody_can_write_matter_only_if_they_are_wanted() {
        use std::os::unix::ffi::OsStrExt;

        let folder = tempfile::tempdir().unwrap();
        let directory = Location::parse(folder.path().to_str().unwrap()).unwrap();
        std::fs::write(folder.path().join("good.parquet"), "").unwrap();
        for odd in [&b"\xff.txt"[..], b"bell\x07.txt"] {
            let file = folder.path().join(OsStr::from_bytes(odd));
            std::fs::write(&file, "").unwrap();
            let files = list(&directory, |name| name.contains("good")).await.unwrap();
            assert_eq!(names(&files, &directory), ["good.parquet"]);
            let error = format!("{:#}", list(&directory, |name| !name.contains("good")).await.unwrap_err());
            assert!(error.contains("is not UTF-8 or holds a control character; rename the file"), "{error}");
            std::fs::remove_file(file).unwrap();
        }
    }
}
