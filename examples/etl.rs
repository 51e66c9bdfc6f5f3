//! Scores a stream of record batches inside an Arrow pipeline. See `etl.md`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::fs::File;
use std::path::Path;

use arrow::record_batch::RecordBatch;
use datafusion_rerank::{EngineOptions, PairColumns, Reranker};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The checkpoint used if none is given: the bundled demonstration.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/udfs/models/tiny");
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/xquad.parquet");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Examples run in the working tree, where `make onnxruntime` puts the library.
    datafusion_rerank::allow_onnxruntime_search();
    let checkpoint = std::env::args().nth(1).unwrap_or_else(|| TINY.to_owned());
    let reranker = Reranker::open(Path::new(&checkpoint), &EngineOptions::default())?;

    // Any stream of record batches: here a Parquet file; in your pipeline Flight, Kafka or another operator.
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(TABLE)?)?.with_batch_size(256).build()?;
    let scored = reranker.score_stream(stream::iter(reader), PairColumns::default(), "score");

    // The output is a stream again: here, rows below a score are dropped and the rest is written.
    let target = std::env::temp_dir().join("scored.parquet");
    let schema = reranker.scored_schema(&schema(TABLE)?, "score")?;
    let mut writer = ArrowWriter::try_new(File::create(&target)?, schema, None)?;
    let mut kept = scored.map(|batch| keep_above(&batch?, 0.0));
    let mut rows = 0;
    while let Some(batch) = kept.try_next().await? {
        rows += batch.num_rows();
        writer.write(&batch)?;
    }
    writer.close()?;
    println!("{rows} rows score above 0; they are in {}", target.display());
    std::fs::remove_file(target)?;
    Ok(())
}

fn schema(table: &str) -> Result<arrow::datatypes::Schema, Box<dyn std::error::Error>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(table)?)?;
    Ok(builder.schema().as_ref().clone())
}

fn keep_above(batch: &RecordBatch, least: f32) -> Result<RecordBatch, Box<dyn std::error::Error>> {
    let scores = batch.column_by_name("score").ok_or("the score column")?;
    let above = arrow::compute::kernels::cmp::gt(scores, &arrow::array::Float32Array::new_scalar(least))?;
    Ok(arrow::compute::filter_record_batch(batch, &above)?)
}
