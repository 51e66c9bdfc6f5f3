//! Finds and loads ONNX Runtime, which is opened at run time, not linked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::error::{Error, Result};

/// Names the library by path; wins over everything else.
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Folder of a working tree that `make` puts the library into.
const LOCAL_FOLDER: &str = ".onnxruntime";

const HOW_TO_GET_IT: &str = "set ORT_DYLIB_PATH to libonnxruntime.so, or `pip install onnxruntime` \
     (`onnxruntime-gpu` for CUDA), version 1.28 or newer";

/// ONNX Runtime allows one environment per process, ever.
static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();

/// Makes the library use an ONNX Runtime environment that the host process already has.
///
/// ONNX Runtime allows one environment per process. A host that uses it for something else must hand over its own
/// before the first model is scored; otherwise one is created then and kept for the life of the process. The environment
/// must come from the `ort` that this crate uses: [`datafusion_rerank::ort`](crate::ort).
///
/// # Errors
/// [`Error::Library`] if an environment is in use already.
pub fn set_environment(environment: Environment) -> Result<()> {
    ENVIRONMENT.set(environment).map_err(|_| Error::Library {
        message: "an ONNX Runtime environment is in use already; set it first".to_owned(),
    })
}

/// The process's ONNX Runtime environment: the host's own, or one made by finding and loading the library.
///
/// A host that runs other models in the same process shares this one, since there can be no second. Its type is from
/// [`datafusion_rerank::ort`](crate::ort).
///
/// # Errors
/// [`Error::Library`] if ONNX Runtime is not found or too old, with where it was looked for and how to get it.
pub fn environment() -> Result<&'static Environment> {
    static LOADING: Mutex<()> = Mutex::new(());

    // A failed attempt leaves nothing behind, so that a later call can succeed.
    let _guard = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let library = find().ok_or_else(|| Error::Library {
        message: format!(
            "ONNX Runtime was not found beside the executable, in {LOCAL_FOLDER}, in the active Python, or on the system; {HOW_TO_GET_IT}"
        ),
    })?;
    let fail = |reason: String| Error::Library {
        message: format!("ONNX Runtime at {} cannot be used: {reason}; {HOW_TO_GET_IT}", library.display()),
    };
    let environment = ort::init_from(&library)
        .map_err(|e| fail(e.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|e| fail(e.to_string()))?;
    environment.set_log_level(LogLevel::Error);
    tracing::info!(library = %library.display(), build = ort::info(), "loaded ONNX Runtime");
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

/// The library's path, or its bare name if the system's loader knows it.
fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let beside_executable = || std::env::current_exe().ok().and_then(|exe| library_in(exe.parent()?));
    let in_working_tree = || {
        let here = std::env::current_dir().ok()?;
        here.ancestors().find_map(|folder| library_in(&folder.join(LOCAL_FOLDER)))
    };
    beside_executable().or_else(in_working_tree).or_else(in_active_python).or_else(on_system)
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

/// The version in a library's file name, empty if there is none; `None` if it is another file.
fn library_version(file_name: &str) -> Option<Vec<u32>> {
    let version = match std::env::consts::OS {
        "windows" => return (file_name == "onnxruntime.dll").then(Vec::new),
        "macos" => file_name.strip_prefix("libonnxruntime")?.strip_suffix(".dylib")?,
        _ => file_name.strip_prefix("libonnxruntime.so")?,
    };
    version.split('.').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

/// Where the `onnxruntime` package of the Python on the path keeps its library; `onnxruntime-gpu` installs it there too.
fn in_active_python() -> Option<PathBuf> {
    const FIND_PACKAGE: &str = "import importlib.util as u; s = u.find_spec('onnxruntime'); print(s.submodule_search_locations[0] if s else '')";
    let output = Command::new("python3").args(["-c", FIND_PACKAGE]).output().ok()?;
    let package = String::from_utf8(output.stdout).ok()?;
    library_in(&Path::new(package.trim()).join("capi"))
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
}
