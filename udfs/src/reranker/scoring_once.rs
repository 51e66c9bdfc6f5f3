//! Scores through a cache that several windows share.

use std::sync::Arc;

use arrow::array::ArrayRef;
use foldhash::{HashMap, HashMapExt};

use super::builder::Reranker;
use super::score_cache::{CachedScore, Lookup, PairKey, ScoreCache};
use super::scoring::{CancelOnDrop, EncodedWindow, check_lengths, window_texts};
use crate::engine::{Encoded, RowScore, ScoreStats, WindowScores};
use crate::error::{Error, Result};
use crate::scores::Scores;

type Found = HashMap<PairKey, CachedScore>;

/// One look at the cache: what is known after it.
struct Round {
    /// The key of each row; `None` for a NULL.
    keys: Vec<Option<PairKey>>,
    found: Found,
    /// The cost of the pairs that were scored for it.
    stats: ScoreStats,
    columns: usize,
    others: Vec<tokio::sync::watch::Receiver<()>>,
}

impl Reranker {
    /// Like [`Self::score_pieces_async`], but scores only pairs that are not in the cache, and that nobody else who
    /// uses it is scoring. Pairs that were not scored here count as duplicates.
    pub(crate) async fn score_once_async(
        &self,
        pieces: Vec<(ArrayRef, ArrayRef)>,
        cache: Arc<ScoreCache>,
    ) -> Result<Scores> {
        for (queries, passages) in &pieces {
            check_lengths(queries.as_ref(), passages.as_ref())?;
        }
        let pieces = Arc::new(pieces);
        // All that share the cache run on the same devices.
        let model: Arc<str> = format!("{} {}", self.location().display(), self.options().to_json()).into();
        let mut found = Found::new();
        let mut stats = ScoreStats::default();
        loop {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let cancel = CancelOnDrop::default();
            let window =
                SharedWindow { pieces: Arc::clone(&pieces), cache: Arc::clone(&cache), model: Arc::clone(&model) };
            // The receiver is dropped early only if nobody waits any more.
            let look_up = move |reranker: &Self| reranker.look_up(&window, found);
            self.submit(cancel.0.clone(), look_up, move |round| drop(sender.send(round)));
            let round = receiver.await.map_err(|_| Error::Stopped)??;
            stats += round.stats;
            found = round.found;
            if round.others.is_empty() {
                return Ok(self.scores(vec![assemble(&round.keys, &found, round.columns, stats)]));
            }
            for mut other in round.others {
                // Nothing is ever sent: the channel closes.
                while other.changed().await.is_ok() {}
            }
        }
    }

    /// Looks the pairs up, and encodes those that nobody else scores.
    fn look_up(&self, window: &SharedWindow, mut known: Found) -> Result<EncodedWindow<Round>> {
        let (queries, passages) = window_texts(&window.pieces)?;
        let mut first_rows: HashMap<PairKey, usize> = HashMap::new();
        let mut distinct = Vec::new();
        let mut keys = Vec::with_capacity(queries.len());
        for (row, pair) in queries.iter().zip(&passages).enumerate() {
            let (Some(query), Some(passage)) = pair else {
                keys.push(None);
                continue;
            };
            let key = window.cache.key(&window.model, query, passage);
            keys.push(Some(key));
            if !known.contains_key(&key) {
                first_rows.entry(key).or_insert_with(|| {
                    distinct.push(key);
                    row
                });
            }
        }
        let Lookup { found, claim, others } = window.cache.look_up(distinct);
        known.extend(found);
        // A failed pair has no logits.
        let columns = known.values().map(|score| score.logits.len()).max().unwrap_or(1).max(1);
        let mut round = Round { keys, found: known, stats: ScoreStats::default(), columns, others };
        if claim.keys.is_empty() {
            return Ok(EncodedWindow::Known(round));
        }
        let rows = claim.keys.iter().map(|key| first_rows[key]);
        let claimed: (Vec<_>, Vec<_>) = rows.map(|row| (queries[row], passages[row])).unzip();
        let pairs = Encoded::new(&self.encoder, self.model.tokenizer(), &claimed.0, &claimed.1);
        let finish = Box::new(move |scores: WindowScores| {
            round.found.extend(claim.fill(&scores));
            round.stats = scores.stats;
            round.columns = scores.columns;
            round
        });
        Ok(EncodedWindow::Scores { pairs, finish })
    }
}

/// A window of rows, and the cache that it shares with others.
struct SharedWindow {
    pieces: Arc<Vec<(ArrayRef, ArrayRef)>>,
    cache: Arc<ScoreCache>,
    model: Arc<str>,
}

/// The scores of all rows. `scored` is the cost of the pairs that were not in the cache.
fn assemble(keys: &[Option<PairKey>], found: &Found, columns: usize, scored: ScoreStats) -> WindowScores {
    let mut stats = ScoreStats { rows: keys.len() as u64, pairs: 0, errors: 0, truncated: 0, ..scored };
    let mut places = HashMap::new();
    let mut logits = Vec::new();
    let rows = keys
        .iter()
        .map(|key| {
            let Some(key) = key else { return RowScore::Null };
            stats.pairs += 1;
            let CachedScore { row, logits: own } = &found[key];
            match row {
                RowScore::Pair { query_tokens, passage_tokens, truncated, .. } => {
                    stats.truncated += u64::from(*truncated);
                    let index = *places.entry(*key).or_insert_with(|| {
                        logits.extend_from_slice(own);
                        (logits.len() / columns) as u32 - 1
                    });
                    RowScore::Pair {
                        index,
                        query_tokens: *query_tokens,
                        passage_tokens: *passage_tokens,
                        truncated: *truncated,
                    }
                }
                RowScore::Failed(reason) => {
                    stats.errors += 1;
                    RowScore::Failed(Arc::clone(reason))
                }
                RowScore::Null => RowScore::Null,
            }
        })
        .collect();
    stats.duplicates = (stats.pairs - stats.errors).saturating_sub(scored.pairs - scored.errors);
    WindowScores { rows, columns, logits, stats }
}
