//! Queries with the operator, and with the functions alone, as DataFusion runs any asynchronous function: pairs that
//! the device scored, and seconds. Also how soon the operator gives the first rows of Parquet, and how busy it keeps the
//! device.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_rerank::{EngineOptions, ModelRegistry, RerankFunctions, Reranker, plan_stats};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;

use crate::support::table;

/// One row in ten has `cheap` 0. `r` stands for `rerank(query, passage)`, `t` for `rerank(passage, query)`.
const QUERIES: &[(&str, &str)] = &[
    ("score every row", "SELECT id, {r} FROM t"),
    ("cheap condition and score", "SELECT id FROM t WHERE {r} > 0 AND cheap = 0"),
    ("filter and select the score", "SELECT id, {r} FROM t WHERE {r} > 0"),
    ("filter a subquery's score", "SELECT id, s FROM (SELECT *, {r} AS s FROM t) WHERE s > 0 AND cheap = 0"),
    ("two scores, both filtered", "SELECT id FROM t WHERE {r} > 0 AND {t} > 0"),
    ("CASE", "SELECT id, CASE WHEN cheap = 0 THEN {r} END FROM t"),
    ("OR", "SELECT id FROM t WHERE cheap > 0 OR {r} > 0"),
    ("best ten", "SELECT id FROM t ORDER BY {r} DESC LIMIT 10"),
    (
        "best of each query",
        "SELECT id, s FROM (SELECT id, {r} AS s, row_number() OVER (PARTITION BY query ORDER BY {r} DESC) AS n FROM t) WHERE n = 1",
    ),
    ("two aggregates", "SELECT max({r}), max({t}) FROM t"),
];

pub(crate) fn run(checkpoint: &Path, rows: usize) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pairs.parquet");
    write_table(&file, rows)?;
    runtime.block_on(async {
        let reranker = models(checkpoint).open("m3", &EngineOptions::default())?;
        reranker.load()?;
        let operator = session(&file).await?;
        RerankFunctions::new(models(checkpoint)).register(&operator)?;
        let plain = session(&file).await?;
        for udf in RerankFunctions::new(models(checkpoint)).udfs() {
            plain.register_udf(udf);
        }
        pace(&operator, rows).await?;
        explain(&operator).await?;
        println!("query\tfunction alone: pairs\tseconds\toperator: pairs\tseconds\ttimes faster");
        for (name, sql) in QUERIES {
            let sql = sql.replace("{r}", "rerank(query, passage)").replace("{t}", "rerank(passage, query)");
            let before = measure(&plain, &reranker, &sql).await;
            let after = measure(&operator, &reranker, &sql).await?;
            match before {
                Ok(before) if is_same(&before.result, &after.result) => println!(
                    "{name}\t{}\t{:.2}\t{}\t{:.2}\t{:.1}",
                    before.pairs,
                    before.seconds,
                    after.pairs,
                    after.seconds,
                    before.seconds / after.seconds
                ),
                Ok(_) => println!("{name}\twrong result\t\t{}\t{:.2}\t", after.pairs, after.seconds),
                Err(_) => println!("{name}\tfails\t\t{}\t{:.2}\t", after.pairs, after.seconds),
            }
        }
        Ok(())
    })
}

fn models(checkpoint: &Path) -> ModelRegistry {
    let models = ModelRegistry::default();
    models.register("m3", checkpoint);
    models
}

/// One partition, so that both sides read and score in one stream.
async fn session(file: &Path) -> Result<SessionContext> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let file = file.to_str().context("the temporary directory has a readable name")?;
    ctx.register_parquet("t", file, ParquetReadOptions::default()).await?;
    Ok(ctx)
}

struct Measured {
    pairs: u64,
    seconds: f64,
    /// The cells of the rows as text, rows in order.
    result: Vec<Vec<String>>,
}

/// Whether two results are equal except for the rounding of scores, which depends on the rows scored together.
fn is_same(one: &[Vec<String>], other: &[Vec<String>]) -> bool {
    let is_same_cell = |(one, other): (&String, &String)| match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => (one - other).abs() < 1e-4,
        _ => one == other,
    };
    let is_same_row = |(one, other): (&Vec<String>, &Vec<String>)| one.iter().zip(other).all(is_same_cell);
    one.len() == other.len() && one.iter().zip(other).all(is_same_row)
}

async fn measure(ctx: &SessionContext, reranker: &Reranker, sql: &str) -> Result<Measured> {
    let before = reranker.device_stats().pairs;
    let start = Instant::now();
    let batches = ctx.sql(sql).await?.collect().await?;
    let seconds = start.elapsed().as_secs_f64();
    let text = arrow::util::pretty::pretty_format_batches(&batches)?.to_string();
    // Column titles differ between the sessions: one computes a call in a lower operator, under another name.
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
    let mut result: Vec<Vec<String>> = text.lines().filter(|line| line.starts_with('|')).skip(1).map(cells).collect();
    result.sort();
    Ok(Measured { pairs: reranker.device_stats().pairs - before, seconds, result })
}

/// Runs of each pace, which alternate. Medians are compared.
const RUNS: usize = 3;

/// A run of the query that scores every row.
#[derive(Default)]
struct Run {
    /// Seconds to the first rows, and how many came then.
    first: f64,
    first_rows: usize,
    wall: f64,
    device: f64,
    batches: u64,
}

/// How soon the first rows come and how busy the device is, with windows that follow the stream and with full ones.
async fn pace(ctx: &SessionContext, rows: usize) -> Result<()> {
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (delay, runs) in ["50ms", "off"].into_iter().zip(&mut runs) {
            ctx.sql(&format!("SET rerank.max_delay = '{delay}'")).await?;
            runs.push(score_every_row(ctx).await?);
        }
    }
    ctx.sql("SET rerank.max_delay = default").await?;
    println!(
        "one partition from Parquet, {rows} rows\nwindows\tfirst rows\tafter\tdevice batches\tdevice busy\tseconds"
    );
    for (name, mut runs) in ["follow the stream", "are full"].into_iter().zip(runs) {
        runs.sort_by(|one, other| one.wall.total_cmp(&other.wall));
        let Run { first, first_rows, wall, device, batches } = runs.swap_remove(RUNS / 2);
        let in_batches = first / (device / batches as f64);
        println!("{name}\t{first_rows}\t{first:.2} s\t{in_batches:.1}\t{:.1} %\t{wall:.2}", 100.0 * device / wall);
    }
    println!();
    Ok(())
}

async fn score_every_row(ctx: &SessionContext) -> Result<Run> {
    let plan = ctx.sql("SELECT id, rerank(query, passage) FROM t").await?.create_physical_plan().await?;
    let start = Instant::now();
    let mut batches = execute_stream(Arc::clone(&plan), ctx.task_ctx())?;
    let first = batches.try_next().await?.map_or(0, |batch| batch.num_rows());
    let mut run = Run { first: start.elapsed().as_secs_f64(), first_rows: first, ..Run::default() };
    while batches.try_next().await?.is_some() {}
    run.wall = start.elapsed().as_secs_f64();
    let stats = plan_stats(&plan);
    (run.device, run.batches) = (stats.device_time.as_secs_f64(), stats.batches);
    Ok(run)
}

/// Prints the EXPLAIN ANALYZE of a query.
async fn explain(ctx: &SessionContext) -> Result<()> {
    let sql = "EXPLAIN ANALYZE SELECT id, rerank(query, passage) AS score FROM t
               WHERE cheap = 0 AND rerank(query, passage) > 0 ORDER BY score DESC LIMIT 10";
    for batch in ctx.sql(sql).await?.collect().await? {
        let plans = batch.column_by_name("plan").context("EXPLAIN has a column of plans")?;
        for plan in plans.as_string::<i32>().iter().flatten() {
            println!("{plan}");
        }
    }
    Ok(())
}

fn write_table(file: &Path, rows: usize) -> Result<()> {
    let (queries, passages) = table(rows)?;
    let ids = Int64Array::from_iter_values(0..rows as i64);
    let cheap = Int64Array::from_iter_values((0..rows as i64).map(|id| id % 10));
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("query", Arc::new(queries) as ArrayRef),
        ("passage", Arc::new(passages) as ArrayRef),
        ("cheap", Arc::new(cheap) as ArrayRef),
    ])?;
    let mut writer = ArrowWriter::try_new(std::fs::File::create(file)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
