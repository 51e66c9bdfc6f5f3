//! The headers of safetensors files: where each tensor's bytes are.
//!
//! Only headers are read here. The weights stay in their files, and ONNX Runtime memory-maps them ([`crate::graph`]
//! points its initializers there). The `safetensors` crate makes the same checks, but some of its errors do not name
//! the tensor.
//!
//! Format: <https://github.com/huggingface/safetensors#format>: a little-endian `u64` header length, a JSON header,
//! then the tensors' bytes without gaps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::ignored::TENSORS;
use super::tensor::{DType, Tensor};
use crate::error::{Error, Result};

/// Longest header accepted, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The values of `format` in a file's metadata whose tensors are laid out as PyTorch's.
const FORMATS: [&str; 3] = ["pt", "mlx", "np"];

/// What the header of a weights file says.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Resolved path, without symbolic links.
    pub(super) file: Arc<PathBuf>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Tensors of other types than weights have, which [`TENSORS`] lists.
    pub(super) skipped: Vec<String>,
}

/// One entry of the header.
#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Reads the header of a weights file.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Checkpoint`] if it is truncated or contradicts itself.
pub(super) fn read_header(path: &Path) -> Result<Header> {
    // The graph refers to weights by path, and ONNX Runtime refuses paths that leave their folder through a symbolic
    // link. A hub cache is made of such links, so resolve them once, here.
    let file_path = path.canonicalize().map_err(|source| Error::io(path, source))?;
    let mut file = File::open(&file_path).map_err(|source| Error::io(path, source))?;
    let file_bytes = file.metadata().map_err(|source| Error::io(path, source))?.len();

    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| {
        Error::checkpoint(path, format!("truncated: {file_bytes} bytes, too short for a safetensors header"))
    })?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES || header_bytes > file_bytes - 8 {
        return Err(Error::checkpoint(
            path,
            format!("not a safetensors file, or truncated: its header claims {header_bytes} of {file_bytes} bytes"),
        ));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(|source| Error::io(path, source))?;
    parse_header(path, &Arc::new(file_path), &header, file_bytes)
}

/// Checks the header against the file's length: every tensor inside it, sizes that match shapes and types, no overlap.
fn parse_header(path: &Path, file: &Arc<PathBuf>, header: &[u8], file_bytes: u64) -> Result<Header> {
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)
        .map_err(|e| Error::checkpoint(path, format!("header is not valid JSON: {e}")))?;
    let metadata = entries.remove("__metadata__").unwrap_or_default();
    // Other frameworks store some matrices the other way round. Files without metadata are PyTorch's too.
    if let Some(format) = metadata["format"].as_str().filter(|format| !FORMATS.contains(format)) {
        let message = format!("its format is {format}, expected one of {}; save it with PyTorch", FORMATS.join(", "));
        return Err(Error::checkpoint(path, message));
    }

    let data_start = 8 + header.len() as u64;
    let data_bytes = file_bytes - data_start;
    let mut result = Header { file: Arc::clone(file), ..Header::default() };
    let mut ranges = Vec::new();
    for (name, entry) in entries {
        let fail = |message: String| Error::checkpoint(path, format!("tensor {name}: {message}"));
        let entry: HeaderEntry =
            serde_json::from_value(entry).map_err(|e| fail(format!("header entry is wrong: {e}")))?;
        let (start, end) = entry.data_offsets;
        if start > end || end > data_bytes {
            return Err(fail(format!(
                "bytes {start}..{end} lie outside the {data_bytes} bytes of data; truncated file?"
            )));
        }
        ranges.push((start, end, name.clone()));

        let dtype = match entry.dtype.as_str() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            _ if TENSORS.reason_by_path(&name).is_some() => {
                result.skipped.push(name);
                continue;
            }
            other => {
                return Err(fail(format!("type {other} is not supported; convert the checkpoint to F32, F16 or BF16")));
            }
        };
        let bytes = entry
            .shape
            .iter()
            .try_fold(dtype.bytes() as u64, |bytes, &n| bytes.checked_mul(n as u64))
            .ok_or_else(|| fail(format!("shape {:?} overflows", entry.shape)))?;
        if bytes != end - start {
            return Err(fail(format!(
                "shape {:?} of {} takes {bytes} bytes, but the header gives it {}",
                entry.shape,
                dtype.name(),
                end - start
            )));
        }
        let tensor = Tensor {
            name: name.clone(),
            dtype,
            shape: entry.shape,
            file: Arc::clone(file),
            offset_bytes: data_start + start,
            update: None,
        };
        result.tensors.insert(name, tensor);
    }

    ranges.sort();
    for pair in ranges.windows(2) {
        let ((_, end, first), (start, _, second)) = (&pair[0], &pair[1]);
        if start < end {
            return Err(Error::checkpoint(path, format!("tensor {second} overlaps tensor {first}")));
        }
    }
    Ok(result)
}
