//! The names of a checkpoint's files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The model's configuration: family, sizes, token ids.
pub const CONFIG_FILE: &str = "config.json";

/// The fast tokenizer, which every checkpoint must have.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Settings of the tokenizer; optional.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// The weights, if they are in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Maps each tensor to its weights file, if there are several. Takes precedence over [`WEIGHTS_FILE`].
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A ready-made graph, read if there are no safetensors files.
pub(crate) const ONNX_FILE: &str = "model.onnx";

/// The content of an [`INDEX_FILE`].
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    /// The weights file of each tensor.
    pub(crate) weight_map: BTreeMap<String, String>,
}

/// The weights files that an [`INDEX_FILE`] with this content names; `None` if it is not an index.
pub fn shard_files(index: &[u8]) -> Option<BTreeSet<String>> {
    let index: ShardIndex = serde_json::from_slice(index).ok()?;
    Some(index.weight_map.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_each_file_once() {
        let index =
            br#"{"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}"#;
        assert_eq!(shard_files(index), Some(["1.safetensors", "2.safetensors"].map(str::to_owned).into()));
        assert_eq!(shard_files(b"{}"), None);
    }
}
