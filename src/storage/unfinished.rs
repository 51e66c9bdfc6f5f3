//! Unfinished local files, recognized by their names.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// Deletes the files of a local folder whose names match. A failed deletion is only logged: the file does no harm.
pub(crate) fn remove_unfinished(folder: &Path, matches: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && entry.file_name().to_str().is_some_and(&matches)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(file = %entry.path().display(), %error, "an unfinished file could not be removed");
        }
    }
}

/// The final name of an unfinished local file: `object_store` writes `<name>#<number>` and renames it.
pub(crate) fn staged_name(unfinished: &str) -> Option<&str> {
    let (name, number) = unfinished.rsplit_once('#')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// Whether `object_store` is writing the local file of this name.
pub(crate) fn is_unfinished(name: &str) -> bool {
    staged_name(name).is_some()
}

/// Identifies the files of this process. The process id is not enough: processes on other machines or in other
/// containers may share it.
pub(crate) fn writer_id() -> String {
    format!("{}-{:08x}", std::process::id(), RandomState::new().hash_one(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_files_are_known_by_their_names() {
        assert!(is_unfinished("x.parquet#1"));
        assert!(is_unfinished("a#b#12"));
        for other in ["x.parquet", "x#", "x#1a", "#x"] {
            assert!(!is_unfinished(other), "{other}");
        }
    }

    #[test]
    fn only_matching_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.json#1", "b.json#22"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("d#1")).unwrap();
        remove_unfinished(folder.path(), is_unfinished);
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.json", "d#1"]);
        remove_unfinished(&folder.path().join("missing"), is_unfinished);
    }
}
