//! DataFusion sessions with the tiny checkpoints, and the metrics of their plans.

use std::sync::Arc;

use datafusion::arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion_rerank::{Family, ModelRegistry, RerankFunctions};

use super::checkpoints::{CHECKPOINTS, fixture};
use super::goldens::{Goldens, goldens};

/// A registry with the tiny checkpoints, named by their families, and without the models of this machine.
pub(crate) fn models() -> ModelRegistry {
    let models = ModelRegistry::default().with_hub_cache(fixture("no-such-folder"));
    for (family, checkpoint) in Family::ALL.iter().zip(CHECKPOINTS) {
        models.register(family.name(), fixture(checkpoint));
    }
    models
}

/// A session with all functions, including the synchronous ones, and two tables: `pairs(id, query, passage)` and
/// `goldens(name, id, score)`, where ids are the positions of the pairs in the golden file.
pub(crate) fn session(models: ModelRegistry) -> SessionContext {
    let ctx = SessionContext::new();
    let functions = RerankFunctions::new(models);
    functions.register(&ctx).unwrap();
    for udf in functions.sync_udfs() {
        ctx.register_udf(udf);
    }
    let Goldens { pairs, cases } = goldens();
    let ids = Int64Array::from_iter_values(0..pairs.len() as i64);
    let (queries, passages): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let table = RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as _),
        ("query", Arc::new(StringArray::from(queries)) as _),
        ("passage", Arc::new(StringArray::from(passages)) as _),
    ]);
    ctx.register_batch("pairs", table.unwrap()).unwrap();
    let rows: Vec<(&str, i64, f64)> = cases
        .iter()
        .flat_map(|case| case.scores.iter().enumerate().map(|(id, score)| (case.name.as_str(), id as i64, *score)))
        .collect();
    let table = RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))) as _),
        ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))) as _),
        ("score", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))) as _),
    ]);
    ctx.register_batch("goldens", table.unwrap()).unwrap();
    ctx
}

/// A metric summed over all operators of a plan.
pub(crate) fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name(name)).map_or(0, |value| value.as_usize());
    own + plan.children().into_iter().map(|child| metric(child, name)).sum::<usize>()
}
