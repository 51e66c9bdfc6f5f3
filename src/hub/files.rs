//! Which files of a repository make up a checkpoint.

use std::collections::BTreeSet;
use std::path::Path;

#[cfg(feature = "hub")]
use anyhow::{Result, bail};
use serde::Deserialize;

/// What the model is.
pub(crate) const CONFIG: &str = "config.json";

/// Which tensor is in which of several weights files.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

const TOKENIZER: &str = "tokenizer.json";
#[cfg(feature = "hub")]
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const WEIGHTS: &str = "model.safetensors";

/// The part of the index that says which files there are.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// The weights files that an index names; `None` if it is no index.
pub(crate) fn shards(index: &[u8]) -> Option<BTreeSet<String>> {
    let index: ShardIndex = serde_json::from_slice(index).ok()?;
    Some(index.weight_map.into_values().collect())
}

/// The files to fetch of those that a repository has, its [`CONFIG`] among them. `shards` are the weights files that its index names, if it has one:
/// those are read then, and a single file beside them is not.
#[cfg(feature = "hub")]
pub(crate) fn needed(files: &BTreeSet<String>, shards: Option<&BTreeSet<String>>) -> Result<BTreeSet<String>> {
    let mut needed: BTreeSet<String> = [CONFIG, TOKENIZER].map(str::to_owned).into();
    match shards {
        Some(shards) => {
            needed.insert(INDEX.to_owned());
            needed.extend(shards.iter().cloned());
        }
        None => {
            needed.insert(WEIGHTS.to_owned());
        }
    }
    for name in &needed {
        if files.contains(name) {
            continue;
        }
        match name.as_str() {
            TOKENIZER => bail!(
                "it has no {TOKENIZER}; save the checkpoint with its fast tokenizer (`tokenizer.save_pretrained`)"
            ),
            WEIGHTS => bail!("it has no {WEIGHTS}; a checkpoint with pytorch_model.bin must be saved as safetensors"),
            _ => bail!("it has no {name}, though {INDEX} names it"),
        }
    }
    needed.extend(files.get(TOKENIZER_CONFIG).cloned());
    Ok(needed)
}

/// Whether a folder has all that a checkpoint needs.
pub(super) fn is_complete(folder: &Path) -> bool {
    // Follows links: a blob may be gone.
    let has = |name: &str| folder.join(name).is_file();
    let weights = match std::fs::read(folder.join(INDEX)) {
        Ok(index) => shards(&index).is_some_and(|shards| shards.iter().all(|name| has(name))),
        Err(_) => has(WEIGHTS),
    };
    weights && has(CONFIG) && has(TOKENIZER)
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn nothing_is_fetched_twice_in_another_format() {
        let files = names(&[
            ".gitattributes",
            "README.md",
            CONFIG,
            WEIGHTS,
            "pytorch_model.bin",
            "model.onnx",
            "sentencepiece.bpe.model",
            "special_tokens_map.json",
            TOKENIZER,
            TOKENIZER_CONFIG,
        ]);
        assert_eq!(needed(&files, None).unwrap(), names(&[CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG]));
    }

    #[test]
    fn the_index_says_which_weights_there_are() {
        let index = br#"{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
        let shards = shards(index).unwrap();
        assert_eq!(shards, names(&["model-1.safetensors", "model-2.safetensors"]));
        let mut files = names(&[
            CONFIG,
            TOKENIZER,
            INDEX,
            WEIGHTS,
            "model-1.safetensors",
            "model-2.safetensors",
            "model-3.safetensors",
        ]);
        let expected = names(&[CONFIG, TOKENIZER, INDEX, "model-1.safetensors", "model-2.safetensors"]);
        assert_eq!(needed(&files, Some(&shards)).unwrap(), expected);
        files.remove("model-2.safetensors");
        let error = needed(&files, Some(&shards)).unwrap_err().to_string();
        assert_eq!(error, "it has no model-2.safetensors, though model.safetensors.index.json names it");
    }

    #[test]
    fn what_is_missing_is_said() {
        for (missing, reason) in [(TOKENIZER, "fast tokenizer"), (WEIGHTS, "saved as safetensors")] {
            let mut files = names(&[CONFIG, TOKENIZER, WEIGHTS, "pytorch_model.bin"]);
            files.remove(missing);
            let error = needed(&files, None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("it has no {missing}")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_checkpoint_is_complete_with_all_its_shards() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        write(CONFIG, "{}");
        write(TOKENIZER, "{}");
        assert!(!is_complete(folder.path()));
        write(WEIGHTS, "");
        assert!(is_complete(folder.path()));
        write(INDEX, r#"{"weight_map": {"a": "model-1.safetensors"}}"#);
        assert!(!is_complete(folder.path()));
        write("model-1.safetensors", "");
        assert!(is_complete(folder.path()));
    }
}
