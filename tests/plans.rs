//! How often what runs: the operator and the rules that place it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::Partitioning;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{collect, displayable, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_rerank::{EngineOptions, RerankFunctions, Reranker, WithRerank};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use crate::support::{metric, models, session};

/// The result of a query, its plan as text, and the pairs that the engine scored.
struct Run {
    rows: RecordBatch,
    plan: String,
    pairs: usize,
}

async fn run(ctx: &SessionContext, sql: &str) -> Run {
    let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let batches = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
    Run {
        rows: concat_batches(&plan.schema(), &batches).unwrap(),
        plan: displayable(plan.as_ref()).indent(false).to_string(),
        pairs: metric(&plan, "pairs"),
    }
}

fn text(run: &Run) -> String {
    pretty_format_batches(std::slice::from_ref(&run.rows)).unwrap().to_string()
}

/// A session with `big(id, query, passage, cheap)` of generated rows; `cheap` is 0 in 1 % of them.
async fn session_with_rows(rows: usize) -> SessionContext {
    let ctx = session(models());
    let sql = format!(
        "CREATE TABLE big AS SELECT value AS id, 'q' || (value % 3) AS query, 'p' || value AS passage, value % 100 AS cheap
         FROM generate_series(0, {})",
        rows - 1
    );
    ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    ctx
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rows_that_pass_the_cheap_conditions_are_scored() {
    let ctx = session_with_rows(100_000).await;
    let sql = "SELECT count(*) FROM big WHERE rerank(query, passage) > -100 AND cheap = 0";
    let run = run(&ctx, sql).await;
    assert_eq!(run.pairs, 1000, "{}", run.plan);
    assert!(text(&run).contains("| 1000 "), "{}", text(&run));
    assert!(!run.plan.contains("AsyncFuncExec"), "{}", run.plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rows_that_a_limit_keeps_are_scored() {
    let ctx = session_with_rows(100_000).await;
    let sql = "SELECT id, rerank(query, passage) AS s FROM big ORDER BY cheap, id DESC LIMIT 100";
    let best = run(&ctx, sql).await;
    assert_eq!((best.rows.num_rows(), best.pairs), (100, 100), "{}", best.plan);
    let ids = best.rows.column(0).as_primitive::<Int64Type>();
    assert!(ids.values().is_sorted_by(|one, next| one > next), "{ids:?}");
    let sql = "SELECT id, s FROM (
            SELECT id, rerank(query, passage) AS s, row_number() OVER (PARTITION BY query ORDER BY id) AS place FROM big
        ) WHERE place <= 10";
    let best = run(&ctx, sql).await;
    assert_eq!((best.rows.num_rows(), best.pairs), (30, 30), "{}", best.plan);
}

/// `n` calls in one condition or one list of conditions: the plan, and the time to make it, grow with `n` only.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_in_one_condition_are_planned_in_time() {
    const CALLS: usize = 200;
    let ctx = session_with_rows(3).await;
    let calls: Vec<String> = (0..CALLS).map(|n| format!("rerank(query, passage || '{n}') > 100")).collect();
    let branches: Vec<String> = calls.iter().enumerate().map(|(n, call)| format!("WHEN {call} THEN {n}")).collect();
    for sql in [
        format!("SELECT id FROM big WHERE {}", calls.join(" OR ")),
        format!("SELECT id FROM big WHERE {}", calls.join(" AND ")),
        format!("SELECT {} FROM big", calls.join(" AND ")),
        format!("SELECT CASE {} END FROM big", branches.join(" ")),
    ] {
        let start = Instant::now();
        let plan = ctx.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        // Seconds in a debug build; it was 2^200 before.
        assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
        let plan = displayable(plan.as_ref()).indent(false).to_string();
        assert!((1..=9).contains(&plan.matches("RerankExec").count()), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rule_a_call_is_refused() {
    let ctx = session_with_rows(3).await;
    ctx.sql("SET datafusion.optimizer.max_passes = 0").await.unwrap();
    let sql = "SELECT max(rerank(query, passage)), max(rerank(passage, query)) FROM big";
    let error = ctx.sql(sql).await.unwrap().collect().await.unwrap_err().to_string();
    assert!(
        error.contains("rerank has no place in the plan: the optimizer rule HoistRerankCalls did not run"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_column_may_be_called_as_ours() {
    let ctx = session_with_rows(3).await;
    let sql = "SELECT __rerank_1, __rerank_2, rerank(query, passage) AS s FROM
        (SELECT id AS __rerank_1, cheap AS __rerank_2, query, passage FROM big) WHERE rerank(query, passage) > -100";
    let run = run(&ctx, sql).await;
    assert_eq!((run.rows.num_rows(), run.pairs), (3, 3), "{}", run.plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_scored_once_while_its_score_is_kept() {
    let ctx = session_with_rows(1000).await;
    ctx.sql("SET rerank.window_rows = 16").await.unwrap();
    let sql = "SELECT rerank(query, 'p' || cheap) FROM big UNION ALL SELECT rerank(query, 'p' || cheap) FROM big";
    let scored = async |size: &str| {
        ctx.sql(&format!("SET rerank.score_cache = {size}")).await.unwrap();
        let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let batches = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2000);
        assert_eq!(metric(&plan, "duplicates"), 2000 - metric(&plan, "scored_pairs"));
        // The cache ends with the query.
        assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
        metric(&plan, "scored_pairs")
    };
    // 3 queries and 100 passages.
    assert_eq!(scored("'64M'").await, 300);
    assert_eq!(scored("0").await, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_early_leaves_the_rest_unscored() {
    let ctx = session_with_rows(50_000).await;
    ctx.sql("SET rerank.window_rows = 256").await.unwrap();
    let plan = ctx.sql("SELECT rerank(query, passage) FROM big").await.unwrap().create_physical_plan().await.unwrap();
    let mut stream = plan.execute(0, ctx.task_ctx()).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.column(0).as_primitive::<Float32Type>().value(0).is_finite());
    drop(stream);
    let scored = metric(&plan, "pairs");
    assert!(scored < 10_000, "{scored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_too_small_for_a_window_is_an_error() {
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(10_000, 1.0).build_arc().unwrap();
    let ctx = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    RerankFunctions::new(models()).register(&ctx).unwrap();
    let sql = "SELECT rerank('q', 'p' || value) FROM generate_series(1, 5000)";
    let error = ctx.sql(sql).await.unwrap().collect().await.unwrap_err();
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    assert!(error.to_string().contains("set rerank.window_rows lower"), "{error}");
    ctx.sql("SET rerank.window_rows = 100").await.unwrap();
    assert!(ctx.sql(sql).await.unwrap().collect().await.is_ok());
}

#[tokio::test]
async fn a_session_can_be_built_with_everything() {
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(1))
        .with_rerank(&RerankFunctions::new(models()))
        .build();
    let ctx = SessionContext::new_with_state(state);
    ctx.sql("SET rerank.max_length = 64").await.unwrap();
    let plan = run(&ctx, "SELECT max(rerank('a', 'b')), max(rerank('b', 'a'))").await.plan;
    assert!(plan.contains("RerankExec: ") && plan.contains("options={\"max_length\":64}"), "{plan}");
    let error =
        ctx.sql("SELECT rerank('a', 'b', 'm3', {'cutoff_layers': 8})").await.unwrap().collect().await.unwrap_err();
    assert!(error.to_string().contains("option cutoff_layers: m3 models do not have it"), "{error}");
}

#[tokio::test]
async fn the_operator_names_model_options_and_device() {
    let ctx = session(models());
    let plan = run(&ctx, "SELECT rerank(query, passage, 'm3', {'max_length': 64}) FROM pairs").await.plan;
    assert!(
        plan.contains("AS __async_fn_0], model=m3, options={\"max_length\":64}, device=cpu, precision=fp32"),
        "{plan}"
    );
    assert!(!plan.contains("RepartitionExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cheap_conditions_reach_the_file_and_costly_ones_do_not() {
    let ctx = session(models());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs.parquet").display().to_string();
    for sql in [
        format!("COPY pairs TO '{file}'"),
        format!("CREATE EXTERNAL TABLE stored STORED AS PARQUET LOCATION '{file}'"),
        "SET datafusion.execution.parquet.pushdown_filters = true".to_owned(),
    ] {
        ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let run = run(&ctx, "SELECT id FROM stored WHERE rerank(query, passage) > -100 AND id < 10").await;
    assert_eq!((run.rows.num_rows(), run.pairs), (10, 10), "{}", run.plan);
    let scan = run.plan.lines().find(|line| line.contains("DataSourceExec")).unwrap();
    assert!(scan.contains("predicate=id@0 < 10"), "{scan}");
    assert!(!scan.contains("rerank"), "{scan}");
}

#[tokio::test]
async fn a_partitioning_by_a_call_is_refused() {
    let ctx = session(models());
    let call = ctx.parse_sql_expr("rerank(query, passage)", ctx.table("pairs").await.unwrap().schema()).unwrap();
    let frame = ctx.table("pairs").await.unwrap().repartition(Partitioning::Hash(vec![call], 2)).unwrap();
    let error = frame.collect().await.unwrap_err().to_string();
    assert!(error.contains("rerank cannot be used in a partitioning; compute it in a subquery"), "{error}");
}

/// A session and its engine with device batches of few tokens, so that a window takes many. The process has one engine
/// per model and `batch_tokens`: tests that count batches need a value of their own.
async fn session_with_small_batches(batch_tokens: usize) -> (SessionContext, Reranker) {
    let registry = models();
    let ctx = session(registry.clone());
    ctx.sql(&format!("SET rerank.batch_tokens = {batch_tokens}")).await.unwrap();
    let mut engine = EngineOptions::default();
    engine.batch_tokens = Some(batch_tokens);
    let reranker = registry.open("m3", &engine).unwrap();
    reranker.load().unwrap();
    (ctx, reranker)
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_stream_stops_the_device_within_a_batch() {
    let (ctx, reranker) = session_with_small_batches(64).await;
    let sql = "SELECT rerank('question ' || value, 'passage ' || value) FROM generate_series(1, 8000)";
    let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let mut stream = plan.execute(0, ctx.task_ctx()).unwrap();
    let reading = tokio::spawn(async move { while stream.next().await.is_some() {} });
    while reranker.device_stats().batches < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled(), "all windows were done before they could be dropped");
    let ran = reranker.device_stats().batches;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = reranker.device_stats().batches;
    assert!(later <= ran + 1, "{ran} batches when the stream was dropped, {later} after that");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_streams_leave_neither_tasks_nor_memory() {
    const DROPS: usize = 1000;
    let (ctx, reranker) = session_with_small_batches(65).await;
    let sql = "SELECT id, rerank(query, passage) FROM big WHERE rerank(query, passage) > 0";
    ctx.sql("CREATE TABLE big AS SELECT value AS id, 'q' || value AS query, 'p' || value AS passage FROM generate_series(1, 300)")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for drop_number in 0..DROPS {
        let plan = reset_plan_states(Arc::clone(&plan)).unwrap();
        let mut stream = execute_stream(plan, ctx.task_ctx()).unwrap();
        // Some are dropped before the first window is encoded, some while it is on the device.
        let first = tokio::time::timeout(Duration::from_micros(drop_number as u64 % 5 * 200), stream.next()).await;
        drop(first);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while (tasks() > before || ctx.runtime_env().memory_pool.reserved() > 0) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(tasks(), before);
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
    // Dropped work does not wait for the device either.
    let ran = reranker.device_stats().batches;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(reranker.device_stats().batches <= ran + 1);
    assert!(run(&ctx, sql).await.rows.num_rows() > 0);
}

/// A table without an end: rows come through a channel.
#[derive(Debug)]
struct Endless {
    schema: SchemaRef,
    rows: Mutex<Option<mpsc::UnboundedReceiver<RecordBatch>>>,
    /// Rows that were read.
    read: Arc<AtomicUsize>,
}

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut rows = self.rows.lock().unwrap().take().unwrap();
        let read = Arc::clone(&self.read);
        let rows = stream::poll_fn(move |context| rows.poll_recv(context)).map(move |batch: RecordBatch| {
            read.fetch_add(batch.num_rows(), Ordering::SeqCst);
            Ok(batch)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// A session with the endless table `live(query, passage)`, where its rows come from, and how many were read.
fn session_with_endless_table() -> (SessionContext, mpsc::UnboundedSender<RecordBatch>, Arc<AtomicUsize>) {
    let ctx = session(models());
    let fields = ["query", "passage"].map(|name| Field::new(name, DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let (sender, rows) = mpsc::unbounded_channel();
    let read = Arc::<AtomicUsize>::default();
    let partition = Endless { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)), read: Arc::clone(&read) };
    let table = StreamingTable::try_new(schema, vec![Arc::new(partition)]).unwrap().with_infinite_table(true);
    ctx.register_table("live", Arc::new(table)).unwrap();
    (ctx, sender, read)
}

fn live_rows(rows: std::ops::Range<usize>) -> RecordBatch {
    let texts = |prefix| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("{prefix} {row}"))))
    };
    let columns = [("query", texts("question")), ("passage", texts("passage"))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// Far longer than a row takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_an_end_is_answered_row_by_row() {
    let (ctx, sender, _) = session_with_endless_table();
    let frame = ctx.sql("SELECT passage, rerank(query, passage) FROM live").await.unwrap();
    let mut scored = frame.execute_stream().await.unwrap();
    for row in 0..20 {
        sender.send(live_rows(row..row + 1)).unwrap();
        // The next row is not sent before this one has its score.
        let answer = tokio::time::timeout(PATIENCE, scored.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((answer.num_rows(), answer.column(0).as_string::<i32>().value(0)), (1, &*format!("passage {row}")));
        assert!(answer.column(1).as_primitive::<Float32Type>().value(0).is_finite());
    }
    drop(sender);
    assert!(scored.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_an_end_is_read_no_further_than_a_window_ahead() {
    let (ctx, sender, read) = session_with_endless_table();
    ctx.sql("SET rerank.window_rows = 10").await.unwrap();
    let frame = ctx.sql("SELECT rerank(query, passage) FROM live").await.unwrap();
    for row in 0..1000 {
        sender.send(live_rows(row..row + 1)).unwrap();
    }
    let mut scored = frame.execute_stream().await.unwrap();
    let mut answered = 0;
    for _ in 0..5 {
        answered += scored.next().await.unwrap().unwrap().num_rows();
        // Two windows in flight and one that is full.
        let read = read.load(Ordering::SeqCst);
        assert!(read <= answered + 3 * 10, "{read} rows read, {answered} answered");
    }
    let before = read.load(Ordering::SeqCst);
    drop(scored);
    assert!(sender.send(live_rows(0..1)).is_err(), "nobody reads the table any more");
    assert_eq!(read.load(Ordering::SeqCst), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_of_a_large_query_come_early() {
    let ctx = session_with_rows(20_000).await;
    ctx.sql("SET rerank.batch_tokens = 256").await.unwrap();
    let sizes = async |delay: &str| -> Vec<usize> {
        ctx.sql(&format!("SET rerank.max_delay = '{delay}'")).await.unwrap();
        let frame = ctx.sql("SELECT rerank(query, passage) FROM big").await.unwrap();
        frame.execute_stream().await.unwrap().map_ok(|batch| batch.num_rows()).try_collect().await.unwrap()
    };
    // Scores of pieces that are no longer than a batch of DataFusion's, and windows are no longer than that.
    let sizes_off = sizes("off").await;
    assert_eq!((sizes_off[0], sizes_off.iter().sum::<usize>()), (8192, 20_000), "{sizes_off:?}");
    let sizes = sizes("50ms").await;
    assert!(sizes[0] <= 64 && sizes[1] <= 4 * 64, "{sizes:?}");
    assert!(sizes.iter().any(|rows| *rows >= 1000), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_delay_scores_do_not_depend_on_timing() {
    let mut all = Vec::new();
    for pause in [0, 3] {
        let (ctx, sender, _) = session_with_endless_table();
        for setting in ["max_delay = 'off'", "window_rows = 16", "batch_tokens = 128"] {
            ctx.sql(&format!("SET rerank.{setting}")).await.unwrap();
        }
        let frame = ctx.sql("SELECT rerank(query, passage) FROM live").await.unwrap();
        let scored = tokio::spawn(frame.execute_stream().await.unwrap().try_collect::<Vec<_>>());
        for row in 0..40 {
            sender.send(live_rows(row..row + 1)).unwrap();
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        drop(sender);
        let scored = scored.await.unwrap().unwrap();
        let rows = concat_batches(scored[0].schema_ref(), &scored).unwrap();
        let bits: Vec<u32> =
            rows.column(0).as_primitive::<Float32Type>().values().iter().map(|score| score.to_bits()).collect();
        all.push(bits);
    }
    assert_eq!(all[0].len(), 40);
    assert_eq!(all[0], all[1]);
}
