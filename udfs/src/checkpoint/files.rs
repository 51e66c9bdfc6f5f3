//! The names of a checkpoint's files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::json::standard;

/// The model's configuration: family, sizes, token ids.
pub const CONFIG_FILE: &str = "config.json";

/// The fast tokenizer, which every checkpoint must have.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Settings of the tokenizer; optional.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// The tokenizer's special tokens, as older versions of transformers save them; optional.
pub const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// Tokens beside the tokenizer's own, as older versions of transformers save them; optional.
pub const ADDED_TOKENS_FILE: &str = "added_tokens.json";

/// The weights, if they are in one file. Takes precedence over [`INDEX_FILE`], as in transformers.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Maps each tensor to its weights file, if there are several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A ready-made graph, read if there are no safetensors files.
pub(crate) const ONNX_FILE: &str = "model.onnx";

/// Weights that are not read: loading them may run code.
pub(crate) const PICKLE_FILE: &str = "pytorch_model.bin";

/// The configuration of a LoRA adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

/// The weights of a LoRA adapter.
pub(crate) const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The content of an [`INDEX_FILE`].
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    /// The weights file of each tensor.
    pub(crate) weight_map: BTreeMap<String, String>,
}

/// The weights files that an [`INDEX_FILE`] with this content names; `None` if it is not an index.
pub fn shard_files(index: &[u8]) -> Option<BTreeSet<String>> {
    let index: ShardIndex = serde_json::from_slice(&standard(index)).ok()?;
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
