//! The checkpoints of `tests/fixtures`.

use std::path::{Path, PathBuf};

use datafusion_rerank::{EngineOptions, Reranker};
use serde_json::Value;

use super::time_limit;

pub(crate) const MODEL: &str = "tiny-xlmr-reranker";

/// The tiny checkpoints, one of each family.
pub(crate) const CHECKPOINTS: [&str; 4] = [
    "tiny-xlmr-reranker",
    "tiny-gemma-reranker",
    "tiny-minicpm-layerwise-reranker",
    "tiny-gemma2-lightweight-reranker",
];

/// A file or directory of `tests/fixtures`. Every test that opens a model calls this. After the first call, the process
/// finds the ONNX Runtime of the working tree.
pub(crate) fn fixture(name: &str) -> PathBuf {
    time_limit::watch();
    datafusion_rerank::allow_onnxruntime_search();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tiny checkpoint of the m3 family.
pub(crate) fn tiny_m3() -> PathBuf {
    fixture("tiny-xlmr-reranker")
}

pub(crate) fn open(checkpoint: &str) -> Reranker {
    Reranker::open(fixture(checkpoint), &EngineOptions::default()).unwrap()
}

/// Copies a checkpoint, so that a test may change it.
pub(crate) fn copy(checkpoint: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(fixture(checkpoint)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Writes the encoder with one word, `hi`, whose embedding is not a number.
pub(crate) fn broken_model(folder: &Path) {
    const TOKEN: usize = 360;
    copy(MODEL, folder);
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let tensor = &header["roberta.embeddings.word_embeddings.weight"];
    let start = 8 + header_bytes + tensor["data_offsets"][0].as_u64().unwrap() as usize;
    let row_bytes = 4 * tensor["shape"][1].as_u64().unwrap() as usize;
    bytes[start + TOKEN * row_bytes..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}
