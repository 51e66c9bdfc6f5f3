//! Ranking quality of the bundled model `udfs/models/tiny`, on lists of real passages that it was not trained on.
//!
//! `tests/fixtures/ranking.parquet` has 100 questions in English and in Chinese, each with 20 passages, one of which is
//! its own. The measure is the mean reciprocal rank of that passage, compared with BM25 over the same 20 passages, and
//! with chance.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use datafusion_rerank::{EngineOptions, Precision, Reranker, ScoreOptions};

use crate::support::tables::decode;
use crate::support::{fixture, spearman};

/// The least that the model must reach in each language: slightly below its result after training.
const FLOORS: [(&str, f64); 2] = [("en", 0.93), ("zh", 0.93)];

const CANDIDATES: usize = 20;

/// Lists per language, out of 100: a debug build is slow.
const LISTS: usize = 50;

/// Every clone of the repository includes the model.
const MAX_MODEL_BYTES: u64 = 8 << 20;

fn tiny() -> PathBuf {
    datafusion_rerank::allow_onnxruntime_search();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("udfs/models/tiny")
}

/// The sum of reciprocal ranks, and their count.
#[derive(Default)]
struct MeanReciprocalRank {
    sum: f64,
    lists: u32,
}

impl MeanReciprocalRank {
    /// Ties count against the ranking.
    fn add(&mut self, scores: &[f64], relevant: usize) {
        let rank = scores.iter().filter(|&&score| score >= scores[relevant]).count();
        self.sum += 1.0 / rank as f64;
        self.lists += 1;
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.lists)
    }
}

/// BM25 with the usual constants, over the passages of one list.
fn bm25(terms: fn(&str) -> Vec<String>, query: &str, passages: &[&str]) -> Vec<f64> {
    const K1: f64 = 1.2;
    const B: f64 = 0.75;
    let passages: Vec<Vec<String>> = passages.iter().map(|passage| terms(passage)).collect();
    let count = passages.len() as f64;
    let average = passages.iter().map(Vec::len).sum::<usize>() as f64 / count;
    let mut holding: HashMap<&str, f64> = HashMap::new();
    for passage in &passages {
        for term in passage.iter().map(String::as_str).collect::<HashSet<_>>() {
            *holding.entry(term).or_default() += 1.0;
        }
    }
    let query = terms(query);
    let score = |passage: &Vec<String>| {
        let norm = K1 * (1.0 - B + B * passage.len() as f64 / average);
        let of_term = |term: &String| {
            let frequency = passage.iter().filter(|&other| other == term).count() as f64;
            let holding = holding.get(term.as_str()).copied().unwrap_or_default();
            let rarity = (1.0 + (count - holding + 0.5) / (holding + 0.5)).ln();
            rarity * frequency * (K1 + 1.0) / (frequency + norm)
        };
        query.iter().map(of_term).sum()
    };
    passages.iter().map(score).collect()
}

fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn bigrams(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    characters.windows(2).map(|pair| pair.iter().collect()).collect()
}

/// The mean reciprocal ranks of a language's lists: the model's, and BM25's.
fn ranks(table: &RecordBatch, language: &str, scores: &[f32]) -> (MeanReciprocalRank, MeanReciprocalRank) {
    let text = |name: &str| table.column_by_name(name).unwrap().as_string::<i32>();
    let (languages, questions, queries, passages) = (text("lang"), text("question"), text("query"), text("passage"));
    let relevant = table.column_by_name("relevant").unwrap().as_boolean();
    let terms = if language == "zh" { bigrams } else { words };
    let (mut model, mut baseline) = (MeanReciprocalRank::default(), MeanReciprocalRank::default());
    for first in (0..table.num_rows()).step_by(CANDIDATES).filter(|&first| languages.value(first) == language) {
        let list = first..first + CANDIDATES;
        assert!(list.clone().all(|row| questions.value(row) == questions.value(first)), "a list at row {first}");
        let own = list.clone().position(|row| relevant.value(row)).unwrap();
        let scores: Vec<f64> = scores[list.clone()].iter().copied().map(f64::from).collect();
        model.add(&scores, own);
        let passages: Vec<&str> = list.map(|row| passages.value(row)).collect();
        baseline.add(&bm25(terms, queries.value(first), &passages), own);
    }
    (model, baseline)
}

#[test]
fn the_bundled_model_ranks() {
    let table = decode(std::fs::read(fixture("ranking.parquet")).unwrap().into()).unwrap();
    let reranker = Reranker::open(tiny(), &EngineOptions::default()).unwrap();
    let chance = (1..=CANDIDATES).map(|rank| 1.0 / rank as f64).sum::<f64>() / CANDIDATES as f64;
    println!("MRR of {CANDIDATES}   udfs/models/tiny   BM25    random");
    for (language, floor) in FLOORS {
        let first = table.column_by_name("lang").unwrap().as_string::<i32>().iter().position(|l| l == Some(language));
        let table = table.slice(first.unwrap(), LISTS * CANDIDATES);
        let column = |name: &str| table.column_by_name(name).unwrap();
        let scores = reranker.score(column("query"), column("passage")).unwrap();
        let (model, baseline) = ranks(&table, language, scores.values());
        println!("{language}          {:.3}         {:.3}   {chance:.3}", model.mean(), baseline.mean());
        assert_eq!(model.lists as usize, LISTS);
        assert!(model.mean() >= floor, "{language}: {:.3}, at least {floor} is expected", model.mean());
        // Checks the lists themselves: if words did not find the passages, the model's figure would be meaningless.
        assert!(baseline.mean() > 0.9, "{language}: BM25 reaches {:.3}", baseline.mean());
    }
}

#[test]
fn int8_ranks_alike() {
    let table = decode(std::fs::read(fixture("ranking.parquet")).unwrap().into()).unwrap();
    // Half of them English, half Chinese.
    let table = table.slice(table.num_rows() / 2 - LISTS * CANDIDATES / 2, LISTS * CANDIDATES);
    let column = |name: &str| table.column_by_name(name).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut engine = EngineOptions::default();
    engine.cache = Some(cache.path().to_owned());
    let scores = |precision| {
        let mut options = ScoreOptions::default();
        options.precision = Some(precision);
        let reranker = Reranker::open(tiny(), &engine).unwrap().with_options(&options).unwrap();
        reranker.score(column("query"), column("passage")).unwrap().values().to_vec()
    };
    let [exact, quantized] = [Precision::Fp32, Precision::Int8].map(scores);
    let correlation = spearman(&exact, &quantized);
    println!("rank correlation of int8 with fp32 over {} pairs: {correlation:.4}", exact.len());
    assert!(exact != quantized && correlation >= 0.99, "{correlation}");
}

#[test]
fn the_bundled_model_is_small() {
    let sizes = std::fs::read_dir(tiny()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let bytes: u64 = sizes.sum();
    assert!(bytes <= MAX_MODEL_BYTES, "udfs/models/tiny has {bytes} bytes, at most {MAX_MODEL_BYTES} are wanted");
}
