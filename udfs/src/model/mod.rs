//! Opened checkpoints: their properties, the engines that run their graphs, and what is made from their weights.

mod batches;
mod engines;
mod facts;
mod load;
mod open;
mod weights;

pub use facts::Model;
