//! Operators of this crate, for a GPU: what lies between two matrix products, in one pass over memory each.
//!
//! ONNX Runtime's operators for the same take more passes, or have kernels that are slow in 16 bits. With these, an
//! H100 scores 1.07 times as many pairs of m3, 1.15 times as many of gemma, 1.21 of minicpm and 1.11 of gemma2. A graph
//! that is exported has none of them, since only this crate can run them.

/// The domain of these operators in a graph.
pub(crate) const OWN_DOMAIN: &str = "datafusion.rerank";

/// The version of these operators.
pub(crate) const OWN_OPSET: i64 = 1;

/// Rows have to be a multiple of this wide: a kernel reads 16 bytes at once, which are up to 8 elements.
pub(super) const WIDTH_MULTIPLE: usize = 8;

/// One of the operators. All operands and results are of one type, which is that of activations; values are computed in
/// f32 and rounded once.
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
    /// heads * head_dim]`, cosine and sine are `[positions, head_dim / 2]`, with at least as many positions.
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
}
