//! The families and their names.

use std::fmt;

use crate::engine::Devices;
use crate::options::Precision;

/// A family of rerankers, named as in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// XLM-RoBERTa cross-encoders: `BAAI/bge-reranker-v2-m3`, `-large`, `-base`.
    M3,
    /// Gemma decoders scored by the logit of "Yes": `BAAI/bge-reranker-v2-gemma`.
    Gemma,
    /// MiniCPM decoders with a head at every layer: `BAAI/bge-reranker-v2-minicpm-layerwise`.
    MiniCpm,
    /// Gemma 2 decoders with layer heads and token compression: `BAAI/bge-reranker-v2.5-gemma2-lightweight`.
    Gemma2,
}

impl Family {
    /// All families.
    pub const ALL: &'static [Self] = &[Self::M3, Self::Gemma, Self::MiniCpm, Self::Gemma2];

    /// The short name: the third argument of `rerank`.
    pub fn name(self) -> &'static str {
        match self {
            Self::M3 => "m3",
            Self::Gemma => "gemma",
            Self::MiniCpm => "minicpm",
            Self::Gemma2 => "gemma2",
        }
    }

    /// The checkpoint on the Hugging Face hub that the short name stands for.
    pub fn hub_id(self) -> &'static str {
        match self {
            Self::M3 => "BAAI/bge-reranker-v2-m3",
            Self::Gemma => "BAAI/bge-reranker-v2-gemma",
            Self::MiniCpm => "BAAI/bge-reranker-v2-minicpm-layerwise",
            Self::Gemma2 => "BAAI/bge-reranker-v2.5-gemma2-lightweight",
        }
    }

    /// The default precision. On GPUs it is half precision: fp16 for the cross-encoders, whose normalised activations
    /// stay small; bf16 for the decoders, whose residual streams may exceed fp16's range.
    pub(crate) fn default_precision(self, devices: &Devices) -> Precision {
        match self {
            _ if devices.is_cpu() => Precision::Fp32,
            Self::M3 => Precision::Fp16,
            Self::Gemma | Self::MiniCpm | Self::Gemma2 => Precision::Bf16,
        }
    }

    /// The family with this short name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|family| family.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &family in Family::ALL {
            assert_eq!(Family::from_name(family.name()), Some(family));
        }
        assert_eq!(Family::from_name("MiniCPM"), Some(Family::MiniCpm));
        assert_eq!(Family::from_name("m4"), None);
    }
}
