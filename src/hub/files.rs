//! The files that a checkpoint needs.

#[cfg(feature = "hub")]
use std::collections::BTreeSet;
use std::path::Path;

#[cfg(feature = "hub")]
use anyhow::{Result, bail};
#[cfg(feature = "hub")]
use datafusion_rerank::{ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE};
use datafusion_rerank::{CONFIG_FILE, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE, shard_files};

/// The names to download of the `files` in a repository.
///
/// `shards` are the weights files that its [`INDEX_FILE`] lists, if that is read: a [`WEIGHTS_FILE`] beside it takes
/// precedence, as when the model is opened.
///
/// # Errors
/// A file that scoring needs is missing.
#[cfg(feature = "hub")]
pub(crate) fn needed(files: &BTreeSet<String>, shards: Option<&BTreeSet<String>>) -> Result<BTreeSet<String>> {
    let mut needed: BTreeSet<String> = [CONFIG_FILE, TOKENIZER_FILE].map(str::to_owned).into();
    match shards {
        Some(shards) => {
            needed.insert(INDEX_FILE.to_owned());
            needed.extend(shards.iter().cloned());
        }
        None => {
            needed.insert(WEIGHTS_FILE.to_owned());
        }
    }
    for name in &needed {
        if files.contains(name) {
            continue;
        }
        match name.as_str() {
            TOKENIZER_FILE => bail!(
                "it has no {TOKENIZER_FILE}; save the checkpoint with its fast tokenizer (`tokenizer.save_pretrained`)"
            ),
            WEIGHTS_FILE => {
                bail!(
                    "it has no {WEIGHTS_FILE}; a checkpoint with pytorch_model.bin must be saved as safetensors; download it with `hf download`, and open its folder for a command that converts it"
                )
            }
            _ => bail!("it has no {name}, though {INDEX_FILE} names it"),
        }
    }
    let optional = [TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE];
    needed.extend(optional.into_iter().filter_map(|name| files.get(name).cloned()));
    Ok(needed)
}

/// Whether a folder has every file that scoring needs.
pub(super) fn is_complete(folder: &Path) -> bool {
    // Follows links: a blob may be gone.
    let has = |name: &str| folder.join(name).is_file();
    let has_shards = || {
        let index = std::fs::read(folder.join(INDEX_FILE)).ok();
        index.and_then(|index| shard_files(&index)).is_some_and(|shards| shards.iter().all(|name| has(name)))
    };
    (has(WEIGHTS_FILE) || has_shards()) && has(CONFIG_FILE) && has(TOKENIZER_FILE)
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
            CONFIG_FILE,
            WEIGHTS_FILE,
            "pytorch_model.bin",
            "model.onnx",
            "sentencepiece.bpe.model",
            "special_tokens_map.json",
            TOKENIZER_FILE,
            TOKENIZER_CONFIG_FILE,
        ]);
        assert_eq!(
            needed(&files, None).unwrap(),
            names(&[CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE])
        );
    }

    #[test]
    fn the_index_says_which_weights_there_are() {
        let index = br#"{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
        let shards = shard_files(index).unwrap();
        assert_eq!(shards, names(&["model-1.safetensors", "model-2.safetensors"]));
        let mut files = names(&[
            CONFIG_FILE,
            TOKENIZER_FILE,
            INDEX_FILE,
            "model-1.safetensors",
            "model-2.safetensors",
            "model-3.safetensors",
        ]);
        let expected = names(&[CONFIG_FILE, TOKENIZER_FILE, INDEX_FILE, "model-1.safetensors", "model-2.safetensors"]);
        assert_eq!(needed(&files, Some(&shards)).unwrap(), expected);
        files.remove("model-2.safetensors");
        let error = needed(&files, Some(&shards)).unwrap_err().to_string();
        assert_eq!(error, "it has no model-2.safetensors, though model.safetensors.index.json names it");
    }

    #[test]
    fn what_is_missing_is_said() {
        for (missing, reason) in [(TOKENIZER_FILE, "fast tokenizer"), (WEIGHTS_FILE, "saved as safetensors")] {
            let mut files = names(&[CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, "pytorch_model.bin"]);
            files.remove(missing);
            let error = needed(&files, None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("it has no {missing}")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_checkpoint_is_complete_with_all_its_shards() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        write(CONFIG_FILE, "{}");
        write(TOKENIZER_FILE, "{}");
        assert!(!is_complete(folder.path()));
        write(INDEX_FILE, r#"{"weight_map": {"a": "model-1.safetensors"}}"#);
        assert!(!is_complete(folder.path()));
        write("model-1.safetensors", "");
        assert!(is_complete(folder.path()));
        std::fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
        write(WEIGHTS_FILE, "");
        assert!(is_complete(folder.path()), "a single file takes precedence over a stale index");
    }
}
