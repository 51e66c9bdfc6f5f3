//! The account of a checkpoint: what is in its folder, and what became of it.

/// A file of a checkpoint, or a key or tensor in one, and what became of it. [`Model::account`](crate::Model::account)
/// lists them all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointPart {
    /// The file's name.
    pub file: String,
    /// The key or the tensor in the file; `None` for the file itself.
    pub name: Option<String>,
    /// Why it changes no score; `None` if it is used.
    pub ignored: Option<String>,
}

impl CheckpointPart {
    pub(crate) fn of_file(file: &str, ignored: Option<&str>) -> Self {
        Self { file: file.to_owned(), name: None, ignored: ignored.map(str::to_owned) }
    }

    pub(crate) fn used(file: &str, name: &str) -> Self {
        Self { file: file.to_owned(), name: Some(name.to_owned()), ignored: None }
    }

    pub(crate) fn ignored(file: &str, name: &str, reason: &str) -> Self {
        Self { file: file.to_owned(), name: Some(name.to_owned()), ignored: Some(reason.to_owned()) }
    }
}
