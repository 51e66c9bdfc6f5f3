//! A window: the rows that are sorted by length and cut into batches together, and the collection of their scores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use rayon::prelude::*;

use super::ScoreStats;
use super::backoff::Ran;
use super::batch::Batch;
use crate::error::{Error, Result};
use crate::text::{EncodedPair, EncodedText, PairEncoder, Tokenizer, Untokenizable};

/// Set by a caller that no longer wants its scores. Batches that have not started are then dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One row of a window.
#[derive(Debug, Clone, PartialEq)]
enum Row {
    /// Query or passage is NULL.
    Null,
    /// One of the window's distinct pairs.
    Pair(u32),
    /// One of its texts cannot be tokenized.
    Failed(Arc<str>),
}

/// Distinct encoded pairs, and the pair of each row.
#[derive(Debug)]
pub(crate) struct Encoded {
    rows: Vec<Row>,
    pairs: Vec<EncodedPair>,
    stats: ScoreStats,
}

impl Encoded {
    /// Encodes the rows, each distinct text and each distinct pair once. Runs on rayon's pool.
    pub(crate) fn new(
        encoder: &PairEncoder,
        tokenizer: &Tokenizer,
        queries: &[Option<&str>],
        passages: &[Option<&str>],
    ) -> Self {
        let start = Instant::now();
        let queries = Distinct::new(queries);
        let passages = Distinct::new(passages);
        let (encoded_queries, encoded_passages) = rayon::join(
            || encode_all(&queries.texts, |text| encoder.query(tokenizer, text)),
            || encode_all(&passages.texts, |text| encoder.passage(tokenizer, text)),
        );

        let mut stats = ScoreStats { rows: queries.rows.len() as u64, ..ScoreStats::default() };
        let mut index_of = HashMap::new();
        let mut pairs: Vec<EncodedPair> = Vec::new();
        let rows = queries
            .rows
            .iter()
            .zip(&passages.rows)
            .map(|key| {
                let (Some(query), Some(passage)) = key else { return Row::Null };
                stats.pairs += 1;
                let (query_text, passage_text) =
                    (&encoded_queries[*query as usize], &encoded_passages[*passage as usize]);
                let (query_text, passage_text) = match (query_text, passage_text) {
                    (Ok(query_text), Ok(passage_text)) => (query_text, passage_text),
                    (Err(reason), _) => return failed("query", reason, &mut stats),
                    (_, Err(reason)) => return failed("passage", reason, &mut stats),
                };
                let index = *index_of.entry((*query, *passage)).or_insert_with(|| {
                    pairs.push(encoder.pair(query_text, passage_text));
                    pairs.len() as u32 - 1
                });
                stats.truncated += u64::from(pairs[index as usize].truncated);
                Row::Pair(index)
            })
            .collect();
        stats.duplicates = stats.pairs - stats.errors - pairs.len() as u64;
        stats.tokenize_time = start.elapsed();
        Self { rows, pairs, stats }
    }

    /// One row for each pair, without repeats.
    #[cfg(test)]
    pub(crate) fn of_pairs(pairs: Vec<EncodedPair>) -> Self {
        let rows = (0..pairs.len() as u32).map(Row::Pair).collect();
        Self { rows, pairs, stats: ScoreStats::default() }
    }

    /// Tokens of each row; `None` for a row that is not run.
    pub(crate) fn row_lengths(&self) -> Vec<Option<u32>> {
        let length = |row: &Row| match row {
            Row::Pair(index) => Some(self.pairs[*index as usize].ids.len() as u32),
            Row::Null | Row::Failed(_) => None,
        };
        self.rows.iter().map(length).collect()
    }

    /// Tokens of each distinct pair.
    pub(crate) fn lengths(&self) -> Vec<u32> {
        self.pairs.iter().map(|pair| pair.ids.len() as u32).collect()
    }
}

fn failed(argument: &str, reason: &Untokenizable, stats: &mut ScoreStats) -> Row {
    stats.errors += 1;
    Row::Failed(format!("{argument} {reason}").into())
}

fn encode_all(
    texts: &[&str],
    encode: impl Fn(&str) -> Result<EncodedText, Untokenizable> + Sync,
) -> Vec<Result<EncodedText, Untokenizable>> {
    texts.par_iter().map(|text| encode(text)).collect()
}

/// The distinct texts of a column in order of appearance, and the text of each row.
struct Distinct<'a> {
    texts: Vec<&'a str>,
    rows: Vec<Option<u32>>,
}

impl<'a> Distinct<'a> {
    fn new(column: &[Option<&'a str>]) -> Self {
        let mut index_of: HashMap<&str, u32> = HashMap::new();
        let mut texts = Vec::new();
        let rows = column
            .iter()
            .map(|text| {
                text.map(|text| {
                    *index_of.entry(text).or_insert_with(|| {
                        texts.push(text);
                        texts.len() as u32 - 1
                    })
                })
            })
            .collect();
        Self { texts, rows }
    }
}

type OnDone = Box<dyn FnOnce(Result<WindowScores>) + Send>;

/// A window in flight: the workers have its batches, and its scores are collected here.
pub(crate) struct Window {
    encoded: Encoded,
    columns: usize,
    cancel: Cancel,
    batches_left: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    scores: Vec<f32>,
    stats: ScoreStats,
    /// Pairs that did not fit into the device's memory even alone.
    too_large: HashSet<u32>,
    failure: Option<Error>,
    on_done: Option<OnDone>,
}

impl Window {
    /// `on_done` is called once, by the thread that finishes the window's last batch. If the workers are gone, it is
    /// dropped instead.
    pub(crate) fn new(encoded: Encoded, columns: usize, batches: usize, cancel: Cancel, on_done: OnDone) -> Self {
        let state = State {
            scores: vec![f32::NAN; encoded.pairs.len() * columns],
            stats: encoded.stats,
            too_large: HashSet::new(),
            failure: None,
            on_done: Some(on_done),
        };
        Self { encoded, columns, cancel, batches_left: AtomicUsize::new(batches), state: Mutex::new(state) }
    }

    /// Whether a batch of this window is still worth running.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.cancel.is_cancelled() && self.lock().failure.is_none()
    }

    pub(crate) fn pairs<'a>(&'a self, batch: &'a Batch) -> impl ExactSizeIterator<Item = &'a EncodedPair> {
        batch.members.iter().map(|&member| &self.encoded.pairs[member as usize])
    }

    /// Tokens of a pair.
    pub(crate) fn tokens(&self, pair: u32) -> usize {
        self.encoded.pairs[pair as usize].ids.len()
    }

    /// The cost of the parts of a batch that ran for `device_time`.
    pub(crate) fn cost(&self, ran: &[Ran], device_time: Duration) -> ScoreStats {
        let mut cost = ScoreStats { device_time, ..ScoreStats::default() };
        for Ran { batch, .. } in ran.iter().filter(|ran| ran.logits.is_some()) {
            let tokens: usize = batch.members.iter().map(|&member| self.tokens(member)).sum();
            cost.batches += 1;
            cost.tokens += tokens as u64;
            cost.padding_tokens += (batch.tokens() - tokens) as u64;
        }
        cost
    }

    /// Records the outcome of a batch: the parts in which it ran and their cost, or the failure; `None` if it was
    /// dropped.
    pub(crate) fn finish_batch(&self, outcome: Option<Result<(Vec<Ran>, ScoreStats)>>) {
        {
            let mut state = self.lock();
            match outcome {
                Some(Ok((ran, cost))) => {
                    state.stats += cost;
                    for Ran { batch, logits } in ran {
                        match logits {
                            Some(logits) => self.take_logits(&mut state, &batch, &logits),
                            None => state.too_large.extend(batch.members),
                        }
                    }
                }
                Some(Err(error)) => drop(state.failure.get_or_insert(error)),
                None => {}
            }
        }
        if self.batches_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete();
        }
    }

    fn take_logits(&self, state: &mut State, batch: &Batch, logits: &[f32]) {
        for (&member, logits) in batch.members.iter().zip(logits.chunks_exact(self.columns)) {
            let start = member as usize * self.columns;
            state.scores[start..start + self.columns].copy_from_slice(logits);
        }
    }

    /// Hands the result to the caller. Called after the last batch, or at once for a window without batches.
    pub(crate) fn complete(&self) {
        let mut state = self.lock();
        let Some(on_done) = state.on_done.take() else { return };
        let result = match state.failure.take() {
            Some(error) => Err(error),
            None => Ok(self.scores(&mut state)),
        };
        drop(state);
        on_done(result);
    }

    fn scores(&self, state: &mut State) -> WindowScores {
        let rows = self
            .encoded
            .rows
            .iter()
            .map(|row| match row {
                Row::Null => RowScore::Null,
                Row::Failed(reason) => RowScore::Failed(Arc::clone(reason)),
                Row::Pair(index) if state.too_large.contains(index) => {
                    state.stats.errors += 1;
                    let tokens = self.tokens(*index);
                    RowScore::Failed(format!("the pair's {tokens} tokens do not fit into the device's memory").into())
                }
                Row::Pair(index) => {
                    let pair = &self.encoded.pairs[*index as usize];
                    RowScore::Pair {
                        index: *index,
                        query_tokens: pair.query_tokens,
                        passage_tokens: pair.passage_tokens,
                        truncated: pair.truncated,
                    }
                }
            })
            .collect();
        WindowScores { rows, columns: self.columns, logits: std::mem::take(&mut state.scores), stats: state.stats }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowScore {
    Null,
    Failed(Arc<str>),
    /// Its logits are `logits[index * columns..][..columns]`.
    Pair {
        index: u32,
        query_tokens: u32,
        passage_tokens: u32,
        truncated: bool,
    },
}

/// The raw logits of a window, by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WindowScores {
    pub(crate) rows: Vec<RowScore>,
    pub(crate) columns: usize,
    pub(crate) logits: Vec<f32>,
    pub(crate) stats: ScoreStats,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(tokens: usize) -> EncodedPair {
        EncodedPair {
            ids: vec![1; tokens].into(),
            query_tokens: 1,
            passage_tokens: 2,
            head_tokens: 0,
            tail_tokens: 0,
            truncated: false,
        }
    }

    #[test]
    fn rows_have_the_length_of_their_pair() {
        let rows = vec![Row::Pair(1), Row::Null, Row::Failed("odd".into()), Row::Pair(0), Row::Pair(1)];
        let encoded = Encoded { rows, pairs: vec![pair(4), pair(9)], stats: ScoreStats::default() };
        assert_eq!(encoded.row_lengths(), [Some(9), None, None, Some(4), Some(9)]);
    }

    #[test]
    fn a_batch_may_come_in_parts_and_pairs_may_not_fit() {
        let rows = vec![Row::Pair(0), Row::Null, Row::Pair(1), Row::Pair(2), Row::Pair(1)];
        let encoded = Encoded { rows, pairs: vec![pair(4), pair(9), pair(3)], stats: ScoreStats::default() };
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Box::new(move |result| sender.send(result).unwrap());
        let window = Window::new(encoded, 1, 1, Cancel::default(), done);
        let ran = |members: Vec<u32>, padded_tokens, logits| Ran { batch: Batch { members, padded_tokens }, logits };
        let parts = vec![ran(vec![1], 9, None), ran(vec![0, 2], 4, Some(vec![0.5, -0.5]))];
        let cost = window.cost(&parts, Duration::from_secs(2));
        window.finish_batch(Some(Ok((parts, cost))));

        let scores = receiver.recv().unwrap().unwrap();
        let failed: Vec<bool> = scores.rows.iter().map(|row| matches!(row, RowScore::Failed(_))).collect();
        assert_eq!(failed, [false, false, true, false, true]);
        assert_eq!((scores.logits[0], scores.logits[2]), (0.5, -0.5));
        let stats = scores.stats;
        assert_eq!((stats.errors, stats.batches, stats.tokens, stats.padding_tokens), (2, 1, 7, 1));
        assert_eq!(stats.device_time, Duration::from_secs(2));
    }
}
