//! Cutoff layers.

/// One cutoff layer (a single score) or several (a list of scores from one pass, in the order asked).
///
/// Layers are counted from 1: layer `n` is the state after `n` layers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cutoffs {
    /// A single exit: the score is a `Float32`.
    One(usize),
    /// Several exits: the scores are a `List<Float32>`. An empty list is refused.
    Many(Vec<usize>),
}

impl Cutoffs {
    /// The layers in the order asked.
    pub fn layers(&self) -> &[usize] {
        match self {
            Self::One(layer) => std::slice::from_ref(layer),
            Self::Many(layers) => layers,
        }
    }

    /// Whether the result is a list even if it has one element.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

impl From<usize> for Cutoffs {
    fn from(layer: usize) -> Self {
        Self::One(layer)
    }
}

impl From<Vec<usize>> for Cutoffs {
    fn from(layers: Vec<usize>) -> Self {
        Self::Many(layers)
    }
}

impl<const N: usize> From<[usize; N]> for Cutoffs {
    fn from(layers: [usize; N]) -> Self {
        Self::Many(layers.into())
    }
}
