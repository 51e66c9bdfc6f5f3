//! Logical plans before and after [`HoistRerankCalls`].

use std::path::Path;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::OptimizerRule;
use datafusion::prelude::SessionContext;

use super::HoistRerankCalls;
use crate::registry::ModelRegistry;
use crate::sql::catalogue::KnownFunctions;
use crate::sql::{RerankFunctions, WithRerank};

/// Compares the optimized plan of a query over `t` and `other`, both of columns `q`, `p` and `cheap`, without the rule
/// and with it.
async fn assert_plans(sql: &str, before: &[&str], after: &[&str]) {
    let registry = ModelRegistry::default();
    registry.register("m3", Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-xlmr-reranker"));
    let rule = HoistRerankCalls::new(KnownFunctions::asynchronous(&registry));
    let mut builder = SessionStateBuilder::new_with_default_features().with_rerank(&RerankFunctions::new(registry));
    builder.optimizer_rules().get_or_insert_default().retain(|rule| rule.name() != HoistRerankCalls::NAME);
    let ctx = SessionContext::new_with_state(builder.build());
    for table in ["t", "other"] {
        let sql = format!("CREATE TABLE {table} AS SELECT 'a' AS q, 'b' AS p, 0 AS cheap");
        ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let plan = ctx.sql(sql).await.unwrap().into_optimized_plan().unwrap();
    let hoisted = rule.rewrite(plan.clone(), &ctx.state()).unwrap().data;
    assert_eq!(hoisted.schema(), plan.schema(), "{sql}");
    for (plan, expected) in [(plan, before), (hoisted, after)] {
        let text = plan.display_indent().to_string();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{sql}\n{text}");
    }
}

#[tokio::test]
async fn a_sort_by_a_call() {
    assert_plans(
        "SELECT q FROM t ORDER BY rerank(q, p) DESC LIMIT 3",
        &[
            "Projection: t.q",
            "  Sort: rerank(t.q, t.p) DESC NULLS FIRST, fetch=3",
            "    TableScan: t projection=[q, p]",
        ],
        &[
            "Projection: t.q",
            "  Sort: __rerank_1 DESC NULLS FIRST, fetch=3",
            "    Projection: t.q, t.p, rerank(t.q, t.p) AS __rerank_1",
            "      TableScan: t projection=[q, p]",
        ],
    )
    .await;
}

#[tokio::test]
async fn different_calls_in_one_aggregate() {
    assert_plans(
        "SELECT q, max(rerank(q, p)), min(rerank(p, q)) FROM t GROUP BY q",
        &[
            "Aggregate: groupBy=[[t.q]], aggr=[[max(rerank(t.q, t.p)), min(rerank(t.p, t.q))]]",
            "  TableScan: t projection=[q, p]",
        ],
        &[
            "Projection: t.q, max(__rerank_1) AS max(rerank(t.q,t.p)), min(__rerank_2) AS min(rerank(t.p,t.q))",
            "  Aggregate: groupBy=[[t.q]], aggr=[[max(__rerank_1), min(__rerank_2)]]",
            "    Projection: t.q, t.p, rerank(t.q, t.p) AS __rerank_1, rerank(t.p, t.q) AS __rerank_2",
            "      TableScan: t projection=[q, p]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_window_function() {
    assert_plans(
        "SELECT q, rank() OVER (PARTITION BY q ORDER BY rerank(q, p)) AS place FROM t",
        &[
            "Projection: t.q, rank() PARTITION BY [t.q] ORDER BY [rerank(t.q, t.p) ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS place",
            "  WindowAggr: windowExpr=[[rank() PARTITION BY [t.q] ORDER BY [rerank(t.q, t.p) ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW]]",
            "    TableScan: t projection=[q, p]",
        ],
        &[
            "Projection: t.q, rank() PARTITION BY [t.q] ORDER BY [__rerank_1 ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS place",
            "  WindowAggr: windowExpr=[[rank() PARTITION BY [t.q] ORDER BY [__rerank_1 ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW]]",
            "    Projection: t.q, t.p, rerank(t.q, t.p) AS __rerank_1",
            "      TableScan: t projection=[q, p]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_join_condition_over_both_sides() {
    assert_plans(
        "SELECT t.q FROM t JOIN other ON t.cheap = other.cheap AND rerank(t.q, other.p) > 2",
        &[
            "Projection: t.q",
            "  Inner Join: t.cheap = other.cheap Filter: rerank(t.q, other.p) > Float32(2)",
            "    TableScan: t projection=[q, cheap]",
            "    TableScan: other projection=[p, cheap]",
        ],
        &[
            "Projection: t.q",
            "  Filter: __rerank_1 > Float32(2)",
            "    Projection: t.q, t.cheap, other.p, other.cheap, rerank(t.q, other.p) AS __rerank_1",
            "      Inner Join: t.cheap = other.cheap",
            "        TableScan: t projection=[q, cheap]",
            "        TableScan: other projection=[p, cheap]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_join_condition_over_one_side() {
    assert_plans(
        "SELECT t.q FROM t LEFT JOIN other ON t.cheap = other.cheap AND rerank(t.q, t.p) > 1",
        &[
            "Projection: t.q",
            "  Left Join: t.cheap = other.cheap Filter: rerank(t.q, t.p) > Float32(1)",
            "    TableScan: t projection=[q, p, cheap]",
            "    TableScan: other projection=[cheap]",
        ],
        &[
            "Projection: t.q",
            "  Left Join: t.cheap = other.cheap Filter: __rerank_1 > Float32(1)",
            "    Projection: t.q, t.p, t.cheap, rerank(t.q, t.p) AS __rerank_1",
            "      TableScan: t projection=[q, p, cheap]",
            "    TableScan: other projection=[cheap]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_cheap_condition_and_a_score() {
    assert_plans(
        "SELECT q FROM t WHERE rerank(q, p) > 1 AND cheap = 0",
        &[
            "Projection: t.q",
            "  Filter: t.cheap = Int64(0) AND rerank(t.q, t.p) > Float32(1)",
            "    TableScan: t projection=[q, p, cheap]",
        ],
        &[
            "Projection: t.q",
            "  Filter: __rerank_1 > Float32(1)",
            "    Projection: t.q, t.p, t.cheap, rerank(t.q, t.p) AS __rerank_1",
            "      Filter: t.cheap = Int64(0)",
            "        TableScan: t projection=[q, p, cheap]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_cheap_condition_or_a_score() {
    assert_plans(
        "SELECT q FROM t WHERE rerank(q, p) > 1 OR cheap = 0",
        &[
            "Projection: t.q",
            "  Filter: rerank(t.q, t.p) > Float32(1) OR t.cheap = Int64(0)",
            "    TableScan: t projection=[q, p, cheap]",
        ],
        &[
            "Projection: t.q",
            "  Filter: __rerank_1 > Float32(1) OR t.cheap = Int64(0)",
            "    Projection: t.q, t.p, t.cheap, rerank(CASE WHEN t.cheap = Int64(0) IS NOT TRUE THEN t.q END, t.p) AS __rerank_1",
            "      TableScan: t projection=[q, p, cheap]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_branch() {
    assert_plans(
        "SELECT CASE WHEN cheap = 0 THEN rerank(q, p) ELSE 0 END AS s FROM t",
        &[
            "Projection: CASE WHEN t.cheap = Int64(0) THEN rerank(t.q, t.p) ELSE Float32(0) END AS s",
            "  TableScan: t projection=[q, p, cheap]",
        ],
        &[
            "Projection: CASE WHEN t.cheap = Int64(0) THEN __rerank_1 ELSE Float32(0) END AS s",
            "  Projection: t.q, t.p, t.cheap, rerank(CASE WHEN t.cheap = Int64(0) THEN t.q END, t.p) AS __rerank_1",
            "    TableScan: t projection=[q, p, cheap]",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_score_in_a_filter_and_in_the_result() {
    assert_plans(
        "SELECT q, rerank(q, p) AS s FROM t WHERE rerank(q, p) > 1 AND cheap = 0",
        &[
            "Projection: t.q, rerank(t.q, t.p) AS s",
            "  Filter: t.cheap = Int64(0) AND rerank(t.q, t.p) > Float32(1)",
            "    TableScan: t projection=[q, p, cheap]",
        ],
        &[
            "Projection: t.q, __rerank_1 AS s",
            "  Filter: __rerank_1 > Float32(1)",
            "    Projection: t.q, t.p, t.cheap, rerank(t.q, t.p) AS __rerank_1",
            "      Filter: t.cheap = Int64(0)",
            "        TableScan: t projection=[q, p, cheap]",
        ],
    )
    .await;
}
