//! Where a model runs.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// An execution device: `cpu`, or an NVIDIA GPU as `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Device {
    /// The CPU, all cores unless [`EngineOptions::threads`](field@crate::EngineOptions::threads) says otherwise.
    #[default]
    Cpu,
    /// The CUDA device of this index. If it cannot be used, opening the model fails: there is no silent fallback.
    Cuda(u16),
}

impl Device {
    /// Tokens per batch where the caller does not say: enough to fill the device, small enough to stay in its cache
    /// (CPU) or memory (GPU).
    pub(crate) fn default_batch_tokens(self) -> usize {
        match self {
            Self::Cpu => 4096,
            Self::Cuda(_) => 65_536,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda).ok_or_else(|| Error::Device {
            device: text.to_owned(),
            message: "there is no such device; expected cpu, cuda or cuda:N".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(7)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}
