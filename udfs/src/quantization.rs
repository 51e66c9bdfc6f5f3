//! Weights in 8 bits, and the file that they are kept in.
//!
//! A matrix `[out, in]` becomes i8 `[in, out]`, the layout that ONNX Runtime's `DynamicQuantizeMatMul` takes, and a scale
//! per output channel: `weight ≈ value * scale`, the largest magnitude of the channel being the largest integer. That
//! is the symmetric per-channel scheme of ONNX Runtime's own tools (`onnxruntime.quantization`, `per_channel=True`).
//!
//! It is done once per checkpoint: the file lies in the cache folder ([`WeightsCache`]), appears when it is complete, and
//! is read like a weights file. It may be deleted at any time.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use half::{bf16, f16};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::checkpoint::{DType, Tensor};
use crate::error::{Error, Result};
use crate::graph::QuantizedNames;
use crate::options::Precision;
use crate::weights_cache::{Origin, WeightsCache, hold};

/// Version of the file's layout and of how its numbers are computed.
const FORMAT: u32 = 1;

/// Alignment of each part in the file, so that it can be mapped.
const ALIGNMENT_BYTES: u64 = 64;

/// The parts of all `matrices`, quantized now if the cache does not have them yet. `origin` says which checkpoint they
/// are of, `cache` where they are kept, if not in the default folder. The file that comes with them is to be kept open
/// until they are loaded, lest somebody removes them before.
///
/// # Errors
/// [`Error::Io`] if the checkpoint cannot be read or the cache not be written.
pub(crate) fn quantize(matrices: &[Tensor], origin: &Origin<'_>, cache: Option<&Path>) -> Result<(Vec<Tensor>, File)> {
    let levels = levels();
    let cache = WeightsCache::open(cache)?;
    let file = cache.file(origin.fingerprint, &key(matrices, levels), Precision::Int8);
    let (parts, size_bytes) = layout(matrices, &Arc::new(file.clone()));
    let held = if let Some(held) = hold(&file, size_bytes) {
        held
    } else {
        write(matrices, levels, &cache, &file, origin)?;
        hold(&file, size_bytes).ok_or_else(|| Error::io(&file, std::io::ErrorKind::NotFound.into()))?
    };
    // ONNX Runtime refuses paths that leave their folder through a symbolic link.
    let resolved = Arc::new(file.canonicalize().map_err(|source| Error::io(&file, source))?);
    Ok((parts.into_iter().map(|part| Tensor { file: Arc::clone(&resolved), ..part }).collect(), held))
}

/// The largest integer. Processors without the dot product instructions of VNNI add pairs of products in 16 bits, which
/// overflow unless weights have a bit less.
/// (`reduce_range` in <https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html>)
fn levels() -> f32 {
    #[cfg(target_arch = "x86_64")]
    if !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni") {
        return 63.0;
    }
    127.0
}

/// What distinguishes files of one checkpoint: which matrices, and how they are quantized.
fn key(matrices: &[Tensor], levels: f32) -> String {
    let mut hash = Sha256::new();
    hash.update(FORMAT.to_le_bytes());
    hash.update(levels.to_le_bytes());
    for matrix in matrices {
        hash.update(format!("{} {:?} {}\n", matrix.name, matrix.shape, matrix.dtype.name()));
    }
    let mut digits = [0; 4];
    digits.copy_from_slice(&hash.finalize()[..4]);
    format!("{:08x}", u32::from_be_bytes(digits))
}

/// The parts in the order in which they lie in the file, and its size: per matrix the scales, then the values.
fn layout(matrices: &[Tensor], file: &Arc<PathBuf>) -> (Vec<Tensor>, u64) {
    let mut parts = Vec::new();
    let mut end = 0_u64;
    for matrix in matrices {
        let names = QuantizedNames::of(matrix);
        let [out, width] = shape(matrix);
        for (name, dtype, shape) in [(names.scales, DType::F32, vec![out]), (names.values, DType::I8, vec![width, out])]
        {
            let offset_bytes = end.next_multiple_of(ALIGNMENT_BYTES);
            let part = Tensor { name, dtype, shape, file: Arc::clone(file), offset_bytes };
            end = offset_bytes + part.bytes();
            parts.push(part);
        }
    }
    (parts, end)
}

/// Output and input width.
fn shape(matrix: &Tensor) -> [usize; 2] {
    debug_assert!(matrix.shape.len() == 2, "{:?}", matrix.shape);
    [matrix.shape[0], matrix.elements() / matrix.shape[0].max(1)]
}

/// Writes the file beside its place and renames it: two processes may do so at once.
fn write(matrices: &[Tensor], levels: f32, cache: &WeightsCache, file: &Path, origin: &Origin<'_>) -> Result<()> {
    let fail = |source| Error::io(file, source);
    tracing::info!(matrices = matrices.len(), file = %file.display(), "quantizing weights, once");
    let start = Instant::now();
    let mut writer = BufWriter::new(cache.begin()?);
    let mut position = 0_u64;
    for matrix in matrices {
        let Quantized { scales, values } = Quantized::of(&read(matrix)?, shape(matrix), levels);
        let scales: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let values: Vec<u8> = values.iter().map(|value| value.to_le_bytes()[0]).collect();
        for bytes in [scales, values] {
            let gap = position.next_multiple_of(ALIGNMENT_BYTES) - position;
            std::io::copy(&mut std::io::repeat(0).take(gap), &mut writer).map_err(fail)?;
            writer.write_all(&bytes).map_err(fail)?;
            position += gap + bytes.len() as u64;
        }
    }
    let unfinished = writer.into_inner().map_err(|error| fail(error.into_error()))?;
    cache.finish(unfinished, file, origin)?;
    tracing::info!(seconds = start.elapsed().as_secs_f64(), bytes = position, "weights are quantized");
    Ok(())
}

/// A matrix as f32.
fn read(matrix: &Tensor) -> Result<Vec<f32>> {
    let fail = |source| Error::io(matrix.file.as_path(), source);
    let mut file = File::open(matrix.file.as_path()).map_err(fail)?;
    file.seek(SeekFrom::Start(matrix.offset_bytes)).map_err(fail)?;
    let mut bytes = vec![0; matrix.bytes() as usize];
    file.read_exact(&mut bytes).map_err(fail)?;
    Ok(match matrix.dtype {
        DType::F32 => bytes.as_chunks().0.par_iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        DType::F16 => bytes.as_chunks().0.par_iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        DType::BF16 => bytes.as_chunks().0.par_iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        DType::I8 => bytes.par_iter().map(|byte| f32::from(byte.cast_signed())).collect(),
    })
}

/// A matrix in 8 bits.
#[derive(Debug, PartialEq)]
struct Quantized {
    /// Per output channel.
    scales: Vec<f32>,
    /// `[in, out]`
    values: Vec<i8>,
}

impl Quantized {
    /// Quantizes `weights`, `[out, in]`, to integers between `-levels` and `levels`.
    fn of(weights: &[f32], [out, width]: [usize; 2], levels: f32) -> Self {
        let scales: Vec<f32> = weights
            .par_chunks(width.max(1))
            .map(|channel| {
                let largest = channel.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
                if largest > 0.0 { largest / levels } else { 1.0 }
            })
            .collect();
        let mut values = vec![0; weights.len()];
        values.par_chunks_mut(out.max(1)).enumerate().for_each(|(column, values)| {
            for (channel, (value, scale)) in values.iter_mut().zip(&scales).enumerate() {
                *value = (weights[channel * width + column] / scale).round().clamp(-levels, levels) as i8;
            }
        });
        Self { scales, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_scaled_to_their_largest_and_transposed() {
        let weights = [1.0, -4.0, 0.5, /* the second channel */ 0.0, 0.0, 0.0, /* the third */ 0.2, 0.1, 0.3];
        let Quantized { scales, values } = Quantized::of(&weights, [3, 3], 127.0);
        assert_eq!(scales, [4.0 / 127.0, 1.0, 0.3 / 127.0]);
        assert_eq!(values, [32, 0, 85, -127, 0, 42, 16, 0, 127]);
    }

    #[test]
    fn values_are_within_half_a_step() {
        let weights: Vec<f32> = (0..600).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        for levels in [63.0, 127.0] {
            let Quantized { scales, values } = Quantized::of(&weights, [20, 30], levels);
            for (index, weight) in weights.iter().enumerate() {
                let (channel, column) = (index / 30, index % 30);
                let back = f32::from(values[column * 20 + channel]) * scales[channel];
                assert!((back - weight).abs() <= scales[channel] * 0.5001, "{weight} became {back}");
            }
        }
    }

    #[test]
    fn parts_do_not_overlap() {
        let file = Arc::new(PathBuf::from("/checkpoint"));
        let matrix = |name: &str, shape: [usize; 2]| Tensor {
            name: name.to_owned(),
            dtype: DType::F16,
            shape: shape.to_vec(),
            file: Arc::clone(&file),
            offset_bytes: 8,
        };
        let (parts, size_bytes) = layout(&[matrix("a", [3, 5]), matrix("b", [2, 7])], &file);
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["a/scale", "a/int8", "b/scale", "b/int8"]);
        assert_eq!(parts.iter().map(|part| part.offset_bytes).collect::<Vec<_>>(), [0, 64, 128, 192]);
        assert_eq!(size_bytes, 192 + 14);
        assert_eq!(parts[1].shape, [5, 3]);
    }
}
