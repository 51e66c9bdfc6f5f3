//! NVIDIA GPUs: the libraries that ONNX Runtime's CUDA build needs, and the memory that is free.

use std::ffi::c_int;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

use super::library;

/// The driver's library.
pub(super) const DRIVER: &str = "libcuda.so.1";

/// The CUDA runtime, which also tells how much memory is free.
const RUNTIME: &str = "libcudart.so.13";

/// What `libonnxruntime_providers_cuda.so` of ONNX Runtime 1.28 and newer is linked with besides the driver,
/// dependencies first. It needs no cuDNN. (`readelf --dynamic` on the wheel of 1.31.1)
const LIBRARIES: [&str; 4] = [RUNTIME, "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"];

/// Installs all of them in the active Python, together with ONNX Runtime. Its own extra, `cuda`, leaves out cuBLAS.
const INSTALL: &str = "`pip install onnxruntime-gpu nvidia-cuda-runtime==13.* nvidia-cublas==13.* nvidia-curand==10.*`";

/// Memory of a GPU, in bytes. What other processes and other models hold is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuMemory {
    /// Bytes that can be allocated.
    pub free_bytes: u64,
    /// Bytes that the GPU has.
    pub total_bytes: u64,
}

impl fmt::Display for GpuMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} of {:.1} GB are free", self.free_bytes as f64 / 1e9, self.total_bytes as f64 / 1e9)
    }
}

/// Loads the CUDA libraries: those of the system (`LD_LIBRARY_PATH`, `ldconfig`), or else those of pip's `nvidia`
/// packages beside the `onnxruntime` package that is used, or in the active Python if searching it is allowed. A
/// library that is loaded already is the one that ONNX Runtime gets. Returns the names of those that were not found;
/// looks only once.
pub(super) fn load_libraries() -> &'static [&'static str] {
    static MISSING: OnceLock<Vec<&str>> = OnceLock::new();
    MISSING.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            return Vec::new();
        }
        // Where ONNX Runtime is decides where to look. If it is not found, the caller's own attempt says so.
        let _ = library::environment();
        let absent: Vec<&str> = LIBRARIES.into_iter().filter(|name| !is_loaded(Path::new(name))).collect();
        if absent.is_empty() {
            return absent;
        }
        let folders: Vec<PathBuf> = library::python_packages().iter().flat_map(|site| cuda_folders(site)).collect();
        absent.into_iter().filter(|name| !folders.iter().any(|folder| is_loaded(&folder.join(name)))).collect()
    })
}

/// Loads a library for the life of the process. Returns whether that worked.
fn is_loaded(library: &Path) -> bool {
    ort::util::preload_dylib(library).is_ok()
}

/// The folders of CUDA libraries under a folder of Python packages: `nvidia/cu13/lib`, or one per package before CUDA
/// 13.
fn cuda_folders(site: &Path) -> Vec<PathBuf> {
    let Ok(packages) = std::fs::read_dir(site.join("nvidia")) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = packages.flatten().map(|package| package.path().join("lib")).collect();
    folders.sort();
    folders
}

/// Why the loaded ONNX Runtime cannot use any GPU.
pub(super) fn no_cuda_in(library: Option<&Path>) -> String {
    let library = library.map_or_else(String::new, |path| format!(" at {}", path.display()));
    format!(
        "the loaded ONNX Runtime{library} was built without CUDA; set ORT_DYLIB_PATH to one that has it, {INSTALL} instead of \
         onnxruntime, or use device cpu"
    )
}

/// Why a GPU cannot be used, and what to do about it; `None` if nothing is known to be wrong.
pub(super) fn problem(index: u16) -> Option<String> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    if !is_loaded(Path::new(DRIVER)) {
        return Some(format!(
            "there is no NVIDIA driver ({DRIVER}); install it, start the container with `--gpus all`, or use device cpu"
        ));
    }
    // Of the error codes, those that a user can do something about.
    // (`cudaError`, CUDA 13 runtime API)
    match memory(index).err()?? {
        35 => Some("the NVIDIA driver is too old for CUDA 13; update it, or use device cpu".to_owned()),
        100 => Some(
            "CUDA sees no GPU; `nvidia-smi` lists those of the machine, CUDA_VISIBLE_DEVICES hides some".to_owned(),
        ),
        101 => {
            Some("there is no GPU of this number; `nvidia-smi` lists them, CUDA_VISIBLE_DEVICES hides some".to_owned())
        }
        _ => None,
    }
}

/// Why ONNX Runtime failed to use a GPU, and what to do: `reason` is its own, unless the cause is known.
pub(super) fn remedy(index: u16, reason: &str) -> String {
    problem(index).unwrap_or_else(|| match load_libraries() {
        [] => {
            let reason: Vec<&str> = reason.split_whitespace().collect();
            format!("{}; `nvidia-smi` lists the GPUs, or use device cpu", reason.join(" ").trim_end_matches(';'))
        }
        missing => missing_libraries(missing),
    })
}

fn missing_libraries(missing: &[&str]) -> String {
    format!(
        "{} cannot be found or loaded; {INSTALL}, put CUDA 13's libraries on LD_LIBRARY_PATH, or use device cpu",
        missing.join(", ")
    )
}

/// The memory of a GPU, by its number among those that CUDA lets this process see.
///
/// # Errors
/// CUDA's error code, or `None` if CUDA could not be asked.
pub(super) fn memory(index: u16) -> Result<GpuMemory, Option<c_int>> {
    type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
    type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;

    load_libraries();
    // SAFETY: the CUDA runtime; its initializers have no preconditions, and ONNX Runtime loads the same library.
    let runtime = unsafe { Library::new(RUNTIME) }.map_err(|_| None)?;
    // SAFETY: the signature of the CUDA 13 runtime API: `cudaError_t cudaSetDevice(int)`.
    let set_device = unsafe { runtime.get::<SetDevice>(c"cudaSetDevice") }.map_err(|_| None)?;
    // SAFETY: likewise, `cudaError_t cudaMemGetInfo(size_t *, size_t *)`.
    let memory_info = unsafe { runtime.get::<MemGetInfo>(c"cudaMemGetInfo") }.map_err(|_| None)?;
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: selecting a device affects this thread only; ONNX Runtime selects its own before each use.
    let mut code = unsafe { set_device(c_int::from(index)) };
    if code == 0 {
        // SAFETY: both pointers are valid for writes while the call lasts.
        code = unsafe { memory_info(&raw mut free, &raw mut total) };
    }
    if code == 0 { Ok(GpuMemory { free_bytes: free as u64, total_bytes: total as u64 }) } else { Err(Some(code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_folders_of_pip_packages_are_found() {
        let site = tempfile::tempdir().unwrap();
        assert!(cuda_folders(site.path()).is_empty());
        for package in ["cu13", "cudnn"] {
            std::fs::create_dir_all(site.path().join("nvidia").join(package).join("lib")).unwrap();
        }
        let nvidia = site.path().join("nvidia");
        assert_eq!(cuda_folders(site.path()), [nvidia.join("cu13/lib"), nvidia.join("cudnn/lib")]);
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert_eq!(
            missing_libraries(&["libcublas.so.13", "libcurand.so.10"]),
            format!(
                "libcublas.so.13, libcurand.so.10 cannot be found or loaded; {INSTALL}, put CUDA 13's libraries on \
                 LD_LIBRARY_PATH, or use device cpu"
            )
        );
        let message = no_cuda_in(Some(Path::new("/x/libonnxruntime.so")));
        assert!(
            message.starts_with("the loaded ONNX Runtime at /x/libonnxruntime.so was built without CUDA; "),
            "{message}"
        );
    }
}
