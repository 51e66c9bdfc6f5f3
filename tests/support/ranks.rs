//! Comparing rankings.

/// The rank correlation of two lists of scores.
pub(crate) fn spearman(one: &[f32], other: &[f32]) -> f64 {
    let [one, other] = [one, other].map(|scores| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut ranks = vec![0.0; scores.len()];
        order.into_iter().enumerate().for_each(|(rank, index)| ranks[index] = rank as f64);
        ranks
    });
    let count = one.len() as f64;
    let squares: f64 = one.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
    1.0 - 6.0 * squares / (count * (count * count - 1.0))
}

/// The largest difference between two lists of scores.
#[track_caller]
pub(crate) fn largest_difference(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    actual.iter().zip(expected).map(|(actual, expected)| (actual - expected).abs()).fold(0.0, f32::max)
}
