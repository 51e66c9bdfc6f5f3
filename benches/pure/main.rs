//! Benchmarks of the parts that run no model: `cargo bench --package datafusion-rerank --no-default-features --bench
//! pure`.
//!
//! They use the bundled table and checkpoints through the public API. Code that is private to its crate and depends on
//! nothing else in it is compiled into this binary.

#![expect(clippy::expect_used, reason = "a bench that cannot begin has nobody to tell")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use criterion::{BatchSize, Criterion, Throughput};
use datafusion_rerank::{DEFAULT_WINDOW_ROWS, EngineOptions, Reranker};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

#[path = "../../udfs/src/engine/batch.rs"]
#[expect(dead_code, unused_imports, reason = "only the cut is measured, and a bench is built like a test")]
mod batch;

#[path = "../../src/files/group.rs"]
mod group;

mod files {
    pub(crate) use crate::group::Group;
}

#[path = "../../src/job/unit.rs"]
#[expect(dead_code, reason = "only the cut is measured, and a bench is built like a test")]
mod unit;

/// A device batch on a CPU of eight threads.
const BATCH_TOKENS: usize = 4096;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    cut_batches(&mut criterion);
    cut_units(&mut criterion);
    encode_pairs(&mut criterion);
    find_repeats(&mut criterion);
    build_graphs(&mut criterion);
    criterion.final_summary();
}

/// A window with lengths between 16 and 512, spread like a low-discrepancy sequence.
fn cut_batches(criterion: &mut Criterion) {
    let lengths: Vec<u32> =
        (0..DEFAULT_WINDOW_ROWS as u32).map(|row| 16 + row.wrapping_mul(2_654_435_769) % 497).collect();
    let mut group = criterion.benchmark_group("cut a window into batches");
    group.throughput(Throughput::Elements(lengths.len() as u64));
    group.bench_function("8192 pairs", |bencher| bencher.iter(|| batch::cut(&lengths, BATCH_TOKENS)));
    group.finish();
}

/// A file of a billion rows in row groups of 131,072.
fn cut_units(criterion: &mut Criterion) {
    let groups = vec![files::Group { rows: 131_072, bytes: 64 << 20 }; 7630];
    let mut group = criterion.benchmark_group("cut a file into units");
    group.throughput(Throughput::Elements(groups.len() as u64));
    group.bench_function("7630 row groups", |bencher| bencher.iter(|| unit::cut(0, &groups, 1_000_000, true)));
    group.finish();
}

/// Tokenizes every distinct text once, joins pairs and divides them into batches.
fn encode_pairs(criterion: &mut Criterion) {
    let (queries, passages) = table();
    let mut group = criterion.benchmark_group("encode pairs of the bundled table");
    group.throughput(Throughput::Elements(queries.len() as u64));
    for family in ["xlmr", "gemma", "minicpm-layerwise", "gemma2-lightweight"] {
        let reranker = open(family);
        group.bench_function(family, |bencher| {
            bencher.iter(|| reranker.token_counts(&queries, &passages).expect("the columns are text"));
        });
    }
    group.finish();
}

/// A window of eight short pairs, repeated: the remaining work is finding the repeats.
fn find_repeats(criterion: &mut Criterion) {
    let texts = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..DEFAULT_WINDOW_ROWS).map(|row| format!("{name} {}", row % 8))))
    };
    let (queries, passages) = (texts("query"), texts("passage"));
    let reranker = open("xlmr");
    let mut group = criterion.benchmark_group("find the distinct pairs of a window");
    group.throughput(Throughput::Elements(queries.len() as u64));
    group.bench_function("8192 rows, 8 distinct", |bencher| {
        bencher.iter(|| reranker.token_counts(&queries, &passages).expect("the columns are text"));
    });
    group.finish();
}

/// Opens a checkpoint, then builds and writes its graph with its few weights.
fn build_graphs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build and write the graph");
    for family in ["xlmr", "gemma", "minicpm-layerwise", "gemma2-lightweight"] {
        let reranker = open(family);
        group.bench_function(family, |bencher| {
            bencher.iter_batched(
                || tempfile::tempdir().expect("a temporary directory can be made"),
                |folder| {
                    reranker.model().export(folder.path()).expect("the bundled checkpoint can be exported");
                    folder
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    criterion.bench_function("open a checkpoint", |bencher| bencher.iter(|| open("xlmr")));
}

fn open(family: &str) -> Reranker {
    let folder = fixtures().join(format!("tiny-{family}-reranker"));
    Reranker::open(folder, &EngineOptions::default()).expect("the bundled checkpoint opens")
}

/// Queries and passages of the bundled table.
fn table() -> (ArrayRef, ArrayRef) {
    let file = std::fs::File::open(fixtures().join("xquad.parquet")).expect("the table is bundled");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
    let batches: Vec<_> = reader.expect("it is Parquet").collect::<Result<_, _>>().expect("it is whole");
    let table = concat_batches(batches[0].schema_ref(), &batches).expect("batches of a file have one schema");
    let column =
        |name| cast(table.column_by_name(name).expect("the table has it"), &DataType::Utf8).expect("it is text");
    (column("query"), column("passage"))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}
