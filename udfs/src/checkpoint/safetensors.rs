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

use super::files::ShardIndex;
use crate::error::{Error, Result};

/// Longest header accepted, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DType {
    F32,
    F16,
    BF16,
    /// For quantized weights only; checkpoints have none.
    I8,
}

impl DType {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 => 1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I8 => "I8",
        }
    }
}

/// Where a tensor is: a byte range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Resolved path, without symbolic links.
    pub(crate) file: Arc<PathBuf>,
    /// From the start of the file.
    pub(crate) offset_bytes: u64,
}

impl Tensor {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.elements() as u64 * self.dtype.bytes() as u64
    }

    /// Row `index` of a matrix, as a vector.
    pub(crate) fn row(&self, index: usize) -> Self {
        let row = self.row_matrix(index);
        Self { shape: vec![row.elements()], ..row }
    }

    /// Row `index` of a matrix, as a matrix of one row: its bytes are consecutive.
    pub(crate) fn row_matrix(&self, index: usize) -> Self {
        debug_assert!(self.shape.len() == 2 && index < self.shape[0], "row {index} of {:?}", self.shape);
        let columns = self.shape[1];
        Self {
            name: format!("{}[{index}]", self.name),
            shape: vec![1, columns],
            offset_bytes: self.offset_bytes + (index * columns * self.dtype.bytes()) as u64,
            ..self.clone()
        }
    }
}

/// All tensors of a checkpoint by name, whichever file holds them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tensors {
    by_name: BTreeMap<String, Tensor>,
    /// The file that errors name for a missing tensor: the index, or the only weights file.
    source: PathBuf,
}

impl Tensors {
    /// Reads the header of one weights file.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        Ok(Self { by_name: read_header(path)?, source: path.to_owned() })
    }

    /// Reads the headers of all shards that an index names. Their tensors must match the index.
    pub(crate) fn from_index(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        let index: ShardIndex = serde_json::from_slice(&text)
            .map_err(|e| Error::checkpoint(path, format!("not a safetensors index: {e}")))?;
        let folder = path.parent().unwrap_or(Path::new("."));

        let mut shards: BTreeMap<&str, BTreeMap<String, Tensor>> = BTreeMap::new();
        let mut by_name = BTreeMap::new();
        for (name, shard) in &index.weight_map {
            if Path::new(shard).components().count() != 1 {
                return Err(Error::checkpoint(
                    path,
                    format!("tensor {name}: shard '{shard}' is not a plain file name"),
                ));
            }
            if !shards.contains_key(shard.as_str()) {
                shards.insert(shard, read_header(&folder.join(shard))?);
            }
            let tensor = shards[shard.as_str()].get(name).ok_or_else(|| {
                Error::checkpoint(
                    folder.join(shard),
                    format!("tensor {name} is missing, though the index puts it here"),
                )
            })?;
            by_name.insert(name.clone(), tensor.clone());
        }
        Ok(Self { by_name, source: path.to_owned() })
    }

    /// The tensor of this name, which must have exactly this shape.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is missing or has another shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self
            .by_name
            .get(name)
            .ok_or_else(|| Error::checkpoint(&self.source, format!("tensor {name} is missing")))?;
        if tensor.shape != shape {
            return Err(Error::checkpoint(
                tensor.file.as_path(),
                format!("tensor {name} has shape {:?}, but config.json makes it {shape:?}", tensor.shape),
            ));
        }
        Ok(tensor)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_name.values()
    }
}

/// One entry of the header.
#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn read_header(path: &Path) -> Result<BTreeMap<String, Tensor>> {
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
fn parse_header(path: &Path, file: &Arc<PathBuf>, header: &[u8], file_bytes: u64) -> Result<BTreeMap<String, Tensor>> {
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)
        .map_err(|e| Error::checkpoint(path, format!("header is not valid JSON: {e}")))?;
    entries.remove("__metadata__");

    let data_start = 8 + header.len() as u64;
    let data_bytes = file_bytes - data_start;
    let mut tensors = BTreeMap::new();
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
            // Old exports have an integer `position_ids` buffer that no graph uses.
            other if name.ends_with("position_ids") || name.ends_with("inv_freq") => {
                tracing::debug!(tensor = name, dtype = other, "skipped a buffer that is not a weight");
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
        tensors.insert(
            name.clone(),
            Tensor { name, dtype, shape: entry.shape, file: Arc::clone(file), offset_bytes: data_start + start },
        );
    }

    ranges.sort();
    for pair in ranges.windows(2) {
        let ((_, end, first), (start, _, second)) = (&pair[0], &pair[1]);
        if start < end {
            return Err(Error::checkpoint(path, format!("tensor {second} overlaps tensor {first}")));
        }
    }
    Ok(tensors)
}
