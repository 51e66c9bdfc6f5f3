//! The rules that find calls in a plan, check them and place them.

mod check_rerank_calls;
mod expressions;
mod hoist;
mod hoist_rerank_calls;
mod insert_rerank_exec;
mod keep_fields_in_place;
mod needs;
#[cfg(test)]
mod plan_tests;

pub(crate) use check_rerank_calls::CheckRerankCalls;
pub(crate) use hoist_rerank_calls::HoistRerankCalls;
pub(crate) use insert_rerank_exec::InsertRerankExec;
pub(crate) use keep_fields_in_place::KeepFieldsInPlace;
