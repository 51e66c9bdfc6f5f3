//! SQL functions.
//!
//! | call | returns |
//! |---|---|
//! | `rerank(query, passage [, model [, options]])` | `Float32`; `List<Float32>` if the options list cutoff layers |
//! | `rerank_m3(query, passage [, options])`, one for each family | the same |
//! | `rerank_details(query, passage [, model [, options]])` | a struct: see [`Scores::details_fields`](crate::Scores) |
//!
//! ```text
//! arguments ──> Function (types, constants) ──> Call (model, options) ──> Reranker ──> column
//!               while planning and again while running
//! ```
//!
//! To add a function: a file with the struct and its trait implementation, and a line in `register.rs`.

mod call;
mod check;
mod errors;
mod function;
mod options;
mod register;
mod rerank;
mod rerank_details;
mod sync;

pub(crate) use errors::planning;
pub(crate) use function::{Function, MakeColumn, blocking, check_planned, column};
pub use register::{RerankFunctions, WithRerank, register_all};
