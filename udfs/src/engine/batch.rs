//! Cuts a window of sequences into batches of similar length.

/// Sequences of a window that run together, padded to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Indices into the window's sequences, longest first.
    pub(crate) members: Vec<u32>,
    /// Length of the longest, to which all are padded.
    pub(crate) padded_tokens: usize,
}

impl Batch {
    /// Tokens to run, padding included.
    pub(crate) fn tokens(&self) -> usize {
        self.members.len() * self.padded_tokens
    }

    /// Splits at least two members into the longer and the shorter half, each padded to its own longest.
    pub(crate) fn halves(self, tokens_of: impl Fn(u32) -> usize) -> (Self, Self) {
        let Self { members: mut longer, padded_tokens } = self;
        let shorter = longer.split_off(longer.len().div_ceil(2));
        let shorter_tokens = shorter.first().map_or(0, |&member| tokens_of(member));
        (Self { members: longer, padded_tokens }, Self { members: shorter, padded_tokens: shorter_tokens })
    }
}

/// Cuts sequences of the given lengths into batches of at most `budget_tokens`, padding included. A longer sequence is
/// a batch of its own.
///
/// Takes the longest sequences first, and equal lengths in their order, so the cut depends on the lengths alone. With
/// the longest first, the device's memory reaches its peak at once.
pub(crate) fn cut(lengths: &[u32], budget_tokens: usize) -> Vec<Batch> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index as usize]));

    let mut batches = Vec::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let padded_tokens = lengths[longest as usize] as usize;
        let size = (budget_tokens / padded_tokens.max(1)).clamp(1, rest.len());
        let (members, others) = rest.split_at(size);
        batches.push(Batch { members: members.to_vec(), padded_tokens });
        rest = others;
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sequence_is_in_exactly_one_batch(
            lengths in prop::collection::vec(0u32..600, 0..300), budget in 1usize..5000,
        ) {
            let batches = cut(&lengths, budget);
            let mut members: Vec<u32> = batches.iter().flat_map(|b| b.members.clone()).collect();
            members.sort_unstable();
            prop_assert_eq!(members, (0..lengths.len() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn batches_hold_their_longest_and_keep_the_budget(
            lengths in prop::collection::vec(0u32..600, 0..300), budget in 1usize..5000,
        ) {
            for batch in cut(&lengths, budget) {
                let longest = batch.members.iter().map(|&i| lengths[i as usize]).max();
                prop_assert_eq!(longest, Some(batch.padded_tokens as u32));
                prop_assert!(batch.members.len() == 1 || batch.members.len() * batch.padded_tokens.max(1) <= budget);
            }
        }

        #[test]
        fn padding_is_bounded_by_the_spread_of_lengths(lengths in prop::collection::vec(1u32..600, 1..300)) {
            // Neighbours in length share batches, so the total padding is at most the range of lengths times the size
            // of the largest batch.
            let budget = 2000;
            let batches = cut(&lengths, budget);
            let padding: usize = batches
                .iter()
                .map(|b| b.members.iter().map(|&i| b.padded_tokens - lengths[i as usize] as usize).sum::<usize>())
                .sum();
            let largest = batches.iter().map(|b| b.members.len()).max().unwrap_or(0);
            let spread = (lengths.iter().max().unwrap() - lengths.iter().min().unwrap()) as usize;
            prop_assert!(padding <= spread * largest, "{padding} > {spread} * {largest}");
        }
    }

    #[test]
    fn halves_are_padded_to_their_own_longest() {
        let lengths = [9, 7, 4, 4, 1];
        let batch = Batch { members: vec![0, 1, 2, 3, 4], padded_tokens: 9 };
        let (longer, shorter) = batch.halves(|member| lengths[member as usize]);
        assert_eq!(longer, Batch { members: vec![0, 1, 2], padded_tokens: 9 });
        assert_eq!(shorter, Batch { members: vec![3, 4], padded_tokens: 4 });
        assert_eq!((longer.tokens(), shorter.tokens()), (27, 8));
    }

    #[test]
    fn equal_lengths_keep_their_order() {
        let batches = cut(&[3, 5, 3, 5], 10);
        assert_eq!(batches[0], Batch { members: vec![1, 3], padded_tokens: 5 });
        assert_eq!(batches[1], Batch { members: vec![0, 2], padded_tokens: 3 });
    }
}
