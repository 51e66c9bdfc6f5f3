//! Loads the kernels into NVIDIA's driver, and launches them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;
use ort::value::TensorElementType;

use crate::engine::cuda;
use crate::graph::OwnOperator;

/// The kernels in PTX, which the driver compiles for the GPU at hand when it loads them. `make kernels` makes it of kernels.cu.
const PTX: &str = concat!(include_str!("kernels.ptx"), "\0");

/// The least major compute capability that PTX was made for: bf16 needs 8.0 (Ampere).
const LEAST_CAPABILITY: c_int = 8;

/// Threads of a block: small enough for several blocks on a multiprocessor, large enough to fill it.
const BLOCK_THREADS: c_uint = 256;

/// Packs of 16 bytes that a block works on; see kernels.cu.
const BLOCK_PACKS: c_uint = 2 * BLOCK_THREADS;

/// The types that there are kernels for, and their part of a kernel's name.
pub(super) const TYPES: [(TensorElementType, &str); 3] =
    [(TensorElementType::Float32, "f32"), (TensorElementType::Float16, "f16"), (TensorElementType::Bfloat16, "bf16")];

/// Names of the CUDA driver API, and their types as it documents them; each returns a `CUresult`.
/// (CUDA driver API 13.0: initialization, device, library and execution management)
type Init = unsafe extern "C" fn(c_uint) -> c_int;
type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type DeviceGetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
type LibraryLoadData = unsafe extern "C" fn(
    *mut *mut c_void,
    *const c_void,
    *mut c_int,
    *mut *mut c_void,
    c_uint,
    *mut c_int,
    *mut *mut c_void,
    c_uint,
) -> c_int;
type LibraryGetKernel = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int;
type LaunchKernel = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`
const CAPABILITY_MAJOR: c_int = 75;

/// One of the kernels: a `CUkernel`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(*mut c_void);

// SAFETY: a `CUkernel` is not bound to a thread or a context, and the driver's functions are thread-safe.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The kernels, by operator and type.
pub(in crate::engine) struct Kernels {
    handles: HashMap<String, Handle>,
    device_get: DeviceGet,
    device_get_attribute: DeviceGetAttribute,
    get_error_string: GetErrorString,
    launch_kernel: LaunchKernel,
}

/// The kernels, loaded on first use and kept for the life of the process, or why they cannot be.
pub(in crate::engine) fn kernels() -> Result<&'static Kernels, &'static str> {
    static KERNELS: OnceLock<Result<Kernels, String>> = OnceLock::new();
    KERNELS.get_or_init(Kernels::load).as_ref().map_err(String::as_str)
}

impl Kernels {
    fn load() -> Result<Self, String> {
        // SAFETY: NVIDIA's driver; its initializers have no preconditions.
        let driver = unsafe { Library::new(cuda::DRIVER) }.map_err(|error| error.to_string())?;
        // The functions are used as long as the process lives.
        let driver: &'static Library = Box::leak(Box::new(driver));
        let name = |name: &CStr| format!("{} has no {}", cuda::DRIVER, name.to_string_lossy());
        macro_rules! function {
            ($name:literal, $signature:ty) => {
                // SAFETY: the signature is the documented one; see the types.
                *unsafe { driver.get::<$signature>($name) }.map_err(|_| name($name))?
            };
        }
        let init = function!(c"cuInit", Init);
        let load_data = function!(c"cuLibraryLoadData", LibraryLoadData);
        let get_kernel = function!(c"cuLibraryGetKernel", LibraryGetKernel);
        let mut kernels = Self {
            handles: HashMap::new(),
            device_get: function!(c"cuDeviceGet", DeviceGet),
            device_get_attribute: function!(c"cuDeviceGetAttribute", DeviceGetAttribute),
            get_error_string: function!(c"cuGetErrorString", GetErrorString),
            launch_kernel: function!(c"cuLaunchKernel", LaunchKernel),
        };
        // SAFETY: no preconditions; 0 is the only value that is allowed.
        let initialized = unsafe { init(0) };
        kernels.check(initialized)?;
        let mut library = ptr::null_mut();
        let (none, nothing) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the code is a string that ends in 0; there are no options, so their arrays may be null.
        let loaded = unsafe { load_data(&raw mut library, PTX.as_ptr().cast(), none, nothing, 0, none, nothing, 0) };
        kernels.check(loaded)?;
        for operator in OwnOperator::ALL {
            for (data_type, _) in TYPES {
                let name = kernel_name(operator, data_type).ok_or("a type without kernels")?;
                let symbol = CString::new(name.as_str()).map_err(|error| error.to_string())?;
                let mut handle = ptr::null_mut();
                // SAFETY: the library was loaded above and is never unloaded; the name ends in 0.
                let found = unsafe { get_kernel(&raw mut handle, library, symbol.as_ptr()) };
                kernels.check(found)?;
                kernels.handles.insert(name, Handle(handle));
            }
        }
        Ok(kernels)
    }

    /// Whether a GPU, by its number among those that CUDA lets this process see, can run the kernels.
    pub(in crate::engine) fn suit(&self, index: u16) -> bool {
        let (mut device, mut major) = (0, 0);
        // SAFETY: the pointer is valid for a write while the call lasts; a number that does not exist is an error.
        if unsafe { (self.device_get)(&raw mut device, c_int::from(index)) } != 0 {
            return false;
        }
        // SAFETY: as above; the device is one that the driver gave.
        let code = unsafe { (self.device_get_attribute)(&raw mut major, CAPABILITY_MAJOR, device) };
        code == 0 && major >= LEAST_CAPABILITY
    }

    /// The kernel of an operator on tensors of a type.
    pub(super) fn get(&self, operator: OwnOperator, data_type: TensorElementType) -> Option<Handle> {
        self.handles.get(&kernel_name(operator, data_type)?).copied()
    }

    /// Starts a kernel on a stream; does not wait for it. It takes the pointers first, then the counts, the first of which are the
    /// packs of the result.
    ///
    /// # Safety
    /// The kernel takes that many pointers and counts. `stream` is a stream of the current context. The pointers are to memory
    /// of its GPU that is as large as the counts say, and that no other stream writes meanwhile.
    pub(super) unsafe fn launch(
        &self,
        Handle(kernel): Handle,
        pointers: &mut [*mut c_void],
        counts: &mut [c_uint],
        stream: *mut c_void,
    ) -> Result<(), String> {
        let packs = counts.first().copied().unwrap_or(0);
        if packs == 0 {
            return Ok(());
        }
        let mut parameters: Vec<*mut c_void> =
            pointers.iter_mut().map(|pointer| ptr::from_mut(pointer).cast()).collect();
        parameters.extend(counts.iter_mut().map(|count| ptr::from_mut(count).cast::<c_void>()));
        let blocks = packs.div_ceil(BLOCK_PACKS);
        // SAFETY: the caller vouches for the parameters and for the memory that they point to.
        let code = unsafe {
            (self.launch_kernel)(
                kernel,
                blocks,
                1,
                1,
                BLOCK_THREADS,
                1,
                1,
                0,
                stream,
                parameters.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        self.check(code)
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let mut text = ptr::null();
        // SAFETY: the pointer is valid for a write while the call lasts.
        if unsafe { (self.get_error_string)(code, &raw mut text) } != 0 || text.is_null() {
            return Err(format!("CUDA failure {code}"));
        }
        // SAFETY: a string of the driver's, which lives as long as the driver.
        let text = unsafe { CStr::from_ptr(text) };
        Err(format!("CUDA failure {code}: {}", text.to_string_lossy()))
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
    use super::*;

    #[test]
    fn every_operator_has_a_kernel_of_every_type() {
        for operator in OwnOperator::ALL {
            for (data_type, _) in TYPES {
                let name = kernel_name(operator, data_type).unwrap();
                assert!(PTX.contains(&format!(".visible .entry {name}(")), "{name}");
            }
        }
    }

    /// `make kernels` writes the source's digest into the PTX.
    #[test]
    fn the_ptx_is_of_this_source() {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(include_bytes!("kernels.cu"));
        assert!(PTX.starts_with(&format!("// kernels.cu {digest:x}\n")), "kernels.cu has changed; run `make kernels`");
    }
}
