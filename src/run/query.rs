//! `--sql`: a query around the score, run for one unit after the other.
//!
//! The unit's rows are the table `input`. What comes out for a unit must not depend on how the input was cut into
//! units, so only queries are taken that look at one row of `input` at a time: projections, filters, and joins with
//! other tables. They keep the order of the input, except that an outer join puts rows without a match behind the others
//! of their batch.

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream, project_schema};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion_rerank::{
    ModelRegistry, RerankConfig, RerankFunctions, Reranker, ScoreStats, WithRerank, plan_models, plan_stats,
};
use futures::StreamExt;
use tokio::runtime::Handle;

use super::unit_rows::read_unit;
use crate::files::InputFile;
use crate::job::Unit;

/// Name of the table that the input is.
const INPUT: &str = "input";

/// Batches read ahead of the query.
const BATCHES_AHEAD: usize = 2;

/// A query, planned.
pub(crate) struct Query {
    session: SessionContext,
    plan: LogicalPlan,
    table: Arc<UnitTable>,
}

impl Debug for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Query {
    /// Plans a query over inputs with these columns.
    ///
    /// # Errors
    /// What the planner says, or that the query needs more than one row of `input` at a time.
    pub(crate) async fn plan(
        sql: &str,
        input: &SchemaRef,
        models: &ModelRegistry,
        settings: RerankConfig,
    ) -> Result<Self> {
        // One partition, so that rows keep their order; the operator keeps the device busy by itself.
        let config = SessionConfig::new().with_target_partitions(1).with_option_extension(settings);
        let mut builder = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_rerank(&RerankFunctions::new(models.clone()));
        builder.physical_optimizers().get_or_insert_default().rules.insert(0, Arc::new(StreamInput));
        let session = SessionContext::new_with_state(builder.build()).enable_url_table();
        let table = Arc::new(UnitTable { schema: Arc::clone(input), unit: Mutex::default() });
        session
            .register_table(INPUT, Arc::clone(&table) as Arc<dyn TableProvider>)
            .map_err(|error| one_line(&error))?;
        let frame = session
            .sql_with_options(sql, queries_only())
            .await
            .map_err(|error| one_line(&error))
            .context("cannot plan --sql")?;
        let plan = frame.into_optimized_plan().map_err(|error| one_line(&error)).context("cannot plan --sql")?;
        check(&plan)?;
        let query = Self { session, plan, table };
        // The rest of what can be wrong is found now rather than at the first unit.
        query.physical_plan().await?;
        Ok(query)
    }

    /// The columns of the result.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    /// The plan as text, an operator a line.
    pub(crate) async fn explain(&self) -> Result<Vec<String>> {
        let plan = self.physical_plan().await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string().lines().map(str::to_owned).collect())
    }

    /// The models that the calls name.
    pub(crate) async fn models(&self) -> Result<Vec<Reranker>> {
        Ok(plan_models(&self.physical_plan().await?))
    }

    async fn physical_plan(&self) -> Result<Arc<dyn ExecutionPlan>> {
        self.session
            .state()
            .create_physical_plan(&self.plan)
            .await
            .map_err(|error| one_line(&error))
            .context("cannot plan --sql")
    }

    /// Begins the query over the rows of one unit. Dropping the result stops it within a device batch.
    pub(crate) async fn begin(&self, input: InputFile, unit: Unit) -> Result<UnitResult> {
        let rows_read = Arc::<AtomicU64>::default();
        let unit = UnitRows { input, unit, rows_read: Arc::clone(&rows_read) };
        *self.table.unit.lock().unwrap_or_else(PoisonError::into_inner) = Some(unit);
        let physical = self.physical_plan().await?;
        let rows = execute_stream(Arc::clone(&physical), self.session.task_ctx()).map_err(|error| one_line(&error))?;
        Ok(UnitResult { physical, rows, rows_read, counted: ScoreStats::default() })
    }
}

/// What the query gives for a unit.
pub(crate) struct UnitResult {
    physical: Arc<dyn ExecutionPlan>,
    rows: SendableRecordBatchStream,
    rows_read: Arc<AtomicU64>,
    counted: ScoreStats,
}

impl UnitResult {
    /// The columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// The next rows, `None` after the last, and what was counted since those before them.
    pub(crate) async fn next(&mut self) -> Result<(Option<RecordBatch>, ScoreStats)> {
        let batch = self.rows.next().await.transpose().map_err(|error| one_line(&error))?;
        let mut now = plan_stats(&self.physical);
        now.rows = self.rows_read.load(Ordering::Relaxed);
        let since = now - self.counted;
        self.counted = now;
        Ok((batch, since))
    }
}

/// Statements that change something would be run by planning them.
fn queries_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// Refuses queries of which a unit's result depends on other units.
fn check(plan: &LogicalPlan) -> Result<()> {
    let scans = scans(plan)?;
    if scans != 1 {
        bail!("--sql: the query reads {INPUT} {scans} times; it must read it once, as its rows are read once");
    }
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::TableScan(_) => return Ok(()),
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Unnest(unnest) => &unnest.input,
            LogicalPlan::Join(join) => {
                use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
                let on_the_left = self::scans(&join.left)? == 1;
                let side = if on_the_left { &join.left } else { &join.right };
                match (on_the_left, join.join_type) {
                    (_, Inner)
                    | (true, Left | LeftSemi | LeftAnti | LeftMark)
                    | (false, Right | RightSemi | RightAnti | RightMark) => side,
                    (_, kind) => bail!(
                        "--sql: a {} JOIN must keep the rows of {INPUT}, or which rows it adds would depend on the unit; turn it round",
                        kind.to_string().to_uppercase()
                    ),
                }
            }
            other => bail!(
                "--sql: {} needs all rows of {INPUT} at once, and a unit has only its own; do it in a query over OUTPUT",
                operation(other)
            ),
        };
    }
}

/// How often a plan reads the input, its subqueries included.
fn scans(plan: &LogicalPlan) -> Result<usize> {
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans += usize::from(scan.table_name.table() == INPUT);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| one_line(&error))?;
    Ok(scans)
}

/// What an operator is called in SQL.
fn operation(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "an aggregate, GROUP BY or DISTINCT",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Union(_) => "UNION",
        _ => "this statement",
    }
}

/// What went wrong at the bottom of an error of the query engine, without the layers that it came through.
pub(crate) fn one_line(error: &DataFusionError) -> anyhow::Error {
    match error.find_root() {
        DataFusionError::Plan(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Configuration(message)
        | DataFusionError::NotImplemented(message) => anyhow!("{}", first_line(message)),
        DataFusionError::External(external) => {
            // What the reader and the library say is meant for people already.
            let mut causes = vec![external.to_string()];
            let mut cause = external.source();
            while let Some(deeper) = cause {
                causes.push(deeper.to_string());
                cause = deeper.source();
            }
            anyhow!("{}", causes.join(": "))
        }
        root => anyhow!("{}", first_line(&root.strip_backtrace())),
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

/// The table `input`: the rows of whichever unit is done next.
#[derive(Debug)]
struct UnitTable {
    schema: SchemaRef,
    /// None while the query is only planned.
    unit: Mutex<Option<UnitRows>>,
}

#[async_trait]
impl TableProvider for UnitTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = project_schema(&self.schema, projection)?;
        let unit = self.unit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let partition = UnitPartition { schema: Arc::clone(&schema), columns: projection.cloned(), unit };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, None)?))
    }
}

/// A unit, and how many of its rows were read.
#[derive(Debug, Clone)]
struct UnitRows {
    input: InputFile,
    unit: Unit,
    rows_read: Arc<AtomicU64>,
}

/// Some columns of a unit's rows.
#[derive(Debug)]
struct UnitPartition {
    schema: SchemaRef,
    columns: Option<Vec<usize>>,
    unit: Option<UnitRows>,
}

impl PartitionStream for UnitPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), BATCHES_AHEAD);
        let Some(UnitRows { input, unit, rows_read }) = self.unit.clone() else { return stream.build() };
        let (sender, runtime) = (stream.tx(), Handle::current());
        let columns = self.columns.clone();
        let batch_rows = context.session_config().batch_size();
        stream.spawn_blocking(move || {
            read_unit(&input, &unit, columns.as_deref(), batch_rows, &runtime, |batch| {
                rows_read.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                sender.blocking_send(Ok(batch)).is_ok()
            })
            .map(drop)
            .map_err(|error| DataFusionError::External(error.into()))
        });
        stream.build()
    }
}

/// Puts the input on the side of a join that streams past the other, which is gathered in memory: the optimizer decides
/// by sizes, and the input's is not known to it.
#[derive(Debug)]
struct StreamInput;

impl PhysicalOptimizerRule for StreamInput {
    fn name(&self) -> &'static str {
        "StreamInput"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let streamed = plan.transform_up(|plan| {
            let gathers_input = match plan.children().as_slice() {
                [left, right] => reads_input(left) && !reads_input(right),
                _ => false,
            };
            if !gathers_input {
                return Ok(Transformed::no(plan));
            }
            if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
                return join.swap_inputs(*join.partition_mode()).map(Transformed::yes);
            }
            if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
                return join.swap_inputs().map(Transformed::yes);
            }
            if let Some(join) = plan.downcast_ref::<CrossJoinExec>() {
                return join.swap_inputs().map(Transformed::yes);
            }
            Ok(Transformed::no(plan))
        })?;
        Ok(streamed.data)
    }
}

fn reads_input(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<StreamingTableExec>() || plan.children().into_iter().any(reads_input)
}
