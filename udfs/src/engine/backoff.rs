//! Handles a batch that does not fit into the device's memory: splits it, and keeps the following batches smaller for a
//! while.

use super::batch::Batch;

/// Consecutive batches that must fit before a reduced limit is doubled.
const BATCHES_TO_GROW: u32 = 16;

/// Most tokens in a batch, padding included, after the device ran out of memory. No limit before that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemoryLimit(Option<Reduced>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reduced {
    limit_tokens: usize,
    /// Tokens of the largest batch that did not fit. The limit is lifted once it reaches this again.
    failed_tokens: usize,
    /// Batches that have fitted since the limit last changed.
    fitted: u32,
}

/// A batch, or part of one, that has run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ran {
    pub(crate) batch: Batch,
    /// `None` for a single pair that does not fit alone.
    pub(crate) logits: Option<Vec<f32>>,
}

impl MemoryLimit {
    fn admits(&self, tokens: usize) -> bool {
        self.0.as_ref().is_none_or(|reduced| tokens <= reduced.limit_tokens)
    }

    fn batch_failed(&mut self, tokens: usize) {
        let failed_tokens = self.0.as_ref().map_or(tokens, |reduced| reduced.failed_tokens.max(tokens));
        let limit_tokens = (tokens / 2).max(1);
        self.0 = Some(Reduced { limit_tokens, failed_tokens, fitted: 0 });
        tracing::warn!(batch_tokens = limit_tokens, "the device ran out of memory; batches are halved");
    }

    fn batch_fitted(&mut self) {
        let Some(Reduced { limit_tokens, failed_tokens, fitted }) = &mut self.0 else { return };
        *fitted += 1;
        if *fitted >= BATCHES_TO_GROW {
            *limit_tokens = limit_tokens.saturating_mul(2);
            *fitted = 0;
            tracing::info!(batch_tokens = *limit_tokens, "batches grow again");
            if limit_tokens >= failed_tokens {
                self.0 = None;
            }
        }
    }

    /// Runs a batch with `run`. Splits it, down to single pairs, if it exceeds the limit or if `is_out_of_memory`
    /// accepts the error. `tokens_of` returns a member's length.
    ///
    /// # Errors
    /// All other errors of `run`.
    pub(crate) fn run<E>(
        &mut self,
        batch: Batch,
        tokens_of: impl Fn(u32) -> usize,
        is_out_of_memory: impl Fn(&E) -> bool,
        mut run: impl FnMut(&Batch) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<Ran>, E> {
        let mut waiting = vec![batch];
        let mut done = Vec::new();
        while let Some(batch) = waiting.pop() {
            let alone = batch.members.len() <= 1;
            if !alone && !self.admits(batch.tokens()) {
                let (first, second) = batch.halves(&tokens_of);
                waiting.extend([second, first]);
                continue;
            }
            match run(&batch) {
                Ok(logits) => {
                    self.batch_fitted();
                    done.push(Ran { batch, logits: Some(logits) });
                }
                Err(error) if is_out_of_memory(&error) => {
                    self.batch_failed(batch.tokens());
                    if alone {
                        done.push(Ran { batch, logits: None });
                    } else {
                        waiting.push(batch);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::cut;
    use super::*;

    const BATCH_TOKENS: usize = 1000;

    /// A device on which a batch of more than `capacity` tokens does not fit.
    struct SmallDevice {
        capacity: usize,
        /// Tokens of each attempt.
        attempts: Vec<usize>,
    }

    impl SmallDevice {
        fn new(capacity: usize) -> Self {
            Self { capacity, attempts: Vec::new() }
        }

        /// Runs a window as the worker does. Returns each member and whether it was scored.
        fn run(&mut self, limit: &mut MemoryLimit, lengths: &[u32]) -> Result<Vec<(u32, bool)>, &'static str> {
            let mut members = Vec::new();
            for batch in cut(lengths, BATCH_TOKENS) {
                let ran = limit.run(
                    batch,
                    |member| lengths[member as usize] as usize,
                    |error| *error == "out of memory",
                    |batch| {
                        self.attempts.push(batch.tokens());
                        let longest = batch.members.iter().map(|&member| lengths[member as usize]).max();
                        assert_eq!(longest, Some(batch.padded_tokens as u32));
                        match batch.tokens() {
                            tokens if tokens > self.capacity => Err("out of memory"),
                            _ if self.capacity == 0 => Err("broken"),
                            _ => Ok(batch.members.iter().map(|&member| member as f32).collect()),
                        }
                    },
                )?;
                for Ran { batch, logits } in ran {
                    if let Some(logits) = &logits {
                        let expected: Vec<f32> = batch.members.iter().map(|&member| member as f32).collect();
                        assert_eq!(*logits, expected);
                    }
                    members.extend(batch.members.iter().map(|&member| (member, logits.is_some())));
                }
            }
            members.sort_unstable();
            Ok(members)
        }
    }

    #[test]
    fn batches_are_halved_until_they_fit() {
        let (mut device, mut limit) = (SmallDevice::new(300), MemoryLimit::default());
        let lengths = [100; 20];
        let members = device.run(&mut limit, &lengths).unwrap();
        assert_eq!(members, (0..20).map(|member| (member, true)).collect::<Vec<_>>());
        // 1000 and 500 fail. From then on, no batch is larger than what fitted.
        assert_eq!(device.attempts[..3], [1000, 500, 200]);
        assert!(device.attempts[2..].iter().all(|tokens| *tokens <= 250), "{:?}", device.attempts);
        assert_eq!(limit.0.unwrap().limit_tokens, 250);
    }

    #[test]
    fn a_pair_that_does_not_fit_alone_fails_alone() {
        let (mut device, mut limit) = (SmallDevice::new(150), MemoryLimit::default());
        let members = device.run(&mut limit, &[100, 400, 50, 120, 200]).unwrap();
        assert_eq!(members, [(0, true), (1, false), (2, true), (3, true), (4, false)]);
    }

    #[test]
    fn batches_grow_again() {
        let (mut device, mut limit) = (SmallDevice::new(300), MemoryLimit::default());
        device.run(&mut limit, &[100; 10]).unwrap();
        assert_eq!(limit.0.as_ref().unwrap().limit_tokens, 250);
        device.capacity = 1000;
        let mut batches = 0;
        while limit.0.is_some() {
            device.run(&mut limit, &[100; 10]).unwrap();
            batches += 1;
            assert!(batches < 100, "{limit:?}");
        }
        device.attempts.clear();
        device.run(&mut limit, &[100; 10]).unwrap();
        assert_eq!(device.attempts, [1000]);
    }

    #[test]
    fn a_sequence_longer_than_a_batch_is_tried() {
        let (mut device, mut limit) = (SmallDevice::new(10_000), MemoryLimit::default());
        assert_eq!(device.run(&mut limit, &[5000, 10]).unwrap(), [(0, true), (1, true)]);
        assert_eq!(limit, MemoryLimit::default());
    }

    #[test]
    fn other_failures_are_not_retried() {
        let mut limit = MemoryLimit::default();
        let batch = Batch { members: vec![0, 1], padded_tokens: 10 };
        let mut attempts = 0;
        let result = limit.run(
            batch,
            |_| 10,
            |_: &&str| false,
            |_| {
                attempts += 1;
                Err("broken")
            },
        );
        assert_eq!((result, attempts), (Err("broken"), 1));
        assert_eq!(limit, MemoryLimit::default());
    }
}
