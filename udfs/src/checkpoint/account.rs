//! The account of a checkpoint: what is in its folder, and what became of it.

/// A file of a checkpoint, or a key or tensor in one, and what became of it. [`Model::account`](crate::Model::account)
/// lists them all.
///
/// Each part is used, or is in a list below and changes no score. Any other key or tensor is refused by name when the
/// model is opened: it may change scores.
///
/// # `config.json`
///
/// A key that the checkpoint's family reads is used, even if it is in a list. An unknown key that is null or empty is
/// ignored. Keys that matter only if they are set (`is_decoder`, `quantization_config`, `pruned_heads`) are read, and
/// refused if they are set.
#[doc = config_keys_table!()]
///
/// # `tokenizer_config.json` and `special_tokens_map.json`
#[doc = tokenizer_keys_table!()]
///
/// # `adapter_config.json`
///
/// Any other key that is null, false or empty is ignored: what new versions of peft add is off by default.
#[doc = adapter_keys_table!()]
///
/// # Tensors, by the ends of their names
#[doc = tensors_table!()]
///
/// # Files, by the ends of their names
///
/// Any other file is not part of a model.
#[doc = files_table!()]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointPart {
    /// The file's name.
    pub file: String,
    /// The key or the tensor in the file; `None` for the file itself.
    pub name: Option<String>,
    /// Why it changes no score; `None` if it is used.
    pub ignored: Option<String>,
    /// Whether it is in the folder of the adapter, not of the model.
    pub of_adapter: bool,
}

impl CheckpointPart {
    pub(crate) fn of_file(file: &str, ignored: Option<&str>) -> Self {
        Self { file: file.to_owned(), name: None, ignored: ignored.map(str::to_owned), of_adapter: false }
    }

    pub(crate) fn used(file: &str, name: &str) -> Self {
        Self { file: file.to_owned(), name: Some(name.to_owned()), ignored: None, of_adapter: false }
    }

    pub(crate) fn ignored(file: &str, name: &str, reason: &str) -> Self {
        Self { file: file.to_owned(), name: Some(name.to_owned()), ignored: Some(reason.to_owned()), of_adapter: false }
    }
}
