//! The scripts of `tests/slt/operator`: SQL with calls in every position, results, and numbers of scored pairs.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::SessionContext;

use crate::support::scripts::{Database, Output, TABLES, rows, run_all};
use crate::support::{metric, models, session};

/// Decimals of scores in these scripts. The results are exact; rounded, they print the same on every processor.
const DECIMALS: usize = 2;

/// Adds the number of scored pairs to a query's rows. Requires the same rows from the synchronous functions, which run
/// where DataFusion evaluates the surrounding expression.
struct Counting(SessionContext);

#[async_trait]
impl Database for Counting {
    async fn run(&mut self, sql: &str) -> Result<Output, DataFusionError> {
        let frame = self.0.sql(sql).await?;
        let columns = frame.schema().fields().len();
        let task = frame.task_ctx();
        let plan = frame.create_physical_plan().await?;
        let batches = collect(Arc::clone(&plan), Arc::new(task)).await?;
        let mut rows = rows(&batches, DECIMALS);
        if columns == 0 {
            return Ok(Output::Done);
        }
        if sql.starts_with("EXPLAIN") {
            // One row per line of a plan.
            let lines = rows.iter().flat_map(|row| row[1].trim_end().lines().map(|line| vec![line.to_owned()]));
            return Ok(Output::Rows { columns, rows: lines.collect() });
        }
        let plan_text = displayable(plan.as_ref()).indent(false).to_string();
        assert!(!plan_text.contains("AsyncFuncExec"), "{sql}\n{plan_text}");
        if !sql.starts_with("INSERT") && !sql.starts_with("EXECUTE") {
            assert_eq!(sorted(&rows), sorted(&self.evaluated_in_place(sql).await), "{sql}\n{plan_text}");
        }
        rows.push(vec![format!("{} pairs", metric(&plan, "scored_pairs"))]);
        Ok(Output::Rows { columns, rows })
    }
}

impl Counting {
    async fn evaluated_in_place(&self, sql: &str) -> Vec<Vec<String>> {
        let mut sql = sql.to_owned();
        for function in ["rerank", "rerank_details", "rerank_m3", "rerank_gemma"] {
            sql = sql.replace(&format!("{function}("), &format!("{function}_sync("));
        }
        rows(&self.0.sql(&sql).await.unwrap().collect().await.unwrap(), DECIMALS)
    }
}

fn sorted(rows: &[Vec<String>]) -> Vec<&Vec<String>> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts() {
    run_all("operator", async || {
        let ctx = session(models());
        // The number of scored pairs depends on the windows, and these on the timing.
        ctx.sql("SET rerank.max_delay = 'off'").await.unwrap();
        for table in TABLES {
            ctx.sql(table).await.unwrap().collect().await.unwrap();
        }
        Counting(ctx)
    })
    .await;
}
