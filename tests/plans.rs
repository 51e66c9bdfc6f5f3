//! What runs how often: the operator and the rules that place it.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Float32Type;
use arrow::util::pretty::pretty_format_batches;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_rerank::RerankFunctions;
use futures::StreamExt;

use crate::support::{models, session};

/// The result of a query, its plan as text, and the pairs it gave to the engine.
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

/// A metric of all the operators in a plan.
pub(crate) fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name(name)).map_or(0, |value| value.as_usize());
    own + plan.children().into_iter().map(|child| metric(child, name)).sum::<usize>()
}

fn text(run: &Run) -> String {
    pretty_format_batches(std::slice::from_ref(&run.rows)).unwrap().to_string()
}

/// A session with `big(id, query, passage, cheap)` of generated rows, of which 1 % have `cheap` 0.
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
async fn each_row_is_scored_once() {
    let ctx = session(models());
    for (sql, pairs) in [
        ("SELECT id FROM pairs ORDER BY rerank(query, passage) DESC LIMIT 10", 40),
        ("SELECT id, rerank(query, passage) AS s FROM pairs WHERE rerank(query, passage) > 1 ORDER BY s DESC", 40),
        ("SELECT * FROM (SELECT *, rerank(query, passage) AS s FROM pairs) AS x WHERE s > 1 ORDER BY s", 40),
        ("SELECT id FROM pairs WHERE rerank(query, passage) > 1 ORDER BY rerank(query, passage)", 40),
        ("SELECT rerank(x.query, x.passage) FROM (SELECT * FROM pairs WHERE rerank(query, passage) > 1) AS x", 40),
        ("SELECT rerank(query, passage) FROM pairs LIMIT 3", 3),
        ("SELECT max(rerank(query, passage)), min(rerank(query, passage)) FROM pairs", 40),
    ] {
        let run = run(&ctx, sql).await;
        assert_eq!(run.pairs, pairs, "{sql}\n{}", run.plan);
        assert!(!run.plan.contains("AsyncFuncExec"), "{}", run.plan);
    }
}

/// Every place of a call against the same with the scores computed in a table first: `$r` and `$t` stand for two calls,
/// `$pairs` for the table.
#[tokio::test(flavor = "multi_thread")]
async fn every_position_gives_what_a_column_would() {
    let ctx = session(models());
    let table = "CREATE TABLE scored AS SELECT *, rerank(query, passage) AS r, rerank(passage, query) AS t FROM pairs";
    ctx.sql(table).await.unwrap().collect().await.unwrap();
    for sql in [
        "SELECT id, $r FROM $pairs ORDER BY id",
        "SELECT id FROM $pairs WHERE $r > 2 ORDER BY id",
        "SELECT id FROM $pairs WHERE $r > 2 AND id % 2 = 0 ORDER BY id",
        "SELECT id FROM $pairs WHERE $r > 2 AND $t > 2 ORDER BY id",
        "SELECT id, $r + $t FROM $pairs WHERE $r > 2 AND $t > 2 ORDER BY id",
        "SELECT id FROM $pairs WHERE $r > 2 OR id < 3 ORDER BY id",
        "SELECT id, CASE WHEN id < 5 THEN $r ELSE 0 END FROM $pairs ORDER BY id",
        "SELECT id FROM $pairs ORDER BY $r DESC, id LIMIT 5",
        "SELECT id FROM $pairs ORDER BY round($r * 10) DESC, $t, id",
        "SELECT max($r), max($t) FROM $pairs",
        "SELECT max($r), min($t), sum(id), count(DISTINCT $r) FROM $pairs",
        "SELECT query, max($r) FROM $pairs GROUP BY query ORDER BY query",
        "SELECT query, max($r) FROM $pairs GROUP BY query HAVING min($t) > 1 ORDER BY query",
        "SELECT $r, count(*) FROM $pairs GROUP BY $r ORDER BY 1",
        "SELECT count(*) FILTER (WHERE $r > 2), avg(id) FILTER (WHERE $t > 2) FROM $pairs",
        "SELECT count(DISTINCT $r) FROM $pairs",
        "SELECT round($r), id % 2, count(*) FROM $pairs GROUP BY GROUPING SETS ((round($r)), (id % 2), ()) ORDER BY 1, 2, 3",
        "SELECT first_value(id ORDER BY $r DESC, id) FROM $pairs",
        "SELECT id, row_number() OVER (PARTITION BY query ORDER BY $r DESC, id) FROM $pairs ORDER BY id",
        "SELECT id, sum($r) OVER (PARTITION BY query ORDER BY id) FROM $pairs ORDER BY id",
        "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY query ORDER BY $r DESC, id) AS k FROM $pairs) WHERE k = 1 ORDER BY id",
        "SELECT a.id FROM $pairs AS a JOIN goldens AS g ON a.id = g.id AND g.name = 'default' AND $r > 2 ORDER BY 1",
        "SELECT a.id, g.id FROM $pairs AS a LEFT JOIN (SELECT * FROM goldens WHERE name = 'default') AS g ON a.id = g.id AND $r > 2 ORDER BY 1",
        "SELECT a.id FROM $pairs AS a JOIN goldens AS g ON round($r) = g.id AND g.name = 'default' ORDER BY 1",
        "SELECT DISTINCT $r FROM $pairs ORDER BY 1",
        "SELECT DISTINCT ON (query) query, id FROM $pairs ORDER BY query, $r DESC, id",
        "SELECT $r FROM $pairs WHERE id < 2 UNION ALL SELECT $t FROM $pairs WHERE id < 2 ORDER BY 1",
        "WITH c AS (SELECT *, $r AS s FROM $pairs) SELECT id, s FROM c WHERE s > 2 AND id > 3 ORDER BY s, id",
        "SELECT id FROM goldens WHERE name = 'default' AND id IN (SELECT id FROM $pairs WHERE $r > 2) ORDER BY id",
        "SELECT id FROM $pairs WHERE $r = (SELECT max($r) FROM $pairs) ORDER BY id",
        "SELECT id FROM $pairs WHERE $r IN (1, 2) OR $r BETWEEN 1 AND 2 ORDER BY id",
        "SELECT unnest(make_array($r, $t)) FROM $pairs WHERE id < 3 ORDER BY 1",
        "SELECT id FROM $pairs WHERE $r > 2 LIMIT 100",
        "SELECT s + 1 FROM (SELECT $r AS s, id FROM $pairs ORDER BY $r LIMIT 5) ORDER BY 1",
    ] {
        let with_calls = sql
            .replace("$pairs", "pairs")
            .replace("$r", "rerank(query, passage)")
            .replace("$t", "rerank(passage, query)");
        let with_columns = sql.replace("$pairs", "scored").replace("$r", "r").replace("$t", "t");
        let actual = run(&ctx, &with_calls).await;
        let expected = run(&ctx, &with_columns).await;
        assert!(!actual.plan.contains("AsyncFuncExec"), "{with_calls}\n{}", actual.plan);
        assert!(expected.rows.num_rows() > 0, "{with_columns}");
        assert_eq!(actual.rows.columns(), expected.rows.columns(), "{with_calls}\n{}", actual.plan);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_nest_and_join_conditions_become_filters() {
    let ctx = session(models());
    let nested =
        run(&ctx, "SELECT rerank(query, 'score ' || CAST(rerank(query, passage) AS VARCHAR)) FROM pairs").await;
    assert_eq!(nested.rows.num_rows(), 40);
    assert_eq!(nested.pairs, 80, "{}", nested.plan);
    let joined = "SELECT count(*) FROM pairs AS a JOIN pairs AS b ON rerank(a.query, b.passage) > 2";
    let crossed = "SELECT count(*) FROM (SELECT rerank(a.query, b.passage) AS s FROM pairs AS a CROSS JOIN pairs AS b) WHERE s > 2";
    assert_eq!(text(&run(&ctx, joined).await), text(&run(&ctx, crossed).await));
    let left = "SELECT count(*) FROM pairs AS a LEFT JOIN pairs AS b ON rerank(a.query, b.passage) > 2";
    let error = ctx.sql(left).await.unwrap().create_physical_plan().await.unwrap_err().to_string();
    assert!(
        error.contains("rerank cannot be used in the ON condition of a LEFT JOIN; compute it in a subquery"),
        "{error}"
    );
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
async fn the_operator_names_model_options_and_device() {
    let ctx = session(models());
    let plan = run(&ctx, "SELECT rerank(query, passage, 'm3', {'max_length': 64}) FROM pairs").await.plan;
    assert!(plan.contains("AS __async_fn_0], model=m3, options={\"max_length\":64}, device=cpu"), "{plan}");
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

#[tokio::test(flavor = "multi_thread")]
async fn views_and_prepared_statements_are_optimized_too() {
    let ctx = session(models());
    for sql in [
        "CREATE VIEW scored_view AS SELECT id, query, rerank(query, passage) AS s FROM pairs",
        "PREPARE best(INT) AS SELECT id FROM pairs WHERE id < $1 ORDER BY rerank(query, passage) DESC, id",
    ] {
        ctx.sql(sql).await.unwrap().collect().await.unwrap();
    }
    let view = run(&ctx, "SELECT id, s FROM scored_view WHERE s > 2 AND id < 10 ORDER BY s").await;
    assert_eq!(view.pairs, 10, "{}", view.plan);
    let prepared = run(&ctx, "EXECUTE best(5)").await;
    let direct = run(&ctx, "SELECT id FROM pairs WHERE id < 5 ORDER BY rerank(query, passage) DESC, id").await;
    assert_eq!((prepared.rows.columns(), prepared.pairs), (direct.rows.columns(), 5), "{}", prepared.plan);
}
