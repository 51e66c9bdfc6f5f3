//! The scripts of `tests/slt/operator`: SQL with calls in every position, its result, and how many pairs it cost.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::SessionContext;

use crate::plans::metric;
use crate::script::{Database, Output, rows, run_all};
use crate::support::{models, session};

/// Decimals of scores in these scripts: the results are exact, their print is the same on every processor.
const DECIMALS: usize = 2;

/// `docs`: three queries with passages in three languages, a pair that is there twice (rows 2 and 10), a NULL query, a
/// NULL passage and a NULL language. `langs`: names of languages.
pub(crate) const TABLES: &[&str] = &[
    "CREATE TABLE docs (id INT, query VARCHAR, passage VARCHAR, lang VARCHAR, views INT) AS VALUES
     (1, 'what is panda?', 'hi', 'en', 10),
     (2, 'what is panda?', 'The giant panda is a bear species endemic to China.', 'en', 80),
     (3, 'what is panda?', 'Der Große Panda ist ein Bär.', 'de', 40),
     (4, 'how tall is it?', 'The tower is 330 metres tall.', 'en', 20),
     (5, 'how tall is it?', 'La tour mesure 330 mètres.', 'fr', 90),
     (6, 'how tall is it?', 'Paris', 'fr', 5),
     (7, 'capital of France', 'Paris is the capital of France.', 'en', 70),
     (8, 'capital of France', 'Berlin ist die Hauptstadt Deutschlands.', 'de', 30),
     (9, 'capital of France', NULL, 'en', 60),
     (10, 'what is panda?', 'The giant panda is a bear species endemic to China.', 'fr', 15),
     (11, NULL, 'a passage without a query', 'en', 25),
     (12, 'capital of France', 'Rome', NULL, 50)",
    "CREATE TABLE langs (lang VARCHAR, name VARCHAR, rank INT) AS VALUES
     ('en', 'English', 1), ('de', 'German', 2), ('fr', 'French', 3)",
];

/// Adds to the rows of a query how many pairs were scored for it, and requires the rows that the synchronous functions
/// give, which run where DataFusion evaluates the expression around them.
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
        for table in TABLES {
            ctx.sql(table).await.unwrap().collect().await.unwrap();
        }
        Counting(ctx)
    })
    .await;
}
