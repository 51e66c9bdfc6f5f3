//! The operator that runs the units of a job.

use std::fmt::{self, Formatter};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use tokio::sync::oneshot;

use super::messages::{JobMessage, UnitMessage};
use super::unit_work::UnitWork;
use crate::terminal::{Stopped, one_line};

/// The column of the units: messages in the input, ids of completed units in the output.
static SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("unit", DataType::Utf8, false)])));

/// Does the work of the messages of its input, and returns the ids of their units. Dropping the stream stops the work
/// within one device batch and removes the unfinished file.
#[derive(Debug, Clone)]
pub(crate) struct ScoreUnitsExec {
    job: Arc<JobMessage>,
    input: Arc<dyn ExecutionPlan>,
    /// `None` where the plan is only forwarded.
    work: Option<UnitWork>,
    properties: Arc<PlanProperties>,
}

impl ScoreUnitsExec {
    /// The plan of some units of a job. Each has a partition, and therefore a task, of its own.
    pub(crate) fn of_units(job: JobMessage, units: &[UnitMessage]) -> anyhow::Result<Self> {
        let partition = |unit: &UnitMessage| {
            let column = Arc::new(StringArray::from(vec![unit.to_text()?]));
            Ok(vec![RecordBatch::try_new(Arc::clone(&SCHEMA), vec![column])?])
        };
        let partitions = units.iter().map(partition).collect::<anyhow::Result<Vec<_>>>()?;
        let input = MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&SCHEMA), None)?;
        Ok(Self::new(job, input, None))
    }

    pub(super) fn new(job: JobMessage, input: Arc<dyn ExecutionPlan>, work: Option<UnitWork>) -> Self {
        let properties = properties(&input);
        Self { job: Arc::new(job), input, work, properties }
    }

    pub(super) fn job(&self) -> &JobMessage {
        &self.job
    }
}

fn properties(input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(&SCHEMA)),
        Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for ScoreUnitsExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.job.model.get("name").and_then(|name| name.as_str()).unwrap_or_default();
        write!(f, "ScoreUnitsExec: model={name}, options={}", self.job.settings.options)
    }
}

impl ExecutionPlan for ScoreUnitsExec {
    fn name(&self) -> &'static str {
        "ScoreUnitsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return Err(DataFusionError::Internal("ScoreUnitsExec has one input".to_owned()));
        };
        Ok(Arc::new(Self { properties: properties(&input), input, ..Self::clone(&self) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(datafusion::physical_plan::ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    /// Repartitioning would break the mapping of one unit to one task.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(work) = self.work.clone() else {
            return Err(DataFusionError::Internal("a job runs on executors only".to_owned()));
        };
        let job = Arc::clone(&self.job);
        let done = self.input.execute(partition, context)?.then(move |units| {
            let (work, job) = (work.clone(), Arc::clone(&job));
            async move {
                let units = units?;
                let mut ids = Vec::with_capacity(units.num_rows());
                let messages = units.column(0).as_string_opt::<i32>();
                for message in messages.into_iter().flat_map(|messages| messages.iter().flatten()) {
                    ids.push(run(&work, &job, message).await?);
                }
                let ids: Arc<dyn Array> = Arc::new(StringArray::from(ids));
                Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), vec![ids])?)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&SCHEMA), done)))
    }
}

/// Runs a unit in a task of its own, so that it can clean up after a cancellation. Returns the unit's id.
async fn run(work: &UnitWork, job: &Arc<JobMessage>, message: &str) -> Result<String> {
    let executor = work.models.executor().to_owned();
    let failed =
        |error: &anyhow::Error| DataFusionError::Execution(format!("executor {executor}: {}", one_line(error)));
    let unit = UnitMessage::parse(message).map_err(|error| failed(&error))?;
    let id = unit.unit.id.clone();
    // Dropping this future drops the sender, which stops the unit.
    let (_wanted, unwanted) = oneshot::channel::<()>();
    let (work, job) = (work.clone(), Arc::clone(job));
    let working = tokio::spawn(async move {
        let stop = async move {
            drop(unwanted.await);
            Stopped::cancelled()
        };
        work.run(&job, &unit, stop).await
    });
    match working.await {
        Ok(done) => done.map_err(|error| failed(&error))?,
        Err(error) => return Err(failed(&anyhow::Error::new(error).context("the unit's task ended"))),
    }
    Ok(id)
}
