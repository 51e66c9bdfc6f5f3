//! Histograms whose size is bounded, regardless of the number and range of the values.

use serde::{Deserialize, Serialize};

/// Bins on each side of zero.
const BINS: i64 = 64;

/// A histogram with at most 128 bins of equal width around zero. When a value lies beyond the last bin, the width
/// doubles and pairs of bins merge: only resolution is lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    /// Width of a bin, in the unit of the values.
    width: f64,
    /// The number of the first bin in `counts`. Bin `n` holds values from `n` to `n + 1` widths.
    first: i64,
    /// Counts from the first bin with a value to the last.
    counts: Vec<u64>,
}

/// A bin: its range and its count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bin {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) count: u64,
}

impl Histogram {
    /// An empty histogram with bins of this initial width, which must be above 0.
    pub(crate) fn new(width: f64) -> Self {
        Self { width, first: 0, counts: Vec::new() }
    }

    /// Counts `value` `weight` times. A value that is not finite is ignored.
    pub(crate) fn add(&mut self, value: f64, weight: u64) {
        if !value.is_finite() {
            return;
        }
        while !(-BINS..BINS).contains(&self.bin(value)) {
            self.widen();
        }
        let bin = self.bin(value);
        self.put(bin, weight);
    }

    /// Adds the counts of another histogram. Both must have started with the same width.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        for (bin, count) in (other.first..).zip(other.counts) {
            self.put(bin, count);
        }
    }

    /// The bins from the first with a value to the last.
    pub(crate) fn bins(&self) -> impl Iterator<Item = Bin> {
        (self.first..).zip(&self.counts).map(|(bin, &count)| Bin {
            start: bin as f64 * self.width,
            end: (bin + 1) as f64 * self.width,
            count,
        })
    }

    fn bin(&self, value: f64) -> i64 {
        // A cast saturates: a value that is too large is beyond the last bin too.
        (value / self.width).floor() as i64
    }

    fn put(&mut self, bin: i64, weight: u64) {
        if weight == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.first = bin;
        }
        let before = usize::try_from(self.first - bin).unwrap_or(0);
        self.counts.splice(0..0, std::iter::repeat_n(0, before));
        self.first = self.first.min(bin);
        let index = (bin - self.first) as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += weight;
    }

    fn widen(&mut self) {
        let old = std::mem::replace(self, Self::new(2.0 * self.width));
        for (bin, count) in (old.first..).zip(old.counts) {
            self.put(bin.div_euclid(2), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::new(1.0);
        for value in values {
            histogram.add(*value, 1);
        }
        histogram
    }

    fn bins(histogram: &Histogram) -> Vec<(f64, f64, u64)> {
        histogram.bins().map(|bin| (bin.start, bin.end, bin.count)).collect()
    }

    #[test]
    fn values_fall_into_their_bins() {
        let histogram = filled(&[2.5, 0.0, -0.5, 2.0, f64::NAN, f64::INFINITY]);
        assert_eq!(bins(&histogram), [(-1.0, 0.0, 1), (0.0, 1.0, 1), (1.0, 2.0, 0), (2.0, 3.0, 2)]);
    }

    #[test]
    fn bins_widen_until_a_value_fits() {
        let histogram = filled(&[0.5, 1.5, -0.5, 200.0]);
        assert_eq!(histogram.width, 4.0);
        let bins = bins(&histogram);
        assert_eq!(bins.len(), 52);
        assert_eq!((bins[0], bins[1], bins[51]), ((-4.0, 0.0, 1), (0.0, 4.0, 2), (200.0, 204.0, 1)));
        assert!(filled(&[-1e30, 1e30]).counts.len() <= 2 * BINS as usize);
    }

    #[test]
    fn the_order_of_values_and_of_merging_does_not_matter() {
        let values = [0.1, -3.0, 900.0, 17.0, -64.0, 64.0, 63.9];
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        assert_eq!(filled(&values), filled(&reversed));
        let (mut small, large) = (filled(&values[..2]), filled(&values[2..]));
        let mut other = large.clone();
        other.merge(&small);
        small.merge(&large);
        assert_eq!(small, filled(&values));
        assert_eq!(small, other);
        small.merge(&Histogram::new(1.0));
        assert_eq!(small, filled(&values));
    }
}
