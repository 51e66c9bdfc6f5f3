//! Finds the fastest token budget for batches by running batches of several sizes.

/// The sizes to try, in quarters of the default.
const FOURTHS: [usize; 5] = [1, 2, 4, 8, 16];

/// How often each size runs. Sizes take turns, so that other load on the machine affects all of them. The best run
/// counts.
const ROUNDS: usize = 3;

/// How much faster a larger batch must be. It takes more memory, and more of a window waits for its last batch.
const WORTHWHILE: f64 = 1.03;

/// A batch size and its measured rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) batch_tokens: usize,
    pub(crate) tokens_per_second: f64,
}

/// Tokens that run to find the best size around `usual`.
pub(crate) fn probe_tokens(usual: usize) -> usize {
    ROUNDS * sizes(usual).iter().sum::<usize>()
}

/// Runs batches of different sizes around `usual`. Returns the rates of those that fit into the device's memory. `run`
/// runs a batch of about the given number of tokens and returns its tokens per second, or `None` if it does not fit.
///
/// # Errors
/// Those of `run`.
pub(crate) fn measure<E>(
    usual: usize,
    mut run: impl FnMut(usize) -> Result<Option<f64>, E>,
) -> Result<Vec<Measured>, E> {
    let mut measured: Vec<Measured> =
        sizes(usual).map(|batch_tokens| Measured { batch_tokens, tokens_per_second: 0.0 }).to_vec();
    for _ in 0..ROUNDS {
        let mut fitting = measured.len();
        for (index, size) in measured.iter_mut().enumerate() {
            let Some(rate) = run(size.batch_tokens)? else {
                fitting = index;
                break;
            };
            size.tokens_per_second = size.tokens_per_second.max(rate);
        }
        measured.truncate(fitting);
    }
    Ok(measured)
}

/// The smallest size that no other beats by [`WORTHWHILE`]; `None` if there are no sizes.
pub(crate) fn best(measured: &[Measured]) -> Option<Measured> {
    let fastest = measured.iter().map(|size| size.tokens_per_second).fold(0.0, f64::max);
    measured.iter().copied().find(|size| size.tokens_per_second * WORTHWHILE >= fastest)
}

fn sizes(usual: usize) -> [usize; FOURTHS.len()] {
    FOURTHS.map(|fourths| (usual * fourths / 4).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that is fastest at batches of `peak` tokens, has room for `capacity` and is slow in its first round.
    fn device(peak: usize, capacity: usize) -> impl FnMut(usize) -> Result<Option<f64>, &'static str> {
        let mut runs = 0;
        move |tokens| {
            runs += 1;
            let off = (tokens as f64 / peak as f64).log2().abs();
            let rate = 1000.0 / (1.0 + 0.2 * off);
            Ok((tokens <= capacity).then_some(if runs <= FOURTHS.len() { rate / 2.0 } else { rate }))
        }
    }

    fn found(peak: usize, capacity: usize) -> Option<usize> {
        best(&measure(1024, device(peak, capacity)).unwrap()).map(|size| size.batch_tokens)
    }

    #[test]
    fn the_fastest_size_is_found() {
        for peak in [256, 512, 1024, 2048, 4096] {
            assert_eq!(found(peak, usize::MAX), Some(peak));
        }
        // Outside the range that is tried.
        assert_eq!((found(100_000, usize::MAX), found(10, usize::MAX)), (Some(4096), Some(256)));
    }

    #[test]
    fn sizes_that_do_not_fit_are_not_taken() {
        assert_eq!(found(4096, 1500), Some(1024));
        assert_eq!(found(4096, 100), None);
        let mut tried = Vec::new();
        measure(1024, |tokens| {
            tried.push(tokens);
            Ok::<_, ()>((tokens < 1024).then_some(1.0))
        })
        .unwrap();
        assert_eq!(tried, [256, 512, 1024, 256, 512, 256, 512], "what did not fit once is not tried again");
    }

    #[test]
    fn a_larger_batch_must_be_worthwhile() {
        let rates = |rates: [f64; 3]| {
            let size = |(index, tokens_per_second)| Measured { batch_tokens: 256_usize << index, tokens_per_second };
            best(&rates.into_iter().enumerate().map(size).collect::<Vec<_>>()).unwrap().batch_tokens
        };
        assert_eq!(rates([99.0, 100.0, 101.0]), 256);
        assert_eq!(rates([95.0, 100.0, 101.0]), 512);
        assert_eq!(rates([95.0, 96.0, 100.0]), 1024);
    }

    #[test]
    fn a_probe_is_as_long_as_it_says() {
        let mut tokens = 0;
        measure(1024, |size| {
            tokens += size;
            Ok::<_, ()>(Some(1.0))
        })
        .unwrap();
        assert_eq!(tokens, probe_tokens(1024));
        assert_eq!(measure(1024, |_| Err("broken")), Err("broken"));
    }
}
