//! Operators of this crate, for a GPU: what lies between two matrix products, in one pass over memory each.
//!
//! ONNX Runtime's operators for the same take more passes, or have kernels that are slow in 16 bits: they take a quarter
//! of a decoder's time on an H100. A graph that is exported has none of these, since only this crate can run them.

use super::builder::GraphBuilder;

/// The domain of these operators in a graph.
pub(crate) const OWN_DOMAIN: &str = "datafusion.rerank";

/// The version of these operators.
pub(crate) const OWN_OPSET: i64 = 1;

/// Rows have to be a multiple of this wide: a kernel reads 16 bytes at once, which are up to 8 elements.
const WIDTH_MULTIPLE: usize = 8;

/// One of the operators. All operands and results are of one type, which is that of activations; values are computed in f32
/// and rounded once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnOperator {
    /// `x + bias`; x is `[.., width]`, the bias `[width]`.
    AddBias,
    /// `gelu(x + bias)`, with GELU by the error function; operands like [`Self::AddBias`].
    BiasGelu,
    /// `gelu(gate) * up`, with GELU by its tanh approximation; operands of the same shape.
    GatedGelu,
    /// `silu(gate) * up`; operands of the same shape.
    GatedSilu,
    /// Rotary position embedding, half-split, where a token's position is its index in its row: x is `[batch, sequence,
    /// heads * head_dim]`, cosine and sine are `[sequence, head_dim / 2]`.
    Rotate,
}

impl OwnOperator {
    pub(crate) const ALL: [Self; 5] = [Self::AddBias, Self::BiasGelu, Self::GatedGelu, Self::GatedSilu, Self::Rotate];

    /// Its name in a graph.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AddBias => "AddBias",
            Self::BiasGelu => "BiasGelu",
            Self::GatedGelu => "GatedGelu",
            Self::GatedSilu => "GatedSilu",
            Self::Rotate => "Rotate",
        }
    }

    /// The number of operands.
    pub(crate) fn operands(self) -> usize {
        match self {
            Self::AddBias | Self::BiasGelu | Self::GatedGelu | Self::GatedSilu => 2,
            Self::Rotate => 3,
        }
    }

    /// Whether a graph may use the operators on rows of `width` elements. [`Self::Rotate`] reads rows of half a head.
    pub(super) fn suit(g: &GraphBuilder, width: usize) -> bool {
        g.has_own_operators() && width.is_multiple_of(WIDTH_MULTIPLE)
    }
}
