//! Matrices in 8 bits.
//!
//! A matrix `[out, in]` becomes i8 `[in, out]`, the layout that ONNX Runtime's `DynamicQuantizeMatMul` takes, and one
//! scale per output channel: `weight ≈ value * scale`. A channel's largest magnitude becomes the largest integer. This
//! is the symmetric per-channel scheme of ONNX Runtime's own tools (`onnxruntime.quantization`, `per_channel=True`).

use rayon::prelude::*;

/// The largest integer. Processors without VNNI's dot product instructions add pairs of products in 16 bits, which
/// overflow unless weights have one bit less.
/// (`reduce_range` in <https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html>)
pub(crate) fn levels() -> f32 {
    #[cfg(target_arch = "x86_64")]
    if !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni") {
        return 63.0;
    }
    127.0
}

/// A matrix in 8 bits.
#[derive(Debug, PartialEq)]
pub(crate) struct Quantized {
    /// Per output channel.
    pub(crate) scales: Vec<f32>,
    /// `[in, out]`
    pub(crate) values: Vec<i8>,
}

impl Quantized {
    /// Quantizes `weights`, `[out, in]`, to integers between `-levels` and `levels`.
    pub(crate) fn of(weights: &[f32], [out, width]: [usize; 2], levels: f32) -> Self {
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
}
