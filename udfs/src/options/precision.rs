//! The precision of a model's layers.

use std::fmt;

use super::kind::Choice;
use crate::checkpoint::DType;

/// Precision of a model's layers. Scoring heads, and everything computed from a logit, are f32 or wider in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats, straight from the checkpoint: the reference's scores.
    #[default]
    Fp32,
    /// 16-bit floats with 11 significant bits, up to 65,504: weights, activations and the operands of every product.
    /// The CPU computes nearly all of it in f32 anyway, so there it saves memory but costs time.
    Fp16,
    /// 16-bit floats with 8 significant bits and the range of f32, on a GPU only: like [`Self::Fp16`], for models whose
    /// activations may exceed its range.
    Bf16,
    /// 8-bit integers, on the CPU only: about twice as fast. Weights are quantized symmetrically, with one scale per
    /// output channel; activations are quantized on the fly, with one scale per device batch. Scores are therefore
    /// close to those of [`Self::Fp32`], not equal, and depend slightly on the pairs in the same batch. Embeddings,
    /// norms and attention stay in f32.
    Int8,
}

impl Precision {
    /// All precisions.
    pub const ALL: &'static [Self] = &[Self::Fp32, Self::Fp16, Self::Bf16, Self::Int8];

    /// The option's spelling of this choice.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The precision with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|precision| precision.name() == name)
    }

    /// The type of activations.
    pub(crate) fn activations(self) -> DType {
        self.half().unwrap_or(DType::F32)
    }

    /// The 16-bit type of weights and activations, if they have one.
    pub(crate) fn half(self) -> Option<DType> {
        match self {
            Self::Fp16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            Self::Fp32 | Self::Int8 => None,
        }
    }
}

impl Choice for Precision {
    const ALL: &'static [Self] = Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
