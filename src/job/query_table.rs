//! The table `input` of a query: the rows of one unit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, project_schema};
use tokio::runtime::Handle;

use super::unit::Unit;
use super::unit_rows::read_unit;
use crate::files::InputFile;

/// The name of the table.
pub(super) const INPUT: &str = "input";

/// Batches read ahead of the query.
const BATCHES_AHEAD: usize = 2;

/// The table `input`: the rows of the current unit.
#[derive(Debug)]
pub(super) struct UnitTable {
    schema: SchemaRef,
    /// `None` while the query is only planned.
    reading: Mutex<Option<Reading>>,
}

impl UnitTable {
    /// A table without rows.
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, reading: Mutex::default() }
    }

    /// Makes later plans read this unit of the input. Returns the counter of rows read.
    pub(super) fn read(&self, input: InputFile, unit: Unit) -> Arc<AtomicU64> {
        let rows_read = Arc::<AtomicU64>::default();
        let reading = Reading { input, unit, rows_read: Arc::clone(&rows_read) };
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
        rows_read
    }
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
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let partition = UnitPartition { schema: Arc::clone(&schema), reading };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, None)?))
    }
}

/// The unit being read, and the number of rows read so far.
#[derive(Debug, Clone)]
struct Reading {
    input: InputFile,
    unit: Unit,
    rows_read: Arc<AtomicU64>,
}

/// Some columns of a unit's rows.
#[derive(Debug)]
struct UnitPartition {
    schema: SchemaRef,
    reading: Option<Reading>,
}

impl PartitionStream for UnitPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), BATCHES_AHEAD);
        let Some(Reading { input, unit, rows_read }) = self.reading.clone() else { return stream.build() };
        let (sender, runtime) = (stream.tx(), Handle::current());
        let schema = Arc::clone(&self.schema);
        let batch_rows = context.session_config().batch_size();
        stream.spawn_blocking(move || {
            read_unit(&input, &unit, &schema, batch_rows, &runtime, |batch| {
                rows_read.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                Ok(sender.blocking_send(Ok(batch)).is_ok())
            })
            .map(drop)
            .map_err(|error| DataFusionError::External(error.into()))
        });
        stream.build()
    }
}

/// Puts the input on the streaming side of a join, so that the other side is gathered in memory. The optimizer decides
/// by size, and does not know the size of the input.
#[derive(Debug)]
pub(super) struct StreamInput;

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
