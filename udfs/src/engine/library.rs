//! Finds and loads ONNX Runtime, which is not linked but opened at run time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;
use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::error::{Error, Result};

/// Environment variable with the library's path. Takes precedence over everything else.
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The folder in a working tree where `make` puts the library.
const LOCAL_FOLDER: &str = ".onnxruntime";

/// The oldest version with everything that the graphs use.
const OLDEST_VERSION: &str = "1.28";

/// Whether the working tree and Python are searched too. True in the crate's own tests, which run in its working tree.
static SEARCH_ALLOWED: AtomicBool = AtomicBool::new(cfg!(test));

/// ONNX Runtime allows one environment per process, ever.
static ENVIRONMENT: OnceCell<Environment> = OnceCell::new();

/// Where the library was loaded from; not set if the host passed its own environment.
static LOADED_FROM: OnceCell<PathBuf> = OnceCell::new();

/// Makes this crate use an ONNX Runtime environment that the host process already has.
///
/// ONNX Runtime allows one environment per process. A host that uses ONNX Runtime for something else must pass its own
/// before the first model is loaded. Otherwise one is created then and kept for the life of the process. The
/// environment must come from the `ort` that this crate uses: [`datafusion_rerank::ort`](crate::ort).
///
/// # Errors
/// [`Error::Library`] if an environment is already in use.
pub fn set_environment(environment: Environment) -> Result<()> {
    ENVIRONMENT.set(environment).map_err(|_| Error::Library {
        message: "an ONNX Runtime environment is in use already; set it first".to_owned(),
    })
}

/// Lets [`environment()`] search for ONNX Runtime in two more places, in this order, after the executable's folder:
/// `.onnxruntime/` in the working directory and the folders above it, and the `onnxruntime` package of the `python3` on
/// the `PATH`, which it runs to find out.
///
/// For programs that are started from a shell, such as `rerank` itself. A library should neither load code from the
/// working directory nor run programs unless its host says so. Call this before the first model is loaded.
pub fn allow_onnxruntime_search() {
    SEARCH_ALLOWED.store(true, Ordering::Relaxed);
}

/// The process's ONNX Runtime environment: the host's own, or one created by finding and loading the library.
///
/// The library is the first of: the path in `ORT_DYLIB_PATH`; one beside the executable; after a call of
/// [`allow_onnxruntime_search`], one in the places listed there; one in the system's library folders or on
/// `LD_LIBRARY_PATH`. A host that runs other models in the same process must share this environment, since there cannot
/// be a second one. Its type is from [`datafusion_rerank::ort`](crate::ort).
///
/// # Errors
/// [`Error::Library`] if ONNX Runtime is not found or too old, with the places searched and how to get it.
pub fn environment() -> Result<&'static Environment> {
    ENVIRONMENT.get_or_try_init(load)
}

fn load() -> Result<Environment> {
    let search_allowed = SEARCH_ALLOWED.load(Ordering::Relaxed);
    let library = find(search_allowed).ok_or_else(|| Error::Library { message: not_found(search_allowed) })?;
    let fail = |reason: String| Error::Library {
        message: format!(
            "ONNX Runtime at {} cannot be used: {reason}; {}",
            library.display(),
            how_to_get_it(search_allowed)
        ),
    };
    let environment = ort::init_from(&library)
        .map_err(|e| fail(e.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|e| fail(e.to_string()))?;
    environment.set_log_level(LogLevel::Error);
    let _ = LOADED_FROM.set(library.clone());
    tracing::info!(library = %library.display(), build = ort::info(), "loaded ONNX Runtime");
    Ok(environment)
}

fn not_found(search_allowed: bool) -> String {
    let searched = if search_allowed { format!(", in {LOCAL_FOLDER}, in the active Python,") } else { String::new() };
    let remedy = how_to_get_it(search_allowed);
    format!("ONNX Runtime was not found beside the executable{searched} or on the system; {remedy}")
}

fn how_to_get_it(search_allowed: bool) -> String {
    let set = format!("set {PATH_VARIABLE} to libonnxruntime.so");
    if search_allowed {
        let package = "`pip install onnxruntime` (`onnxruntime-gpu` for CUDA)";
        return format!("{set}, or {package}, version {OLDEST_VERSION} or newer");
    }
    format!(
        "{set}, version {OLDEST_VERSION} or newer, or call allow_onnxruntime_search() to look into {LOCAL_FOLDER} and Python too"
    )
}

/// The path of the library, if it is found.
fn find(search_allowed: bool) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let beside_executable = || std::env::current_exe().ok().and_then(|exe| library_in(exe.parent()?));
    let elsewhere = || if search_allowed { in_working_tree().or_else(in_active_python) } else { None };
    beside_executable().or_else(elsewhere).or_else(on_system)
}

fn in_working_tree() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().find_map(|folder| library_in(&folder.join(LOCAL_FOLDER)))
}

/// The newest ONNX Runtime library in a folder.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((library_version(path.file_name()?.to_str()?)?, path))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// The version in a library's file name, empty if there is none; `None` for any other file.
fn library_version(file_name: &str) -> Option<Vec<u32>> {
    let version = match std::env::consts::OS {
        "windows" => return (file_name == "onnxruntime.dll").then(Vec::new),
        "macos" => file_name.strip_prefix("libonnxruntime")?.strip_suffix(".dylib")?,
        _ => file_name.strip_prefix("libonnxruntime.so")?,
    };
    version.split('.').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

/// Folders of Python packages: the one that holds the loaded `onnxruntime/capi/libonnxruntime.so`, if it is in one; after a
/// call of [`allow_onnxruntime_search`], also that of the active Python's `nvidia` packages.
pub(super) fn python_packages() -> Vec<PathBuf> {
    let package =
        LOADED_FROM.get().and_then(|library| library.parent()).filter(|folder| folder.ends_with("onnxruntime/capi"));
    let beside = package.and_then(|capi| capi.parent()?.parent().map(Path::to_owned));
    let active = || if SEARCH_ALLOWED.load(Ordering::Relaxed) { python_package("nvidia") } else { None };
    let active = active().and_then(|nvidia| nvidia.parent().map(Path::to_owned));
    beside.into_iter().chain(active).collect()
}

/// The library in the `onnxruntime` package of the Python on the `PATH`; `onnxruntime-gpu` installs it there too.
fn in_active_python() -> Option<PathBuf> {
    library_in(&python_package("onnxruntime")?.join("capi"))
}

/// The folder of a package of the Python on the `PATH`.
fn python_package(name: &str) -> Option<PathBuf> {
    const FIND: &str = "import sys, importlib.util as u; s = u.find_spec(sys.argv[1]); print(list(s.submodule_search_locations)[0] if s else '')";
    let output = Command::new("python3").args(["-c", FIND, name]).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(folder.trim()).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn on_system() -> Option<PathBuf> {
    let folders = [
        "/usr/local/lib",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/opt/homebrew/lib",
    ];
    let search_path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&search_path)
        .filter(|folder| !folder.as_os_str().is_empty())
        .chain(folders.map(PathBuf::from))
        .find_map(|folder| library_in(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_newest_library_of_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(library_in(folder.path()), None);
        for name in
            ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so", "x.so"]
        {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(library_in(folder.path()), Some(folder.path().join("libonnxruntime.so.1.32.0")));
    }

    #[test]
    fn what_was_not_found_says_where_and_what_to_do() {
        assert_eq!(
            not_found(false),
            "ONNX Runtime was not found beside the executable or on the system; set ORT_DYLIB_PATH to libonnxruntime.so, \
             version 1.28 or newer, or call allow_onnxruntime_search() to look into .onnxruntime and Python too"
        );
        assert_eq!(
            not_found(true),
            "ONNX Runtime was not found beside the executable, in .onnxruntime, in the active Python, or on the system; \
             set ORT_DYLIB_PATH to libonnxruntime.so, or `pip install onnxruntime` (`onnxruntime-gpu` for CUDA), version \
             1.28 or newer"
        );
    }
}
