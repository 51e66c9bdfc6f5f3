//! What several test modules need.

use std::path::{Path, PathBuf};

use datafusion_rerank::{EngineOptions, Reranker};

/// A file or directory of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tiny checkpoints, one of each family.
pub(crate) const CHECKPOINTS: [&str; 4] = [
    "tiny-xlmr-reranker",
    "tiny-gemma-reranker",
    "tiny-minicpm-layerwise-reranker",
    "tiny-gemma2-lightweight-reranker",
];

pub(crate) fn open(checkpoint: &str) -> Reranker {
    Reranker::open(fixture(checkpoint), &EngineOptions::default()).unwrap()
}

/// Copies a checkpoint to where a test may change it.
pub(crate) fn copy(checkpoint: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(fixture(checkpoint)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
