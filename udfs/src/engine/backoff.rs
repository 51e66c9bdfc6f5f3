//! What is done with a batch that does not fit into the device's memory: it is split, and what follows is kept smaller
//! for a while.

use super::batch::Batch;

/// Batches in a row that must fit before a reduced budget is doubled.
const BATCHES_TO_GROW: u32 = 16;

/// Most tokens in a batch, padding included: fewer than asked for after the device ran out of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenBudget {
    full_tokens: usize,
    limit_tokens: usize,
    /// Batches that fitted since the limit was changed.
    fitted: u32,
}

/// A batch that was run, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ran {
    pub(crate) batch: Batch,
    /// `None` for a single pair that does not fit alone.
    pub(crate) logits: Option<Vec<f32>>,
}

impl TokenBudget {
    pub(crate) fn new(full_tokens: usize) -> Self {
        Self { full_tokens, limit_tokens: full_tokens, fitted: 0 }
    }

    /// A reduced budget lets only batches pass that keep to it. A budget that is not reduced lets all pass: a sequence
    /// may be longer than it.
    fn admits(&self, tokens: usize) -> bool {
        self.limit_tokens == self.full_tokens || tokens <= self.limit_tokens
    }

    fn batch_failed(&mut self, tokens: usize) {
        self.limit_tokens = (tokens / 2).clamp(1, self.full_tokens);
        self.fitted = 0;
        tracing::warn!(batch_tokens = self.limit_tokens, "the device ran out of memory; batches are halved");
    }

    fn batch_fitted(&mut self) {
        self.fitted += 1;
        if self.limit_tokens < self.full_tokens && self.fitted >= BATCHES_TO_GROW {
            self.limit_tokens = self.limit_tokens.saturating_mul(2).min(self.full_tokens);
            self.fitted = 0;
            tracing::info!(batch_tokens = self.limit_tokens, "batches grow again");
        }
    }

    /// Runs a batch with `run`, in parts if it exceeds the budget or `is_out_of_memory` says why it failed, down to
    /// single pairs. `tokens_of` tells a member's length.
    ///
    /// # Errors
    /// Those of `run` that have another reason.
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

    /// A device on which a batch of more than `capacity` tokens does not fit.
    struct Device {
        capacity: usize,
        /// Tokens of each attempt.
        attempts: Vec<usize>,
    }

    impl Device {
        fn new(capacity: usize) -> Self {
            Self { capacity, attempts: Vec::new() }
        }

        /// Runs a window as the worker does; gives which members were scored, in any order.
        fn run(&mut self, budget: &mut TokenBudget, lengths: &[u32]) -> Result<Vec<(u32, bool)>, &'static str> {
            let mut members = Vec::new();
            for batch in cut(lengths, budget.full_tokens) {
                let ran = budget.run(
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
        let (mut device, mut budget) = (Device::new(300), TokenBudget::new(1000));
        let lengths = [100; 20];
        let members = device.run(&mut budget, &lengths).unwrap();
        assert_eq!(members, (0..20).map(|member| (member, true)).collect::<Vec<_>>());
        // 1000 and 500 fail; from then on no batch is tried that is larger than what fitted.
        assert_eq!(device.attempts[..3], [1000, 500, 200]);
        assert!(device.attempts[2..].iter().all(|tokens| *tokens <= 250), "{:?}", device.attempts);
        assert_eq!(budget.limit_tokens, 250);
    }

    #[test]
    fn a_pair_that_does_not_fit_alone_fails_alone() {
        let (mut device, mut budget) = (Device::new(150), TokenBudget::new(1000));
        let members = device.run(&mut budget, &[100, 400, 50, 120, 200]).unwrap();
        assert_eq!(members, [(0, true), (1, false), (2, true), (3, true), (4, false)]);
    }

    #[test]
    fn the_budget_recovers() {
        let (mut device, mut budget) = (Device::new(300), TokenBudget::new(1000));
        device.run(&mut budget, &[100; 10]).unwrap();
        assert_eq!(budget.limit_tokens, 250);
        device.capacity = 1000;
        let mut batches = 0;
        while budget.limit_tokens < 1000 {
            device.run(&mut budget, &[100; 10]).unwrap();
            batches += 1;
            assert!(batches < 100, "{budget:?}");
        }
        device.attempts.clear();
        device.run(&mut budget, &[100; 10]).unwrap();
        assert_eq!(device.attempts, [1000]);
    }

    #[test]
    fn a_sequence_longer_than_the_budget_is_tried() {
        let (mut device, mut budget) = (Device::new(10_000), TokenBudget::new(1000));
        assert_eq!(device.run(&mut budget, &[5000, 10]).unwrap(), [(0, true), (1, true)]);
        assert_eq!(budget, TokenBudget { fitted: 2, ..TokenBudget::new(1000) });
    }

    #[test]
    fn other_failures_are_not_retried() {
        let mut budget = TokenBudget::new(1000);
        let batch = Batch { members: vec![0, 1], padded_tokens: 10 };
        let mut attempts = 0;
        let result = budget.run(
            batch,
            |_| 10,
            |_: &&str| false,
            |_| {
                attempts += 1;
                Err("broken")
            },
        );
        assert_eq!((result, attempts), (Err("broken"), 1));
        assert_eq!(budget, TokenBudget::new(1000));
    }
}
