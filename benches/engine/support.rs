//! The bundled table, medians and memory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The bundled table of real questions and passages.
pub(crate) fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/xquad.parquet")
}

/// `rows` rows of the bundled table in its order. From the second repetition on, queries are marked so that no pair
/// repeats.
pub(crate) fn table(rows: usize) -> anyhow::Result<(StringArray, StringArray)> {
    let file = std::fs::File::open(table_path()).context("opening the bundled table")?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
    let table = concat_batches(batches[0].schema_ref(), &batches)?;
    let column = |name: &str| -> anyhow::Result<ArrayRef> {
        Ok(cast(table.column_by_name(name).context("the table has the column")?, &DataType::Utf8)?)
    };
    let (queries, passages) = (column("query")?, column("passage")?);
    let (queries, passages) = (queries.as_string::<i32>(), passages.as_string::<i32>());
    let size = queries.len();
    let query = |row: usize| match row / size {
        0 => queries.value(row).to_owned(),
        round => format!("{} {round}", queries.value(row % size)),
    };
    Ok((
        StringArray::from_iter_values((0..rows).map(query)),
        StringArray::from_iter_values((0..rows).map(|row| passages.value(row % size))),
    ))
}

/// Runs each of `contestants` once in turn, `repeats` times, and returns the median seconds of each.
pub(crate) fn alternate(
    repeats: usize,
    contestants: &mut [&mut dyn FnMut() -> anyhow::Result<()>],
) -> anyhow::Result<Vec<f64>> {
    let mut seconds = vec![Vec::new(); contestants.len()];
    for _ in 0..repeats {
        for (contestant, seconds) in contestants.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            contestant()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds.into_iter().map(median).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Peak resident memory of this process in MiB, from the kernel.
pub(crate) fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
