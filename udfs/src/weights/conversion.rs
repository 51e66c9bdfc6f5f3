//! Converts weights to a form other than the checkpoint's, once per checkpoint, adapter and precision: to another
//! precision, and merged with an adapter's updates.
//!
//! The result is a file in the cache folder ([`WeightsCache`]). It appears once it is complete, is read like a weights
//! file of the checkpoint, and may be deleted at any time.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use half::{bf16, f16};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{Origin, WeightsCache, hold};
use super::quantization::{Quantized, levels};
use crate::checkpoint::{DType, Tensor, all_f32, read_f32};
use crate::error::{Error, Result};
use crate::graph::{QuantizedNames, converted_name};
use crate::options::Precision;

/// Version of the file's layout and of how its numbers are computed.
const FORMAT: u32 = 1;

/// Alignment of each part in the file, so that it can be mapped.
const ALIGNMENT_BYTES: u64 = 64;

/// Called with the bytes of the checkpoint's matrices converted so far, and their total.
pub(crate) type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

/// Returns the parts of all `matrices`, each in its own precision, for a graph in `precision`; converts them first if
/// the cache does not have them. `origin` is their checkpoint, `cache` the folder that keeps them (`None` for the
/// default). Keep the returned file open until the weights are loaded: nobody removes them meanwhile.
///
/// # Errors
/// [`Error::Io`] if the checkpoint cannot be read or the cache cannot be written, [`Error::Checkpoint`] if a weight is
/// out of the precision's range.
pub(crate) fn convert(
    matrices: &[(Tensor, Precision)],
    precision: Precision,
    origin: &Origin<'_>,
    cache: Option<&Path>,
    on_progress: OnProgress<'_>,
) -> Result<(Vec<Tensor>, File)> {
    let cache = WeightsCache::open(cache)?;
    let file = cache.file(origin, &key(matrices, precision), precision);
    let (parts, size_bytes) = layout(matrices, &Arc::new(file.clone()));
    let held = if let Some(held) = hold(&file, size_bytes) {
        held
    } else {
        write(matrices, &cache, &file, origin, on_progress)?;
        hold(&file, size_bytes).ok_or_else(|| Error::io(&file, std::io::ErrorKind::NotFound.into()))?
    };
    // ONNX Runtime refuses paths that leave their folder through a symbolic link.
    let resolved = Arc::new(file.canonicalize().map_err(|source| Error::io(&file, source))?);
    Ok((parts.into_iter().map(|part| Tensor { file: Arc::clone(&resolved), ..part }).collect(), held))
}

/// Distinguishes the files of one checkpoint, adapter and precision: which matrices, and how they are converted.
fn key(matrices: &[(Tensor, Precision)], precision: Precision) -> String {
    let mut hash = Sha256::new();
    hash.update(FORMAT.to_le_bytes());
    if precision == Precision::Int8 {
        hash.update(levels().to_le_bytes());
    }
    for (matrix, own) in matrices {
        let own = if *own == precision { String::new() } else { format!(" {own}") };
        hash.update(format!("{} {:?} {}{own}\n", matrix.name, matrix.shape, matrix.dtype.name()));
    }
    let mut digits = [0; 4];
    digits.copy_from_slice(&hash.finalize()[..4]);
    format!("{:08x}", u32::from_be_bytes(digits))
}

/// The parts in file order, and the file's size. A matrix in 8 bits has two: the scales, then the values.
fn layout(matrices: &[(Tensor, Precision)], file: &Arc<PathBuf>) -> (Vec<Tensor>, u64) {
    let mut parts = Vec::new();
    let mut end = 0_u64;
    for (matrix, precision) in matrices {
        let of_matrix = if *precision == Precision::Int8 {
            let names = QuantizedNames::of(matrix);
            let [out, width] = shape(matrix);
            vec![(names.scales, DType::F32, vec![out]), (names.values, DType::I8, vec![width, out])]
        } else {
            vec![(converted_name(matrix, *precision), precision.activations(), matrix.shape.clone())]
        };
        for (name, dtype, shape) in of_matrix {
            let offset_bytes = end.next_multiple_of(ALIGNMENT_BYTES);
            let part = Tensor { name, dtype, shape, file: Arc::clone(file), offset_bytes, update: None };
            end = offset_bytes + part.bytes();
            parts.push(part);
        }
    }
    (parts, end)
}

/// Output width and input width of a matrix.
fn shape(matrix: &Tensor) -> [usize; 2] {
    debug_assert!(matrix.shape.len() == 2, "{:?}", matrix.shape);
    [matrix.shape[0], matrix.elements() / matrix.shape[0].max(1)]
}

/// Writes a temporary file and renames it, so two processes may do so at once.
fn write(
    matrices: &[(Tensor, Precision)],
    cache: &WeightsCache,
    file: &Path,
    origin: &Origin<'_>,
    on_progress: OnProgress<'_>,
) -> Result<()> {
    let fail = |source| Error::io(file, source);
    tracing::info!(matrices = matrices.len(), file = %file.display(), "converting weights, once");
    let start = Instant::now();
    let mut out = PartWriter { writer: BufWriter::new(cache.begin()?), file, position: 0 };
    let total = matrices.iter().map(|(matrix, _)| matrix.bytes()).sum();
    let mut done = 0;
    for (matrix, precision) in matrices {
        on_progress(done, total);
        match precision {
            Precision::Int8 => write_quantized(matrix, &mut out)?,
            Precision::Fp32 => write_full(matrix, &mut out)?,
            Precision::Fp16 | Precision::Bf16 => write_half(matrix, precision.activations(), &mut out)?,
        }
        done += matrix.bytes();
    }
    on_progress(done, total);
    let bytes = out.position;
    let unfinished = out.writer.into_inner().map_err(|error| fail(error.into_error()))?;
    cache.finish(unfinished, file, origin)?;
    tracing::info!(seconds = start.elapsed().as_secs_f64(), bytes, "weights are converted");
    Ok(())
}

/// Writes aligned parts one after another.
struct PartWriter<'a> {
    writer: BufWriter<tempfile::NamedTempFile>,
    /// The file that errors name.
    file: &'a Path,
    position: u64,
}

impl PartWriter<'_> {
    /// Pads to the start of the next part.
    fn align(&mut self) -> Result<()> {
        let gap = self.position.next_multiple_of(ALIGNMENT_BYTES) - self.position;
        let copied = std::io::copy(&mut std::io::repeat(0).take(gap), &mut self.writer);
        self.position += copied.map_err(|source| Error::io(self.file, source))?;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.writer.write_all(bytes).map_err(|source| Error::io(self.file, source))
    }
}

fn write_quantized(matrix: &Tensor, out: &mut PartWriter<'_>) -> Result<()> {
    let weights = all_f32(matrix)?;
    let Quantized { scales, values } = Quantized::of(&weights, shape(matrix), levels());
    out.align()?;
    out.put(&scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<_>>())?;
    out.align()?;
    out.put(&values.iter().map(|value| value.to_le_bytes()[0]).collect::<Vec<_>>())
}

/// Rounds each weight to the nearest 16-bit value.
fn write_half(matrix: &Tensor, half: DType, out: &mut PartWriter<'_>) -> Result<()> {
    out.align()?;
    let narrow = |weight| match half {
        DType::BF16 => bf16::from_f32(weight).to_le_bytes(),
        _ => f16::from_f32(weight).to_le_bytes(),
    };
    let largest = if half == DType::BF16 { f32::INFINITY } else { f16::MAX.to_f32() };
    read_f32(matrix, |chunk| {
        if let Some(large) = chunk.iter().find(|weight| weight.abs() > largest) {
            let message = format!("tensor {} holds {large}, beyond the range of fp16; use bf16", matrix.name);
            return Err(Error::checkpoint(matrix.file.as_path(), message));
        }
        let mut values = vec![[0; 2]; chunk.len()];
        values.par_iter_mut().zip(&chunk).for_each(|(value, weight)| *value = narrow(*weight));
        out.put(values.as_flattened())
    })
}

/// Writes each weight as it is read.
fn write_full(matrix: &Tensor, out: &mut PartWriter<'_>) -> Result<()> {
    out.align()?;
    read_f32(matrix, |chunk| {
        let mut values = vec![[0; 4]; chunk.len()];
        values.par_iter_mut().zip(&chunk).for_each(|(value, weight)| *value = weight.to_le_bytes());
        out.put(values.as_flattened())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap() {
        let file = Arc::new(PathBuf::from("/checkpoint"));
        let matrix = |name: &str, shape: [usize; 2]| Tensor {
            name: name.to_owned(),
            dtype: DType::F16,
            shape: shape.to_vec(),
            file: Arc::clone(&file),
            offset_bytes: 8,
            update: None,
        };
        let matrices = |precision| [(matrix("a", [3, 5]), precision), (matrix("b", [2, 7]), precision)];
        let names = |parts: &[Tensor]| parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
        let offsets = |parts: &[Tensor]| parts.iter().map(|part| part.offset_bytes).collect::<Vec<_>>();

        let (parts, size_bytes) = layout(&matrices(Precision::Int8), &file);
        assert_eq!(names(&parts), ["a/scale", "a/int8", "b/scale", "b/int8"]);
        assert_eq!(offsets(&parts), [0, 64, 128, 192]);
        assert_eq!(size_bytes, 192 + 14);
        assert_eq!(parts[1].shape, [5, 3]);

        let (parts, size_bytes) = layout(&matrices(Precision::Bf16), &file);
        assert_eq!(names(&parts), ["a/bf16", "b/bf16"]);
        assert_eq!((offsets(&parts), size_bytes), (vec![0, 64], 64 + 28));
        assert_eq!((parts[1].dtype, &parts[1].shape), (DType::BF16, &vec![2, 7]));
        let halves = matrices(Precision::Bf16);
        let key = |matrices: &[(Tensor, Precision)]| key(matrices, Precision::Bf16);
        assert_ne!(key(&halves), key(&halves[..1]));
        assert_ne!(key(&halves), key(&matrices(Precision::Fp32)));
    }

    /// Converts a checkpoint file with one matrix. Returns its folder and the converted parts.
    fn converted(weights: &[f32], precision: Precision) -> (tempfile::TempDir, Result<(Vec<Tensor>, File)>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        std::fs::write(&file, weights.iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        let matrix = Tensor {
            name: "a".to_owned(),
            dtype: DType::F32,
            shape: vec![1, weights.len()],
            file: Arc::new(file),
            offset_bytes: 0,
            update: None,
        };
        let origin =
            Origin { fingerprint: "fedc", adapter: None, checkpoint: folder.path(), family: crate::Family::M3 };
        let mut seen = Vec::new();
        let cache = folder.path().join("cache");
        let parts = convert(&[(matrix, precision)], precision, &origin, Some(&cache), &mut |done, total| {
            seen.push((done, total));
        });
        let total = weights.len() as u64 * 4;
        assert!(parts.is_err() || seen == [(0, total), (total, total)], "{seen:?}");
        (folder, parts)
    }

    #[test]
    fn halves_are_rounded_to_the_nearest() {
        let weights = [1.0, -0.3, 65_504.0, 1e-9];
        for (precision, expected) in [
            (Precision::Fp16, weights.map(|weight| f16::from_f32(weight).to_bits())),
            (Precision::Bf16, weights.map(|weight| bf16::from_f32(weight).to_bits())),
        ] {
            let (_folder, parts) = converted(&weights, precision);
            let (parts, _) = parts.unwrap();
            let bytes = std::fs::read(parts[0].file.as_path()).unwrap();
            let bits: Vec<u16> = bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
            assert_eq!(bits, expected, "{precision}");
        }
    }

    #[test]
    fn weights_beyond_the_range_are_refused() {
        let error = converted(&[1.0, 1e5], Precision::Fp16).1.unwrap_err().to_string();
        assert!(error.ends_with("tensor a holds 100000, beyond the range of fp16; use bf16"), "{error}");
        assert!(converted(&[1.0, 1e5], Precision::Bf16).1.is_ok());
    }
}
