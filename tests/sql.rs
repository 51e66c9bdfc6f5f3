//! The SQL functions: every script of `tests/slt`, golden scores through SQL, runtimes.

use std::path::Path;

use arrow::array::{AsArray, Float32Array, RecordBatch};
use arrow::compute::concat_batches;
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use datafusion::prelude::SessionContext;
use datafusion_rerank::{RerankConfig, RerankFunctions};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

use crate::support::scripts::{Database, Output, rows, run_all, text};
use crate::support::{MODEL, copy, goldens, models, session, tiny_m3};

/// The golden scores come from another runtime on another machine.
const TOLERANCE: f64 = 1e-4;

/// Decimals of scores in scripts.
const DECIMALS: usize = 4;

struct Session(SessionContext);

#[async_trait]
impl Database for Session {
    async fn run(&mut self, sql: &str) -> Result<Output, DataFusionError> {
        let frame = self.0.sql(sql).await?;
        let columns = frame.schema().fields().len();
        let batches = frame.collect().await?;
        Ok(if columns == 0 { Output::Done } else { Output::Rows { columns, rows: rows(&batches, DECIMALS) } })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts() {
    run_all("", async || Session(session(models()))).await;
}

async fn query(ctx: &SessionContext, sql: &str) -> RecordBatch {
    let frame = ctx.sql(sql).await.unwrap();
    let schema = std::sync::Arc::clone(frame.schema().inner());
    concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
}

fn assert_scores(actual: &Float32Array, expected: &[f64], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (row, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let actual = f64::from(actual.unwrap());
        assert!((actual - expected).abs() < TOLERANCE, "{what}, pair {row}: {actual}, expected {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_scores_in_every_layout() {
    let ctx = session(models());
    for layout in ["Utf8", "LargeUtf8", "Utf8View", "Dictionary(Int32, Utf8)", "Dictionary(UInt16, LargeUtf8)"] {
        for case in goldens().cases {
            let sql = format!(
                "SELECT rerank(arrow_cast(query, '{layout}'), arrow_cast(passage, '{layout}'), 'm3', '{}') AS score
                 FROM pairs ORDER BY id",
                case.options
            );
            let scores = query(&ctx, &sql).await;
            assert_scores(scores.column(0).as_primitive(), &case.scores, &format!("{} of {layout}", case.name));
        }
    }
}

#[tokio::test]
async fn windows_smaller_than_a_batch_give_the_same_scores() {
    let ctx = session(models());
    ctx.sql("SET rerank.window_rows = 7").await.unwrap();
    for function in ["rerank", "rerank_sync"] {
        let scores = query(&ctx, &format!("SELECT {function}(query, passage) AS score FROM pairs ORDER BY id")).await;
        assert_scores(scores.column(0).as_primitive(), &goldens().cases[0].scores, function);
    }
}

#[tokio::test]
async fn functions_need_no_settings_in_the_session() {
    let ctx = SessionContext::new();
    for udf in RerankFunctions::new(models()).udfs() {
        ctx.register_udf(udf);
    }
    let scores = query(&ctx, "SELECT rerank('what is panda?', 'hi') AS score").await;
    assert_scores(scores.column(0).as_primitive(), &goldens().cases[0].scores[..1], "rerank");
    let error = query_error(&ctx, "SELECT rerank('a', 'b', 'm3', {'cutoff_layers': 8})").await;
    assert!(error.contains("option cutoff_layers: m3 models do not have it"), "{error}");
}

#[tokio::test]
async fn a_session_handed_to_others_stays_locked() {
    let ctx = session(models());
    let location = tiny_m3().display().to_string();
    let sql = format!("SELECT rerank('a', 'b', '{location}')");
    assert_eq!(query(&ctx, &sql).await.num_rows(), 1);
    let mut settings = RerankConfig::default();
    settings.models.insert("mine".to_owned(), location);
    settings.allow_locations = false;
    ctx.state_ref().write().config_mut().options_mut().extensions.insert(settings);
    assert!(
        query_error(&ctx, &sql)
            .await
            .contains("rerank.allow_locations is false in this session; use one of gemma, gemma2, m3, mine, minicpm")
    );
    assert_eq!(query(&ctx, "SELECT rerank('a', 'b', 'mine'), rerank('a', 'b')").await.num_rows(), 1);
}

async fn query_error(ctx: &SessionContext, sql: &str) -> String {
    match ctx.sql(sql).await {
        Err(error) => error.to_string(),
        Ok(frame) => frame.collect().await.unwrap_err().to_string(),
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_scored_fails_rerank_and_is_a_value_of_rerank_details() {
    let checkpoint = tempfile::tempdir().unwrap();
    copy(MODEL, checkpoint.path());
    not_a_number(&checkpoint.path().join("model.safetensors"), "classifier.out_proj.bias");
    let models = models();
    models.register("overflowing", checkpoint.path());
    let ctx = session(models);
    let error = query_error(&ctx, "SELECT rerank(query, passage, 'overflowing') FROM pairs").await;
    assert!(
        error.contains("a pair cannot be scored: the score is not a number")
            && error.contains("rerank_details(..)['error'] is the reason as a value"),
        "{error}"
    );
    let details = query(
        &ctx,
        "SELECT count(*) FROM (SELECT rerank_details(query, passage, 'overflowing') AS d FROM pairs)
         WHERE d['score'] IS NULL AND d['error'] LIKE 'the score is not a number%'",
    )
    .await;
    assert_eq!(text(details.column(0), 0, DECIMALS), goldens().pairs.len().to_string());
}

/// Overwrites a tensor of a safetensors file with NaN.
fn not_a_number(file: &Path, tensor: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let [start, end] = [0, 1].map(|i| header[tensor]["data_offsets"][i].as_u64().unwrap() as usize + 8 + header_bytes);
    for number in bytes[start..end].chunks_exact_mut(4) {
        number.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    std::fs::write(file, bytes).unwrap();
}

/// Calls a synchronous function like a host behind a foreign function interface: constants are passed as arrays.
fn invoke(udf: &ScalarUDF, rows: usize, texts: &[&str]) -> Result<Float32Array, DataFusionError> {
    let arrays = texts.iter().map(|text| ScalarValue::from(*text).to_array_of_size(rows).unwrap());
    invoke_arrays(udf, rows, arrays.collect())
}

fn invoke_arrays(
    udf: &ScalarUDF,
    rows: usize,
    arrays: Vec<arrow::array::ArrayRef>,
) -> Result<Float32Array, DataFusionError> {
    let fields: Vec<_> = arrays
        .iter()
        .map(|array| std::sync::Arc::new(arrow::datatypes::Field::new("", array.data_type().clone(), true)))
        .collect();
    let values = vec![None; fields.len()];
    let return_field =
        udf.return_field_from_args(ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &values })?;
    let result = udf.invoke_with_args(ScalarFunctionArgs {
        args: arrays.into_iter().map(ColumnarValue::Array).collect(),
        arg_fields: fields,
        number_rows: rows,
        return_field,
        config_options: std::sync::Arc::default(),
    })?;
    Ok(result.into_array(rows)?.as_primitive().clone())
}

#[test]
fn synchronous_functions_run_on_any_runtime_and_on_none() {
    let udfs = RerankFunctions::new(models()).sync_udfs();
    let udf = udfs.iter().find(|udf| udf.name() == "rerank_sync").unwrap();
    let score = || {
        let scores = invoke(udf, 3, &["what is panda?", "hi", "m3", r#"{"normalize": true}"#]).unwrap();
        let golden = goldens().cases.into_iter().find(|case| case.name == "normalize").unwrap().scores[0];
        assert_scores(&scores, &[golden; 3], "rerank_sync");
    };
    score();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async { score() });
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    many.block_on(async { score() });
    std::thread::scope(|scope| scope.spawn(|| many.block_on(async { score() })).join().unwrap());
}

/// Plans and runs a query with an asynchronous and a synchronous call.
async fn query_both() {
    let ctx = session(models());
    let sql = "SELECT rerank('what is panda?', 'hi'), rerank_sync('what is panda?', passage) FROM pairs WHERE id = 0";
    let scores = query(&ctx, sql).await;
    assert_eq!(scores.num_rows(), 1);
    assert_scores(scores.column(0).as_primitive(), &goldens().cases[0].scores[..1], "rerank");
}

#[test]
fn queries_are_planned_and_run_within_local_sets() {
    let runtimes = [Builder::new_current_thread().build(), Builder::new_multi_thread().worker_threads(2).build()];
    for runtime in runtimes {
        let runtime = runtime.unwrap();
        runtime.block_on(query_both());
        runtime.block_on(async { tokio::spawn(query_both()).await.unwrap() });
        let local = LocalSet::new();
        runtime.block_on(local.run_until(query_both()));
        runtime.block_on(local.run_until(async { spawn_local(query_both()).await.unwrap() }));
        // On a thread of its own, as in an actor.
        let handle = runtime.handle().clone();
        let alone = std::thread::spawn(move || {
            let local = LocalSet::new();
            handle.block_on(local.run_until(async { spawn_local(query_both()).await.unwrap() }));
        });
        // A current-thread runtime only makes progress while something blocks on it.
        runtime.block_on(async {
            while !alone.is_finished() {
                tokio::task::yield_now().await;
            }
        });
        alone.join().unwrap();
    }
}

#[test]
fn synchronous_functions_refuse_constants_that_vary() {
    let udfs = RerankFunctions::new(models()).sync_udfs();
    let udf = udfs.iter().find(|udf| udf.name() == "rerank_sync").unwrap();
    let column = |texts: [&str; 2]| std::sync::Arc::new(arrow::array::StringArray::from(texts.to_vec())) as _;
    let error = invoke_arrays(udf, 2, vec![column(["a", "b"]), column(["c", "d"]), column(["m3", "m4"])]).unwrap_err();
    assert!(error.to_string().contains("rerank_sync: model is a column, but must be the same for all rows"), "{error}");
    assert!(invoke(udf, 0, &["a", "b", "m3"]).unwrap().is_empty());
}
