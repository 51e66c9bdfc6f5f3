//! What a model of the hub is called.

use std::fmt;
use std::path::Path;

use datafusion_rerank::Family;

/// The branch that is meant where none is named.
#[cfg(feature = "hub")]
const MAIN: &str = "main";

/// A repository of the hub, and a revision in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubModel {
    organisation: String,
    name: String,
    /// A branch, a tag or a commit.
    revision: Option<String>,
}

impl HubModel {
    /// `NAME` or `ORG/REPO`, with `@REVISION` or without.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let id = Family::from_name(id).map_or(id, |family| family.hub_id());
        let Some((organisation, name)) =
            id.split_once('/').filter(|(organisation, name)| is_plain(organisation) && is_plain(name))
        else {
            let names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
            return Err(format!("expected {}, or an id ORG/REPO of the hub", names.join(", ")));
        };
        if let Some(revision) = revision
            && !is_revision(revision)
        {
            return Err(format!("'{revision}' is no revision: expected a branch, a tag or a commit"));
        }
        Ok(Self { organisation: organisation.into(), name: name.into(), revision: revision.map(str::to_owned) })
    }

    /// The model whose files lie in this folder of a hub cache.
    pub(super) fn of_folder(folder: &str) -> Option<Self> {
        // A name may hold two dashes in a row, an organisation may not.
        let (organisation, name) = folder.strip_prefix("models--")?.split_once("--")?;
        Some(Self { organisation: organisation.into(), name: name.into(), revision: None })
    }

    /// The folder of its files in a hub cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.organisation, self.name)
    }

    /// Whether a checkpoint is a snapshot of this model, of this revision if one is named, in any hub cache.
    pub(crate) fn is_at(&self, checkpoint: &Path) -> bool {
        let mut names = checkpoint.iter().rev();
        let commit = names.next();
        names.next().is_some_and(|name| name == "snapshots")
            && names.next().is_some_and(|name| *name == *self.folder())
            && self.revision.as_ref().is_none_or(|revision| commit.is_some_and(|commit| *commit == **revision))
    }

    #[cfg(feature = "hub")]
    pub(super) fn organisation(&self) -> &str {
        &self.organisation
    }

    #[cfg(feature = "hub")]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `ORG/REPO`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.organisation, self.name)
    }

    /// The branch, tag or commit.
    #[cfg(feature = "hub")]
    pub(crate) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The name that stands for it in SQL and after `--model`: the short one, if it has one.
    pub(crate) fn short_name(&self) -> String {
        let id = self.id();
        Family::ALL.iter().find(|family| family.hub_id() == id).map_or(id, |family| family.name().to_owned())
    }

    /// Whether that name stands for this revision, and not for another.
    #[cfg(feature = "hub")]
    pub(crate) fn is_main(&self) -> bool {
        self.revision() == MAIN
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// Whether the hub would have an organisation or a repository of this name, and a folder may be called so.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(allowed) && !name.contains("..") && !name.starts_with('.')
}

/// Whether git would take it for the name of a revision, and a folder may be called so.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let parts = |part: &str| !part.is_empty() && !part.starts_with('.');
    revision.chars().all(allowed) && revision.split('/').all(parts) && !revision.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_revisions() {
        let shown = |text: &str| HubModel::parse(text).map(|model| (model.to_string(), model.short_name()));
        let m3 = "BAAI/bge-reranker-v2-m3";
        assert_eq!(shown("m3"), Ok((m3.into(), "m3".into())));
        assert_eq!(shown(m3), Ok((m3.into(), "m3".into())));
        assert_eq!(shown("m3@refs/pr/7"), Ok((format!("{m3}@refs/pr/7"), "m3".into())));
        assert_eq!(
            shown("BAAI/bge-reranker-base@v1.0"),
            Ok(("BAAI/bge-reranker-base@v1.0".into(), "BAAI/bge-reranker-base".into()))
        );
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for wrong in ["", "m4", "a/b/c", "/b", "a/", "../b", "a/..", "a b/c", "./m3", "https://huggingface.co/a/b"] {
            let error = HubModel::parse(wrong).unwrap_err();
            assert_eq!(error, "expected m3, gemma, minicpm, gemma2, or an id ORG/REPO of the hub", "{wrong}");
        }
        for wrong in ["", "..", "a..b", "/a", "a/", ".a", "a b", "a:b", "a/.b", "é"] {
            let error = HubModel::parse(&format!("m3@{wrong}")).unwrap_err();
            assert!(error.starts_with(&format!("'{wrong}' is no revision")), "{error}");
        }
    }

    #[test]
    fn folders_are_those_of_python() {
        let model = HubModel::parse("org/a--b@v1").unwrap();
        assert_eq!(model.folder(), "models--org--a--b");
        assert_eq!(HubModel::of_folder("models--org--a--b").unwrap().to_string(), "org/a--b");
        assert!(model.is_at(Path::new("/cache/models--org--a--b/snapshots/v1")));
        assert!(!model.is_at(Path::new("/cache/models--org--a--b/snapshots/v2")));
        let any = HubModel::parse("org/a--b").unwrap();
        assert!(any.is_at(Path::new("models--org--a--b/snapshots/v2")));
        assert!(!any.is_at(Path::new("/cache/models--org--a/snapshots/v2")) && !any.is_at(Path::new("/models/b")));
        assert_eq!(HubModel::of_folder("datasets--org--a"), None);
        assert_eq!(HubModel::of_folder("models--gpt2"), None);
    }
}
