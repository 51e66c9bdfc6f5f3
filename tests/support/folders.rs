//! Folders and the files in them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub(crate) fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    (folder, move |name: &str| root.join(name))
}

/// The files in a folder and its subfolders, by relative path, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    fn visit(base: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(base, &path, found);
            } else {
                found.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    visit(folder, folder, &mut found);
    found.sort();
    found
}

/// The data files of a job's directory, by relative path.
pub(crate) fn data_files(folder: &Path) -> Vec<String> {
    files(folder).into_iter().filter(|name| !name.starts_with("_rerank/")).collect()
}

/// The name of a data file's input, without its extension: the part before number and id.
pub(crate) fn input_of(name: &str) -> String {
    name.rsplitn(3, '-').nth(2).unwrap().to_owned()
}

/// Overwrites a file's data pages but not its footer, as a damaged disk might.
pub(crate) fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[4..middle].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}
