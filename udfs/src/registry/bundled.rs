//! The bundled model: a small trained reranker, for demonstrations without a download.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::checkpoint::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::error::{Error, Result};
use crate::weights::WeightsCache;

/// The name of the bundled model, wherever a model can be named.
pub const BUNDLED_MODEL: &str = "tiny";

/// The name of its folder. It contains the version, so that programs of different versions do not replace each other's
/// files.
const FOLDER: &str = concat!("tiny-", env!("CARGO_PKG_VERSION"));

const FILES: &[(&str, &[u8])] = &[
    (CONFIG_FILE, include_bytes!("../../models/tiny/config.json")),
    (TOKENIZER_FILE, include_bytes!("../../models/tiny/tokenizer.json")),
    (WEIGHTS_FILE, include_bytes!("../../models/tiny/model.safetensors")),
];

/// The folders that this process has compared with [`FILES`].
static INTACT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The directory of the bundled checkpoint, in `cache` or the default cache folder. ONNX Runtime memory-maps weights
/// from files, so they are written there if they are missing or damaged.
///
/// # Errors
/// [`Error::Model`] if they cannot be written.
pub(super) fn directory(cache: Option<&Path>) -> Result<PathBuf> {
    let folder = WeightsCache::open(cache)?.folder().join(FOLDER);
    // Names are resolved for every call of a query.
    let mut intact = INTACT.lock().unwrap_or_else(PoisonError::into_inner);
    if !intact.contains(&folder) || !folder.is_dir() {
        restore(&folder)?;
        intact.insert(folder.clone());
    }
    Ok(folder)
}

/// Writes the files that are missing or damaged.
fn restore(folder: &Path) -> Result<()> {
    for (name, content) in FILES {
        let file = folder.join(name);
        if std::fs::read(&file).is_ok_and(|found| found == *content) {
            continue;
        }
        write(folder, &file, content).map_err(|error| {
            let folder = folder.display();
            Error::model(
                BUNDLED_MODEL,
                format!("it cannot be written to {folder}: {error}; name a writable folder with --cache, rerank.cache or RERANK_CACHE"),
            )
        })?;
    }
    Ok(())
}

/// Writes a file that appears once complete, even if other processes write it too.
fn write(folder: &Path, file: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
    unfinished.write_all(content)?;
    unfinished.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_and_missing_files_are_written_again() {
        let cache = tempfile::tempdir().unwrap();
        let folder = directory(Some(cache.path())).unwrap();
        std::fs::write(folder.join(CONFIG_FILE), "{}").unwrap();
        std::fs::remove_file(folder.join(TOKENIZER_FILE)).unwrap();
        restore(&folder).unwrap();
        for (name, content) in FILES {
            assert_eq!(std::fs::read(folder.join(name)).unwrap(), *content, "{name}");
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), FILES.len());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(std::fs::read_dir(directory(Some(cache.path())).unwrap()).unwrap().count(), FILES.len());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = directory(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()) && error.contains("--cache"), "{error}");
    }
}
