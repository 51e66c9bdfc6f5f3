//! Where a model runs.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use super::cuda::{self, GpuMemory};
use super::kernels;
use crate::error::Error;

/// The fastest of 128, 256, .. 4,096, or within 8 % of it, for layers of 384 to 1,024 in fp32 and int8. At 4,096,
/// activations spill out of the L2 cache, and the work takes 8 to 32 % longer.
const CPU_BATCH_TOKENS_PER_THREAD: usize = 512;

/// 10 TFLOP of work for m3's layers, so that starting a batch costs little. Larger batches have more padding, take more
/// memory, and are 2 % faster for m3 at best (an H100: 4,096 to 131,072 tokens, four families).
const GPU_BATCH_TOKENS: usize = 16_384;

/// Environment variable: `off` runs ONNX Runtime's operators where this crate has faster ones for GPUs.
const KERNELS_VARIABLE: &str = "RERANK_KERNELS";

const ONLY_GPUS: &str = "only GPUs can be several, by their numbers: cuda:N,M";

const NAMED_TWICE: &str = "a GPU is named twice";

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
    /// The memory of a GPU; `None` for the CPU, and if CUDA or the GPU cannot be used.
    pub fn memory(self) -> Option<GpuMemory> {
        match self {
            Self::Cpu => None,
            Self::Cuda(index) => cuda::memory(index).ok(),
        }
    }

    /// The default token budget, if neither the caller nor a measurement sets one. On the CPU it keeps a layer's
    /// activations in the caches of `threads` cores; on a GPU it is enough to fill the device.
    pub(crate) fn usual_batch_tokens(self, threads: usize) -> usize {
        match self {
            Self::Cpu => CPU_BATCH_TOKENS_PER_THREAD.saturating_mul(threads),
            Self::Cuda(_) => GPU_BATCH_TOKENS,
        }
    }

    /// Batches in flight. While a GPU computes one, another's scores are handed over and the next is padded. On the CPU
    /// that would take cores from the batch that computes (2 to 3 % slower).
    pub(crate) fn batches_in_flight(self) -> usize {
        match self {
            Self::Cpu => 1,
            Self::Cuda(_) => 2,
        }
    }
}

/// What [`KERNELS_VARIABLE`] says.
///
/// # Errors
/// [`Error::Option`] for a value that it does not have.
fn are_kernels_wanted(value: Option<&OsStr>) -> Result<bool, Error> {
    match value.map(OsStr::to_string_lossy).as_deref() {
        None | Some("" | "on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(Error::option(KERNELS_VARIABLE, format!("expected on or off, got '{other}'"))),
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

/// The devices that a model runs on: the CPU, or one or more GPUs. Each has its own copy of the weights, and all take
/// batches from one queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Devices(Vec<Device>);

impl Devices {
    /// Several devices.
    ///
    /// # Errors
    /// [`Error::Device`] for none, for a GPU that is named twice, or for the CPU together with others.
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Result<Self, Error> {
        let devices = Self(devices.into_iter().collect());
        let fail = |message: &str| Error::Device { device: devices.to_string(), message: message.to_owned() };
        let [first, others @ ..] = devices.0.as_slice() else {
            return Err(fail("name at least one"));
        };
        if !others.is_empty() && devices.0.contains(&Device::Cpu) {
            return Err(fail(ONLY_GPUS));
        }
        let mut seen = std::collections::HashSet::from([first]);
        if !others.iter().all(|device| seen.insert(device)) {
            return Err(fail(NAMED_TWICE));
        }
        Ok(devices)
    }

    /// The devices in the order given; at least one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Device> {
        self.0.iter().copied()
    }

    /// Whether all of them run this crate's kernels: GPUs of compute capability 8.0 or newer, unless
    /// [`KERNELS_VARIABLE`] says otherwise. Warns if they could, but the kernels cannot be loaded.
    ///
    /// # Errors
    /// [`Error::Option`] for a value that the variable does not have.
    pub(crate) fn run_kernels(&self) -> Result<bool, Error> {
        let value = std::env::var_os(KERNELS_VARIABLE);
        let indices: Vec<u16> = self.gpus().collect();
        if indices.is_empty() || !are_kernels_wanted(value.as_deref())? {
            return Ok(false);
        }
        let loaded = kernels::load(&indices);
        if let Err(reason) = &loaded {
            tracing::warn!("{self}: ONNX Runtime's operators replace faster ones, which cannot be loaded: {reason}");
        }
        Ok(loaded.unwrap_or(false))
    }

    /// The numbers of the GPUs.
    fn gpus(&self) -> impl Iterator<Item = u16> {
        self.iter().filter_map(|device| if let Device::Cuda(index) = device { Some(index) } else { None })
    }

    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.0[0] == Device::Cpu
    }

    /// See [`Device::batches_in_flight`]; all devices are of one kind.
    pub(crate) fn batches_in_flight(&self) -> usize {
        self.0[0].batches_in_flight()
    }

    /// See [`Device::usual_batch_tokens`]; all devices are of one kind.
    pub(crate) fn usual_batch_tokens(&self, threads: usize) -> usize {
        self.0[0].usual_batch_tokens(threads)
    }
}

impl Default for Devices {
    fn default() -> Self {
        Device::default().into()
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(vec![device])
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, device) in self.iter().enumerate() {
            match device {
                Device::Cuda(index) if position > 0 => write!(f, ",{index}")?,
                device => write!(f, "{device}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Devices {
    type Err = Error;

    /// `cpu`, `cuda`, `cuda:N`, or several GPUs as `cuda:N,M`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |message: &str| Error::Device { device: text.to_owned(), message: message.to_owned() };
        let (first, others) = text.split_once(',').map_or((text, None), |(first, others)| (first, Some(others)));
        let mut devices =
            vec![first.parse().map_err(|_| {
                fail("there is no such device; expected cpu, cuda, cuda:N or, for several GPUs, cuda:N,M")
            })?];
        for index in others.into_iter().flat_map(|others| others.split(',')) {
            let index = index.strip_prefix("cuda:").unwrap_or(index).parse();
            devices.push(Device::Cuda(index.map_err(|_| fail(ONLY_GPUS))?));
        }
        Self::new(devices).map_err(|error| match error {
            Error::Device { message, .. } => Error::Device { device: text.to_owned(), message },
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_on_unless_they_are_turned_off() {
        let wanted = |value: Option<&str>| are_kernels_wanted(value.map(OsStr::new)).map_err(|error| error.to_string());
        assert_eq!([None, Some(""), Some("on"), Some("off")].map(wanted), [true, true, true, false].map(Ok));
        assert_eq!(wanted(Some("no")).unwrap_err(), "option RERANK_KERNELS: expected on or off, got 'no'");
        // The CPU has none.
        assert!(!Devices::default().run_kernels().unwrap());
    }

    #[test]
    fn names_round_trip() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(7)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string().parse::<Devices>().unwrap(), device.into());
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_gpus_are_named_by_their_numbers() {
        let devices: Devices = "cuda:2,0".parse().unwrap();
        assert_eq!(devices.iter().collect::<Vec<_>>(), [Device::Cuda(2), Device::Cuda(0)]);
        assert_eq!(devices.to_string(), "cuda:2,0");
        assert_eq!("cuda:2,cuda:0".parse::<Devices>().unwrap(), devices);
        assert_eq!(Devices::new([Device::Cuda(2), Device::Cuda(0)]).unwrap(), devices);
        assert!(Devices::default().is_cpu() && !devices.is_cpu());
        for wrong in [vec![], vec![Device::Cuda(1), Device::Cpu], vec![Device::Cuda(1); 2]] {
            assert!(matches!(Devices::new(wrong), Err(Error::Device { .. })));
        }
        for (wrong, why) in [
            ("cpu,cpu", "only GPUs can be several"),
            ("cpu,0", "only GPUs can be several"),
            ("cuda:0,cpu", "only GPUs can be several"),
            ("cuda:0,", "only GPUs can be several"),
            ("cuda:1,1", "named twice"),
            ("gpu", "no such device"),
        ] {
            let error = wrong.parse::<Devices>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("device {wrong}: ")) && error.contains(why), "{error}");
        }
    }
}
