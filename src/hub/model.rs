//! How the command line names a model of the Hugging Face Hub.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Error, anyhow};
use datafusion_rerank::{Family, HubId};

/// The branch used when no revision is given.
#[cfg(feature = "hub")]
const MAIN: &str = "main";

/// A model repository of the hub, and a revision of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubModel {
    id: HubId,
    /// A branch, a tag or a commit.
    revision: Option<String>,
}

impl HubModel {
    /// A model without a revision.
    pub(super) fn new(id: HubId) -> Self {
        Self { id, revision: None }
    }

    /// Whether a checkpoint is a snapshot of this model in any hub cache; if a revision is given, of that commit.
    pub(crate) fn is_at(&self, checkpoint: &Path) -> bool {
        HubId::of_snapshot(checkpoint).is_some_and(|(id, commit)| {
            id == self.id && self.revision.as_ref().is_none_or(|revision| revision == commit)
        })
    }

    /// `ORG/NAME`.
    pub(crate) fn id(&self) -> &HubId {
        &self.id
    }

    /// The branch, tag or commit.
    #[cfg(feature = "hub")]
    pub(crate) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The published model's name (`m3`), if this is one.
    pub(crate) fn published_name(&self) -> Option<&'static str> {
        let id = self.id.to_string();
        Family::ALL.iter().find(|family| family.hub_id() == id).map(|family| family.name())
    }

    /// Whether this is the revision that `--model NAME` and SQL resolve to.
    #[cfg(feature = "hub")]
    pub(crate) fn is_main(&self) -> bool {
        self.revision() == MAIN
    }
}

impl FromStr for HubModel {
    type Err = Error;

    /// Parses `NAME` or `ORG/NAME`, each optionally followed by `@REVISION`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let id = Family::from_name(id).map_or(id, |family| family.hub_id());
        let id = HubId::parse(id).ok_or_else(|| {
            let names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
            anyhow!("expected {}, or an id ORG/REPO of the hub", names.join(", "))
        })?;
        match revision {
            Some(revision) if !is_revision(revision) => {
                Err(anyhow!("'{revision}' is no revision: expected a branch, a tag or a commit"))
            }
            revision => Ok(Self { id, revision: revision.map(str::to_owned) }),
        }
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// Whether the name is valid as a git revision and as a file name.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    revision.chars().all(allowed) && revision.split('/').all(is_plain) && !revision.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<HubModel>().unwrap_err().to_string()
    }

    #[test]
    fn names_ids_and_revisions() {
        let parsed = |text: &str| {
            let model: HubModel = text.parse().unwrap();
            (model.to_string(), model.published_name())
        };
        let m3 = "BAAI/bge-reranker-v2-m3";
        assert_eq!(parsed("m3"), (m3.into(), Some("m3")));
        assert_eq!(parsed(m3), (m3.into(), Some("m3")));
        assert_eq!(parsed("m3@refs/pr/7"), (format!("{m3}@refs/pr/7"), Some("m3")));
        assert_eq!(parsed("BAAI/bge-reranker-base@v1.0"), ("BAAI/bge-reranker-base@v1.0".into(), None));
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for wrong in ["", "m4", "a/b/c", "/b", "a/", "../b", "a/..", "a b/c", "./m3", "https://huggingface.co/a/b"] {
            assert_eq!(error(wrong), "expected m3, gemma, minicpm, gemma2, or an id ORG/REPO of the hub", "{wrong}");
        }
        for wrong in ["", "..", "a..b", "/a", "a/", ".a", "a b", "a:b", "a/.b", "é"] {
            let error = error(&format!("m3@{wrong}"));
            assert!(error.starts_with(&format!("'{wrong}' is no revision")), "{error}");
        }
    }

    #[test]
    fn a_snapshot_belongs_to_its_model_and_commit() {
        let is_at = |model: &str, folder: &str| model.parse::<HubModel>().unwrap().is_at(Path::new(folder));
        assert!(is_at("org/a--b@v1", "/cache/models--org--a--b/snapshots/v1"));
        assert!(!is_at("org/a--b@v1", "/cache/models--org--a--b/snapshots/v2"));
        assert!(is_at("org/a--b", "models--org--a--b/snapshots/v2"));
        assert!(!is_at("org/a--b", "/cache/models--org--a/snapshots/v2"));
        assert!(!is_at("org/a--b", "/models/b"));
    }
}
