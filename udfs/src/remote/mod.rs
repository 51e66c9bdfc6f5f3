//! Models in plans that one process makes and another runs.

mod executor_models;
mod planned_model;

pub use executor_models::ExecutorModels;
pub(crate) use planned_model::MIXED_VERSIONS;
pub use planned_model::PlannedModel;
