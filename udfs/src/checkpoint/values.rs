//! The values of a tensor: as they are stored, and with what an adapter adds.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use half::{bf16, f16};
use rayon::prelude::*;

use super::tensor::{DType, Factor, Tensor};
use crate::error::{Error, Result};

/// Stored values read at a time. Bounds the memory that they take, whatever the size of a tensor. An update's factors
/// are read whole.
const CHUNK_ELEMENTS: usize = 16 << 20;

/// Reads all values of a tensor as f32, and calls `take` with one chunk after another, each of whole rows.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, and those of `take`.
pub(crate) fn read_f32(tensor: &Tensor, mut take: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
    let Some(update) = tensor.update.as_deref() else { return read_stored(tensor, CHUNK_ELEMENTS, take) };
    let [_, rank] = update.up.shape();
    let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
    let (up, down) = (factor(&update.up)?, factor(&update.down)?);
    let magnitudes = update.magnitudes.as_ref().map(all_f32).transpose()?;
    let mut row = update.first_row;
    read_stored(tensor, (CHUNK_ELEMENTS / columns).max(1) * columns, |mut chunk| {
        let first = row;
        row += chunk.len() / columns;
        chunk.par_chunks_mut(columns).enumerate().for_each_init(
            || vec![0.0; columns],
            |sum, (index, weights)| {
                // As the reference rounds: the product, then its factor, then the sum.
                sum.fill(0.0);
                for (rank_index, &factor) in up[(first + index) * rank..][..rank].iter().enumerate() {
                    let down = &down[rank_index * columns..][..columns];
                    sum.iter_mut().zip(down).for_each(|(sum, down)| *sum += factor * down);
                }
                weights.iter_mut().zip(sum.iter()).for_each(|(weight, sum)| *weight += sum * update.scaling);
                if let Some(magnitudes) = &magnitudes {
                    let length = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>().sqrt() as f32;
                    for weight in weights {
                        *weight *= magnitudes[first + index] / length;
                    }
                }
            },
        );
        take(chunk)
    })
}

/// All values of a small tensor.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub(crate) fn all_f32(tensor: &Tensor) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(tensor.elements());
    read_f32(tensor, |chunk| {
        values.extend(chunk);
        Ok(())
    })?;
    Ok(values)
}

/// The values of a factor in the shape in use.
fn factor(factor: &Factor) -> Result<Vec<f32>> {
    let values = all_f32(&factor.tensor)?;
    if !factor.transposed {
        return Ok(values);
    }
    let [rows, columns] = factor.shape();
    Ok((0..rows * columns).map(|index| values[index % columns * rows + index / columns]).collect())
}

/// Reads the stored values, in chunks of `chunk_elements`.
fn read_stored(tensor: &Tensor, chunk_elements: usize, mut take: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
    let fail = |source| Error::io(tensor.file.as_path(), source);
    let mut file = File::open(tensor.file.as_path()).map_err(fail)?;
    file.seek(SeekFrom::Start(tensor.offset_bytes)).map_err(fail)?;
    let mut left = tensor.elements();
    while left > 0 {
        let elements = left.min(chunk_elements);
        let mut bytes = vec![0; elements * tensor.dtype.bytes()];
        file.read_exact(&mut bytes).map_err(fail)?;
        take(match tensor.dtype {
            DType::F32 => bytes.as_chunks().0.par_iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            DType::F16 => bytes.as_chunks().0.par_iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            DType::BF16 => bytes.as_chunks().0.par_iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
            DType::I8 => bytes.par_iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        })?;
        left -= elements;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::checkpoint::tensor::LowRank;

    /// A file with tensors of these values and shapes, one after another.
    fn tensors(values: &[(&[f32], [usize; 2])]) -> (tempfile::NamedTempFile, Vec<Tensor>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|(values, _)| *values).flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(file.path(), bytes).unwrap();
        let path = Arc::new(PathBuf::from(file.path()));
        let mut offset_bytes = 0;
        let mut tensors = Vec::new();
        for (values, shape) in values {
            let tensor = Tensor {
                name: "a".to_owned(),
                dtype: DType::F32,
                shape: shape.to_vec(),
                file: Arc::clone(&path),
                offset_bytes,
                update: None,
            };
            offset_bytes += 4 * values.len() as u64;
            tensors.push(tensor);
        }
        (file, tensors)
    }

    #[test]
    fn an_update_is_added_to_every_row() {
        // The update is 2 · [1, 2, 3]ᵀ · [10, 20].
        let (up, down): (&[f32], &[f32]) = (&[1.0, 2.0, 3.0], &[10.0, 20.0]);
        for transposed in [false, true] {
            let shape = |rows: usize, columns: usize| if transposed { [columns, rows] } else { [rows, columns] };
            let weights: &[f32] = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            let (_file, tensors) = tensors(&[(weights, [3, 2]), (up, shape(3, 1)), (down, shape(1, 2))]);
            let factor = |tensor: &Tensor| Factor { tensor: tensor.clone(), transposed };
            let update = LowRank {
                up: factor(&tensors[1]),
                down: factor(&tensors[2]),
                scaling: 2.0,
                magnitudes: None,
                first_row: 0,
            };
            let updated = Tensor { update: Some(Arc::new(update)), ..tensors[0].clone() };
            assert_eq!(all_f32(&updated).unwrap(), [21.0, 42.0, 43.0, 84.0, 65.0, 126.0]);
            assert_eq!(all_f32(&updated.row_matrix(2)).unwrap(), [65.0, 126.0]);
            assert_eq!(all_f32(&updated.row(1)).unwrap(), [43.0, 84.0]);
            assert_eq!(all_f32(&tensors[0]).unwrap(), weights);
        }
    }

    #[test]
    fn rows_are_scaled_to_their_magnitudes() {
        let (weights, magnitudes): (&[f32], &[f32]) = (&[3.0, 3.0, 0.0, 1.0], &[10.0, 2.0]);
        let (_file, tensors) =
            tensors(&[(weights, [2, 2]), (&[1.0, 0.0], [2, 1]), (&[0.0, 1.0], [1, 2]), (magnitudes, [1, 2])]);
        let factor = |tensor: &Tensor| Factor { tensor: tensor.clone(), transposed: false };
        let magnitudes = Some(tensors[3].clone());
        let (up, down) = (factor(&tensors[1]), factor(&tensors[2]));
        let update = LowRank { up, down, scaling: 1.0, magnitudes, first_row: 0 };
        let updated = Tensor { update: Some(Arc::new(update)), ..tensors[0].clone() };
        // The first row becomes [3, 4] and then [6, 8]; the second, [0, 1], then [0, 2].
        assert_eq!(all_f32(&updated).unwrap(), [6.0, 8.0, 0.0, 2.0]);
        assert_eq!(all_f32(&updated.row(1)).unwrap(), [0.0, 2.0]);
    }

    #[test]
    fn a_transposed_factor_has_its_shape_in_use() {
        let (_file, tensors) = tensors(&[(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])]);
        let transposed = Factor { tensor: tensors[0].clone(), transposed: true };
        assert_eq!(transposed.shape(), [3, 2]);
        assert_eq!(factor(&transposed).unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
