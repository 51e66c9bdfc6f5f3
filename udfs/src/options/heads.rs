//! Scoring heads of lightweight checkpoints.

use std::fmt;

use super::kind::Choice;

/// How a lightweight checkpoint's scoring head is chosen for a cutoff layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Heads {
    /// By the rank of the layer among the cutoffs asked for, as the reference library does.
    #[default]
    Reference,
    /// The head that was trained for the layer.
    ByLayer,
}

impl Heads {
    /// All choices.
    pub const ALL: &'static [Self] = &[Self::Reference, Self::ByLayer];

    /// The option's spelling of this choice.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::ByLayer => "by_layer",
        }
    }
}

impl Choice for Heads {
    const ALL: &'static [Self] = Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
