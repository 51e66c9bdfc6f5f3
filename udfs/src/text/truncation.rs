//! Cuts ids to length, as the reference's tokenizer does.

use super::tokenizer::TruncationSide;

/// Keeps `max` ids of one text. Returns whether any were dropped.
pub(crate) fn truncate(ids: &mut Vec<u32>, max: usize, side: TruncationSide) -> bool {
    let excess = ids.len().saturating_sub(max);
    match side {
        TruncationSide::Right => ids.truncate(max),
        TruncationSide::Left => drop(ids.drain(..excess)),
    }
    excess > 0
}

/// How many ids of the second text stay when a pair, with `special` tokens around it, must fit into `max`.
///
/// `truncation="only_second"` of the reference (`PreTrainedTokenizerBase.truncate_sequences`, transformers 4.46.3): if
/// the second text is too short to absorb the whole excess, **nothing** is dropped and the pair stays too long.
pub(crate) fn only_second(first: usize, second: usize, special: usize, max: usize) -> usize {
    let excess = (first + second + special).saturating_sub(max);
    if second > excess { second - excess } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_second_drops_all_of_the_excess_or_nothing() {
        assert_eq!(only_second(10, 10, 4, 24), 10);
        assert_eq!(only_second(10, 10, 4, 20), 6);
        assert_eq!(only_second(10, 10, 4, 15), 1);
        assert_eq!(only_second(10, 10, 4, 14), 10);
        assert_eq!(only_second(30, 0, 4, 20), 0);
    }

    #[test]
    fn truncation_keeps_the_named_end() {
        let mut ids = vec![1, 2, 3, 4];
        assert!(truncate(&mut ids, 3, TruncationSide::Right));
        assert_eq!(ids, [1, 2, 3]);
        assert!(truncate(&mut ids, 2, TruncationSide::Left));
        assert_eq!(ids, [2, 3]);
        assert!(!truncate(&mut ids, 2, TruncationSide::Left));
    }
}
