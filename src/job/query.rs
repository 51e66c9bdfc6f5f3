//! `--sql`: a query around the score, run for each unit in turn.
//!
//! The table `input` holds the rows of the unit. The result for a unit must not depend on how the input was divided, so
//! a query may only look at one row of `input` at a time: projections, filters, and joins with other tables. These keep
//! the order of the input, except that an outer join puts rows without a match behind the others of their batch.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion_rerank::{
    ModelRegistry, RerankConfig, RerankFunctions, Reranker, ScoreStats, WithRerank, plan_models, plan_stats,
};
use futures::StreamExt;

use super::query_check::check;
use super::query_error::root_error;
use super::query_table::{INPUT, StreamInput, UnitTable};
use super::unit::Unit;
use crate::files::{InputFile, check_kept, partition_of, unmarked};
use crate::model::session::JOIN_DYNAMIC_FILTERS;

/// A planned query.
pub(crate) struct Query {
    session: SessionContext,
    plan: LogicalPlan,
    /// The columns of the result that are written.
    written: Arc<Written>,
    table: Arc<UnitTable>,
    models: Vec<Reranker>,
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
    /// If the planner refuses the query, or the query needs more than one row of `input` at a time.
    pub(crate) async fn plan(
        sql: &str,
        input: &SchemaRef,
        models: &ModelRegistry,
        settings: RerankConfig,
    ) -> Result<Self> {
        // One partition, so that rows keep their order. The operator keeps the device busy by itself.
        let mut config = SessionConfig::new().with_target_partitions(1).with_option_extension(settings);
        // For other tables; in nanoseconds, as is the default, dates after 2262 would be others.
        config.options_mut().execution.parquet.coerce_int96 = Some("us".to_owned());
        config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = JOIN_DYNAMIC_FILTERS;
        let mut builder = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_rerank(&RerankFunctions::new(models.clone()));
        builder.physical_optimizers().get_or_insert_default().rules.insert(0, Arc::new(StreamInput));
        let session = SessionContext::new_with_state(builder.build()).enable_url_table();
        let table = Arc::new(UnitTable::new(Arc::clone(input)));
        session
            .register_table(INPUT, Arc::clone(&table) as Arc<dyn TableProvider>)
            .map_err(|error| root_error(&error))?;
        let frame = session
            .sql_with_options(sql, queries_only())
            .await
            .map_err(|error| root_error(&error))
            .context("cannot plan --sql")?;
        let plan = frame.into_optimized_plan().map_err(|error| root_error(&error)).context("cannot plan --sql")?;
        check(&plan)?;
        let written = Arc::new(Written::of(plan.schema().as_arrow(), input)?);
        let mut query = Self { session, plan, written, table, models: Vec::new() };
        // Planning finds the remaining errors now, rather than at the first unit.
        query.models = plan_models(&query.physical_plan().await?);
        Ok(query)
    }

    /// The columns that are written.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.written.schema)
    }

    /// The columns of the table `input`.
    #[cfg(feature = "cluster")]
    pub(crate) fn input(&self) -> SchemaRef {
        self.table.schema()
    }

    /// The plan as text, one operator per line.
    pub(crate) async fn explain(&self) -> Result<Vec<String>> {
        let plan = self.physical_plan().await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string().lines().map(str::to_owned).collect())
    }

    /// The models of the calls, one for each call.
    pub(crate) fn models(&self) -> &[Reranker] {
        &self.models
    }

    /// The settings of calls that do not set them themselves.
    #[cfg(feature = "cluster")]
    pub(crate) fn settings(&self) -> RerankConfig {
        self.session.state().config_options().extensions.get().cloned().unwrap_or_default()
    }

    async fn physical_plan(&self) -> Result<Arc<dyn ExecutionPlan>> {
        self.session
            .state()
            .create_physical_plan(&self.plan)
            .await
            .map_err(|error| root_error(&error))
            .context("cannot plan --sql")
    }

    /// Starts the query over the rows of one unit. Dropping the result stops it within one device batch.
    pub(crate) async fn begin(&self, input: InputFile, unit: Unit) -> Result<UnitResult> {
        let rows_read = self.table.read(input, unit);
        let physical = self.physical_plan().await?;
        let rows =
            execute_stream(Arc::clone(&physical), self.session.task_ctx()).map_err(|error| root_error(&error))?;
        let written = Arc::clone(&self.written);
        Ok(UnitResult { physical, rows, written, rows_read, counted: ScoreStats::default() })
    }
}

/// The result of the query for a unit.
pub(crate) struct UnitResult {
    physical: Arc<dyn ExecutionPlan>,
    rows: SendableRecordBatchStream,
    written: Arc<Written>,
    rows_read: Arc<AtomicU64>,
    counted: ScoreStats,
}

impl UnitResult {
    /// The columns of the rows.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.written.schema)
    }

    /// Returns the next rows, or `None` after the last, and what was counted since the previous call.
    pub(crate) async fn next(&mut self) -> Result<(Option<RecordBatch>, ScoreStats)> {
        let batch = self.rows.next().await.transpose().map_err(|error| root_error(&error))?;
        let mut now = plan_stats(&self.physical);
        now.rows = self.rows_read.load(Ordering::Relaxed);
        let since = now - self.counted;
        self.counted = now;
        Ok((batch.map(|batch| self.written.project(&batch)).transpose()?, since))
    }
}

/// The columns of a result that are written: all but partition columns under their own names, which are in the paths
/// of the output as they are in those of the input.
#[derive(Debug)]
struct Written {
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl Written {
    /// # Errors
    /// If a column that is no partition column has the name of one, or no column is left.
    fn of(result: &Schema, input: &Schema) -> Result<Self> {
        let is_partition = |name: &str| input.field_with_name(name).is_ok_and(|field| partition_of(field).is_some());
        let mut columns = Vec::with_capacity(result.fields().len());
        for (index, field) in result.fields().iter().enumerate() {
            check_kept(field).context("--sql")?;
            if partition_of(field) == Some(field.name()) {
                continue;
            }
            if is_partition(field.name()) {
                bail!(
                    "--sql: the column '{0}' of the result would have another value than the folders '{0}=..' of OUTPUT; give it another name",
                    field.name()
                );
            }
            columns.push(index);
        }
        if columns.is_empty() {
            bail!("--sql: the query returns only columns that are in the names of folders");
        }
        let fields: Vec<_> = columns.iter().map(|&index| unmarked(result.field(index))).collect();
        Ok(Self { columns, schema: Arc::new(Schema::new_with_metadata(fields, result.metadata().clone())) })
    }

    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|&column| Arc::clone(batch.column(column))).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// Only queries are allowed: planning other statements would already run them.
fn queries_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}
