//! The kernels in PTX, which the driver compiles for the GPU at hand.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

use ort::value::TensorElementType;

use super::driver::{Driver, Handle};
use crate::graph::OwnOperator;

/// What `make kernels` makes of kernels.cu.
const PTX: &str = concat!(include_str!("kernels.ptx"), "\0");

/// The least major compute capability that the PTX is for: bf16 needs 8.0 (Ampere).
const LEAST_CAPABILITY: c_int = 8;

/// The types that there are kernels for, and their part of a kernel's name.
pub(super) const TYPES: [(TensorElementType, &str); 3] =
    [(TensorElementType::Float32, "f32"), (TensorElementType::Float16, "f16"), (TensorElementType::Bfloat16, "bf16")];

/// The kernels, by their names in kernels.cu.
pub(super) struct Kernels {
    pub(super) driver: &'static Driver,
    handles: HashMap<String, Handle>,
}

/// Loads the kernels, and compiles them for the GPUs of these numbers. Returns whether all of the GPUs run them; they
/// are not loaded if one is too old.
///
/// # Errors
/// Why they cannot be loaded or compiled.
pub(in crate::engine) fn load(indices: &[u16]) -> Result<bool, String> {
    if !cfg!(target_os = "linux") {
        return Ok(false);
    }
    let driver = Driver::get()?;
    for index in indices {
        if driver.capability(*index)? < LEAST_CAPABILITY {
            tracing::info!(
                "cuda:{index} is of a compute capability before {LEAST_CAPABILITY}.0, so no kernels are loaded"
            );
            return Ok(false);
        }
    }
    let kernels = Kernels::get()?;
    for index in indices {
        for handle in kernels.handles.values() {
            driver.compile(*handle, *index)?;
        }
    }
    Ok(true)
}

impl Kernels {
    /// The kernels, loaded on first use and kept for the life of the process, or why they cannot be.
    pub(super) fn get() -> Result<&'static Self, String> {
        static KERNELS: OnceLock<Result<Kernels, String>> = OnceLock::new();
        KERNELS.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, String> {
        let driver = Driver::get()?;
        let code = CStr::from_bytes_with_nul(PTX.as_bytes()).map_err(|error| error.to_string())?;
        let library = driver.load_library(code)?;
        let mut handles = HashMap::new();
        for operator in OwnOperator::ALL {
            for (data_type, _) in TYPES {
                let name = kernel_name(operator, data_type).ok_or("a type without kernels")?;
                let symbol = CString::new(name.as_str()).map_err(|error| error.to_string())?;
                handles.insert(name, driver.kernel(library, &symbol)?);
            }
        }
        Ok(Self { driver, handles })
    }

    /// The kernel of an operator on tensors of a type.
    pub(super) fn kernel(&self, operator: OwnOperator, data_type: TensorElementType) -> Option<Handle> {
        self.handles.get(&kernel_name(operator, data_type)?).copied()
    }
}

/// A kernel's name in kernels.cu.
fn kernel_name(operator: OwnOperator, data_type: TensorElementType) -> Option<String> {
    let operator = match operator {
        OwnOperator::AddBias => "add_bias",
        OwnOperator::BiasGelu => "bias_gelu",
        OwnOperator::GatedGelu => "gated_gelu",
        OwnOperator::GatedSilu => "gated_silu",
        OwnOperator::Rotate => "rotate",
    };
    let (_, suffix) = TYPES.into_iter().find(|(known, _)| *known == data_type)?;
    Some(format!("{operator}_{suffix}"))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::driver::THREAD_PACKS;
    use super::*;

    const SOURCE: &str = include_str!("kernels.cu");

    #[test]
    fn every_operator_has_a_kernel_of_every_type() {
        for operator in OwnOperator::ALL {
            for (data_type, _) in TYPES {
                let name = kernel_name(operator, data_type).unwrap();
                assert!(PTX.contains(&format!(".visible .entry {name}(")), "{name}");
            }
        }
    }

    /// `make kernels` writes the digest of the source into the PTX.
    #[test]
    fn the_ptx_is_of_this_source() {
        let digest = Sha256::digest(SOURCE);
        assert!(PTX.starts_with(&format!("// kernels.cu {digest:x}\n")), "kernels.cu has changed; run `make kernels`");
    }

    #[test]
    fn source_and_ptx_agree_with_how_kernels_are_launched() {
        assert!(SOURCE.contains(&format!("enum {{ PACKS = {THREAD_PACKS} }};")));
        assert!(PTX.contains(&format!(".target sm_{LEAST_CAPABILITY}0\n")));
    }
}
