//! What the SQL functions need of the query engine's planning.

mod config;

pub use config::RerankConfig;
