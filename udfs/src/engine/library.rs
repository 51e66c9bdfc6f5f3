//! Finds and loads ONNX Runtime, which is not linked but opened at run time.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// How long Python may take to say where a package is.
const PYTHON_PATIENCE: Duration = Duration::from_secs(10);

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
    let _ = LOADED_FROM.set(std::fs::canonicalize(&library).unwrap_or_else(|_| library.clone()));
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

/// Folders of Python packages: the one that holds the loaded `onnxruntime/capi/libonnxruntime.so`, if it is in one;
/// after a call of [`allow_onnxruntime_search`], also those of the active Python's `nvidia` packages.
pub(super) fn python_packages() -> Vec<PathBuf> {
    let package = loaded_from().and_then(Path::parent).filter(|folder| folder.ends_with("onnxruntime/capi"));
    let beside = package.and_then(|capi| capi.parent()?.parent());
    let active = if SEARCH_ALLOWED.load(Ordering::Relaxed) { python_package("nvidia") } else { Vec::new() };
    let active = active.iter().filter_map(|nvidia| nvidia.parent());
    beside.into_iter().chain(active).map(Path::to_owned).collect()
}

/// Where the library was loaded from, links resolved; `None` before that, or if the host passed its own environment.
pub(super) fn loaded_from() -> Option<&'static Path> {
    LOADED_FROM.get().map(PathBuf::as_path)
}

/// The library in the `onnxruntime` package of the Python on the `PATH`; `onnxruntime-gpu` installs it there too.
fn in_active_python() -> Option<PathBuf> {
    python_package("onnxruntime").iter().find_map(|package| library_in(&package.join("capi")))
}

/// The folders of a package of the Python on the `PATH`: several for a namespace that packages share. Python itself
/// would look into the working directory first.
fn python_package(name: &str) -> Vec<PathBuf> {
    const FIND: &str = "
import sys, importlib.util
sys.path = [folder for folder in sys.path if folder]
found = importlib.util.find_spec(sys.argv[1])
print(*(found.submodule_search_locations if found else []), sep='\\n')";
    let mut python = Command::new("python3");
    python.args(["-c", FIND, name]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = output_within(&mut python, PYTHON_PATIENCE).unwrap_or_default();
    output.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}

/// What a command prints, if it succeeds in time. It must not print more than a pipe holds.
fn output_within(command: &mut Command, patience: Duration) -> Option<String> {
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(None) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let mut output = String::new();
    child.stdout?.read_to_string(&mut output).ok()?;
    Some(output)
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
    #[cfg(unix)]
    fn a_program_that_hangs_or_fails_says_nothing() {
        let shell = |script: &str, patience| {
            let mut command = Command::new("sh");
            output_within(command.args(["-c", script]).stdout(Stdio::piped()), Duration::from_millis(patience))
        };
        assert_eq!(shell("echo here", 10_000), Some("here\n".to_owned()));
        assert_eq!(shell("echo here; exit 1", 10_000), None);
        assert_eq!(shell("exec sleep 60", 50), None);
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
