//! Scores of pairs that a query has scored already.

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::engine::{RowScore, WindowScores};

/// What a cached score takes besides its logits: key, row, slices and the table's share.
const ENTRY_BYTES: usize = 112;

/// A pair and the model that scores it, as a hash of 128 bits with a seed of its own for each cache.
pub(crate) type PairKey = u128;

/// The result of a pair. The index in `row` means nothing.
#[derive(Debug, Clone)]
pub(crate) struct CachedScore {
    pub(crate) row: RowScore,
    pub(crate) logits: Arc<[f32]>,
}

/// Accounts for memory, such as that of a query. Grows in steps that may be refused.
pub(crate) trait Budget: Send + Sync {
    /// Whether there is room for this many bytes more; if so, they are taken.
    fn grow(&self, bytes: usize) -> bool;

    /// Gives bytes back.
    fn shrink(&self, bytes: usize);
}

/// The scores of the most recent pairs, for all windows of a query. A pair that is being scored is not scored a second
/// time: whoever wants it waits.
///
/// Bounded by bytes. Scores are kept in two generations; when the younger has half of the bytes, the older is
/// forgotten. A score that is read belongs to the younger again.
pub(crate) struct ScoreCache {
    state: Mutex<State>,
    hashers: [RandomState; 2],
    capacity: usize,
    budget: Box<dyn Budget>,
}

#[derive(Default)]
struct State {
    young: Generation,
    old: Generation,
    /// Who scores a pair at the moment. The channel closes when it has been scored, or will not be.
    pending: std::collections::HashMap<PairKey, watch::Receiver<()>, RandomState>,
}

#[derive(Default)]
struct Generation {
    scores: HashMap<PairKey, CachedScore>,
    bytes: usize,
}

/// What the cache knows of some pairs.
pub(crate) struct Lookup {
    pub(crate) found: Vec<(PairKey, CachedScore)>,
    /// Pairs that the caller must score.
    pub(crate) claim: Claim,
    /// Pairs that others are scoring: look again when these have closed.
    pub(crate) others: Vec<watch::Receiver<()>>,
}

/// The right to score some pairs. Dropping it lets others score them.
pub(crate) struct Claim {
    cache: Arc<ScoreCache>,
    pub(crate) keys: Vec<PairKey>,
    _done: watch::Sender<()>,
}

impl ScoreCache {
    /// How many scores of one cutoff layer fit into so many bytes.
    pub(crate) fn scores_in(bytes: usize) -> usize {
        bytes / (ENTRY_BYTES + size_of::<f32>())
    }

    /// Keeps scores of at most `capacity` bytes, as far as `budget` has room.
    pub(crate) fn new(capacity: usize, budget: Box<dyn Budget>) -> Self {
        let hashers = [RandomState::default(), RandomState::default()];
        Self { state: Mutex::default(), hashers, capacity, budget }
    }

    /// The key of a pair. `model` names the model and its options.
    pub(crate) fn key(&self, model: &str, query: &str, passage: &str) -> PairKey {
        let [high, low] = self.hashers.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            for text in [model, query, passage] {
                hasher.write_usize(text.len());
                hasher.write(text.as_bytes());
            }
            u128::from(hasher.finish())
        });
        high << 64 | low
    }

    /// Looks distinct pairs up, and claims those that nobody scores.
    pub(crate) fn look_up(self: &Arc<Self>, keys: impl IntoIterator<Item = PairKey>) -> Lookup {
        let (done, waiting) = watch::channel(());
        let mut claim = Claim { cache: Arc::clone(self), keys: Vec::new(), _done: done };
        let (mut found, mut others) = (Vec::new(), Vec::<watch::Receiver<()>>::new());
        let mut state = self.lock();
        for key in keys {
            if let Some(score) = self.get(&mut state, key) {
                found.push((key, score));
                continue;
            }
            match state.pending.entry(key) {
                Entry::Occupied(pending) => {
                    if !others.iter().any(|other| other.same_channel(pending.get())) {
                        others.push(pending.get().clone());
                    }
                }
                Entry::Vacant(vacant) => {
                    vacant.insert(waiting.clone());
                    claim.keys.push(key);
                }
            }
        }
        drop(state);
        Lookup { found, claim, others }
    }

    fn get(&self, state: &mut State, key: PairKey) -> Option<CachedScore> {
        if let Some(score) = state.young.scores.get(&key) {
            return Some(score.clone());
        }
        let score = state.old.scores.remove(&key)?;
        let bytes = bytes(&score);
        state.old.bytes -= bytes;
        self.budget.shrink(bytes);
        self.insert(state, key, score.clone());
        Some(score)
    }

    fn insert(&self, state: &mut State, key: PairKey, score: CachedScore) {
        let bytes = bytes(&score);
        if state.young.bytes + bytes > self.capacity / 2 {
            self.forget_old(state);
            state.old = std::mem::take(&mut state.young);
        }
        if !self.budget.grow(bytes) {
            self.forget_old(state);
            if !self.budget.grow(bytes) {
                return;
            }
        }
        state.young.bytes += bytes;
        state.young.scores.insert(key, score);
    }

    fn forget_old(&self, state: &mut State) {
        self.budget.shrink(std::mem::take(&mut state.old).bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ScoreCache {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.shrink(state.young.bytes + state.old.bytes);
    }
}

impl Claim {
    /// Keeps the scores of the claimed pairs, which are the rows of `scores` in the order of [`Self::keys`], and
    /// returns them.
    pub(crate) fn fill(mut self, scores: &WindowScores) -> Vec<(PairKey, CachedScore)> {
        let scored: Vec<_> = self.keys.iter().zip(&scores.rows).map(|(key, row)| (*key, cached(row, scores))).collect();
        let mut state = self.cache.lock();
        // From here on others may claim those that are not kept.
        for key in std::mem::take(&mut self.keys) {
            state.pending.remove(&key);
        }
        for (key, score) in &scored {
            self.cache.insert(&mut state, *key, score.clone());
        }
        drop(state);
        scored
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        for key in &self.keys {
            state.pending.remove(key);
        }
    }
}

fn cached(row: &RowScore, scores: &WindowScores) -> CachedScore {
    let logits = match row {
        RowScore::Pair { index, .. } => &scores.logits[*index as usize * scores.columns..][..scores.columns],
        RowScore::Null | RowScore::Failed(_) => &[],
    };
    CachedScore { row: row.clone(), logits: logits.into() }
}

fn bytes(score: &CachedScore) -> usize {
    let reason = if let RowScore::Failed(reason) = &score.row { reason.len() } else { 0 };
    ENTRY_BYTES + size_of_val(score.logits.as_ref()) + reason
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::ScoreStats;

    /// Has room for so many bytes, and counts those that are taken.
    #[derive(Clone)]
    struct Room {
        bytes: usize,
        taken: Arc<AtomicUsize>,
    }

    impl Budget for Room {
        fn grow(&self, bytes: usize) -> bool {
            let fits = self.taken.load(Ordering::Relaxed) + bytes <= self.bytes;
            if fits {
                self.taken.fetch_add(bytes, Ordering::Relaxed);
            }
            fits
        }

        fn shrink(&self, bytes: usize) {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn cache(capacity: usize, room: usize) -> (Arc<ScoreCache>, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let room = Room { bytes: room, taken: Arc::clone(&taken) };
        (Arc::new(ScoreCache::new(capacity, Box::new(room))), taken)
    }

    /// Scores that equal their keys.
    fn scores(keys: &[PairKey]) -> WindowScores {
        let row = |index| RowScore::Pair { index, query_tokens: 1, passage_tokens: 1, truncated: false };
        WindowScores {
            rows: (0..keys.len() as u32).map(row).collect(),
            columns: 1,
            logits: keys.iter().map(|key| *key as f32).collect(),
            stats: ScoreStats::default(),
        }
    }

    fn score_all(cache: &Arc<ScoreCache>, keys: &[PairKey]) {
        let claim = cache.look_up(keys.iter().copied()).claim;
        let scored = scores(&claim.keys);
        claim.fill(&scored);
    }

    #[test]
    fn a_pair_is_claimed_once_and_then_found() {
        let (cache, _) = cache(1 << 20, usize::MAX);
        let first = cache.look_up([1, 2]);
        assert_eq!((first.claim.keys.as_slice(), first.found.len(), first.others.len()), ([1, 2].as_slice(), 0, 0));
        let second = cache.look_up([2, 3, 1]);
        assert_eq!((second.claim.keys.as_slice(), second.others.len()), ([3].as_slice(), 1));
        assert!(second.others[0].has_changed().is_ok());
        first.claim.fill(&scores(&[1, 2]));
        assert!(second.others[0].has_changed().is_err(), "closed");
        let found = cache.look_up([1, 2]).found;
        assert_eq!(found.iter().map(|(key, score)| (*key, score.logits[0])).collect::<Vec<_>>(), [(1, 1.0), (2, 2.0)]);
        // A claim that is given up can be taken by others.
        drop(second.claim);
        assert_eq!(cache.look_up([3]).claim.keys, [3]);
    }

    #[test]
    fn the_least_recent_scores_are_forgotten_first() {
        let entry = bytes(&CachedScore { row: RowScore::Null, logits: [0.0].into() });
        let (cache, taken) = cache(entry * 8, usize::MAX);
        for key in 0..4 {
            score_all(&cache, &[key]);
        }
        score_all(&cache, &[4]);
        // Reading makes it recent.
        assert_eq!(cache.look_up([0]).found.len(), 1);
        for key in 5..8 {
            score_all(&cache, &[key]);
        }
        let is_there = |key: PairKey| cache.look_up([key]).found.len() == 1;
        assert!(is_there(0) && is_there(7) && !is_there(1) && !is_there(3));
        assert!(taken.load(Ordering::Relaxed) <= entry * 8);
        drop(cache);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let (cache, taken) = cache(1 << 20, 10);
        score_all(&cache, &[1]);
        assert_eq!((cache.look_up([1]).found.len(), taken.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn texts_do_not_run_together() {
        let (cache, _) = cache(1, 1);
        let keys = [("m", "ab", "c"), ("m", "a", "bc"), ("ma", "b", "c"), ("m", "abc", ""), ("m", "ab", "c")];
        let keys = keys.map(|(model, query, passage)| cache.key(model, query, passage));
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(keys[0], keys[4]);
    }
}
