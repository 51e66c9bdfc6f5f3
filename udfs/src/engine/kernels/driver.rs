//! What the kernels need of NVIDIA's driver: its functions by name, since it is found only at run time.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;

use crate::engine::cuda;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`
const CAPABILITY_MAJOR: c_int = 75;

/// `CU_FUNC_ATTRIBUTE_NUM_REGS`
const REGISTERS: c_int = 4;

/// Threads of a block: few enough for several blocks on a multiprocessor, enough to fill it.
const BLOCK_THREADS: c_uint = 256;

/// Packs of 16 bytes that a thread works on, as kernels.cu has it.
pub(super) const THREAD_PACKS: c_uint = 2;

/// The functions, with the types that the documentation gives them; each returns a `CUresult`.
/// (CUDA driver API 13.0: initialization, device, library and execution management)
type Init = unsafe extern "C" fn(c_uint) -> c_int;
type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type DeviceGetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
type KernelGetAttribute = unsafe extern "C" fn(*mut c_int, c_int, *mut c_void, c_int) -> c_int;
type LibraryGetKernel = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int;
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

/// A loaded library of kernels, or one of its kernels: a `CUlibrary` or a `CUkernel`. Neither is ever unloaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(*mut c_void);

// SAFETY: neither is bound to a thread or a context, and the driver's functions are thread-safe.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The driver.
pub(super) struct Driver {
    device_get: DeviceGet,
    device_get_attribute: DeviceGetAttribute,
    get_error_string: GetErrorString,
    kernel_get_attribute: KernelGetAttribute,
    library_get_kernel: LibraryGetKernel,
    library_load_data: LibraryLoadData,
    launch_kernel: LaunchKernel,
}

impl Driver {
    /// The driver, loaded and initialized on first use, or why it cannot be.
    pub(super) fn get() -> Result<&'static Self, String> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        DRIVER.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, String> {
        // SAFETY: NVIDIA's driver; its initializers have no preconditions.
        let library = unsafe { Library::new(cuda::DRIVER) }.map_err(|error| error.to_string())?;
        // The functions are used as long as the process lives.
        let library: &'static Library = Box::leak(Box::new(library));
        let missing = |name: &CStr| format!("{} has no {}", cuda::DRIVER, name.to_string_lossy());
        macro_rules! function {
            ($name:literal, $signature:ty) => {
                // SAFETY: the signature is the documented one; see the types.
                *unsafe { library.get::<$signature>($name) }.map_err(|_| missing($name))?
            };
        }
        let init = function!(c"cuInit", Init);
        let driver = Self {
            device_get: function!(c"cuDeviceGet", DeviceGet),
            device_get_attribute: function!(c"cuDeviceGetAttribute", DeviceGetAttribute),
            get_error_string: function!(c"cuGetErrorString", GetErrorString),
            kernel_get_attribute: function!(c"cuKernelGetAttribute", KernelGetAttribute),
            library_get_kernel: function!(c"cuLibraryGetKernel", LibraryGetKernel),
            library_load_data: function!(c"cuLibraryLoadData", LibraryLoadData),
            launch_kernel: function!(c"cuLaunchKernel", LaunchKernel),
        };
        // SAFETY: no preconditions; 0 is the only value that is allowed.
        let code = unsafe { init(0) };
        driver.check(code)?;
        Ok(driver)
    }

    /// The major compute capability of a GPU, by its number among those that CUDA lets this process see.
    pub(super) fn capability(&self, index: u16) -> Result<c_int, String> {
        let (device, mut major) = (self.device(index)?, 0);
        // SAFETY: the pointer is valid for a write while the call lasts; the device is one that the driver gave.
        let code = unsafe { (self.device_get_attribute)(&raw mut major, CAPABILITY_MAJOR, device) };
        self.check(code).map(|()| major)
    }

    /// Loads PTX.
    pub(super) fn load_library(&self, ptx: &CStr) -> Result<Handle, String> {
        let mut library = ptr::null_mut();
        let (none, nothing) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the code is a string that ends in 0; there are no options, so their arrays may be null.
        let code = unsafe {
            (self.library_load_data)(&raw mut library, ptx.as_ptr().cast(), none, nothing, 0, none, nothing, 0)
        };
        self.check(code).map(|()| Handle(library))
    }

    /// A kernel of a library.
    pub(super) fn kernel(&self, Handle(library): Handle, name: &CStr) -> Result<Handle, String> {
        let mut kernel = ptr::null_mut();
        // SAFETY: the library was loaded and is never unloaded; the name ends in 0.
        let code = unsafe { (self.library_get_kernel)(&raw mut kernel, library, name.as_ptr()) };
        self.check(code).map(|()| Handle(kernel)).map_err(|error| format!("{}: {error}", name.to_string_lossy()))
    }

    /// Compiles a kernel for a GPU, which the driver otherwise puts off until the first launch.
    pub(super) fn compile(&self, Handle(kernel): Handle, index: u16) -> Result<(), String> {
        let (device, mut registers) = (self.device(index)?, 0);
        // SAFETY: the pointer is valid for a write while the call lasts; kernel and device are ones that the driver
        // gave.
        let code = unsafe { (self.kernel_get_attribute)(&raw mut registers, REGISTERS, kernel, device) };
        self.check(code)
    }

    /// Starts a kernel on a stream; does not wait for it. It takes the pointers first, then the counts, the first of
    /// which are the packs of the result.
    ///
    /// # Safety
    /// The kernel takes that many pointers and counts. `stream` is a stream, and the pointers are to memory of its GPU
    /// that is as large as the counts say, and that no other stream writes meanwhile.
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
        let blocks = packs.div_ceil(THREAD_PACKS * BLOCK_THREADS);
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

    /// A `CUdevice`.
    fn device(&self, index: u16) -> Result<c_int, String> {
        let mut device = 0;
        // SAFETY: the pointer is valid for a write while the call lasts; a number that does not exist is an error.
        let code = unsafe { (self.device_get)(&raw mut device, c_int::from(index)) };
        self.check(code).map(|()| device)
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
