//! The names under which the families are known.

use std::fmt;

/// A family of rerankers, named as in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// XLM-RoBERTa cross-encoders: `BAAI/bge-reranker-v2-m3`, `-large`, `-base`.
    M3,
}

impl Family {
    /// All families.
    pub const ALL: &'static [Self] = &[Self::M3];

    /// The short name: the third argument of `rerank`.
    pub fn name(self) -> &'static str {
        match self {
            Self::M3 => "m3",
        }
    }

    /// The checkpoint that the short name stands for, on the Hugging Face hub.
    pub fn hub_id(self) -> &'static str {
        match self {
            Self::M3 => "BAAI/bge-reranker-v2-m3",
        }
    }

    /// The family of this short name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|family| family.name() == name)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
