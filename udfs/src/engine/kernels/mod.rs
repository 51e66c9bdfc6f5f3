//! The kernels of this crate's own operators ([`OwnOperator`](crate::graph::OwnOperator)), and what makes ONNX Runtime
//! run them.

mod counts;
mod driver;
mod operators;
mod ptx;
#[cfg(test)]
mod reference;

pub(super) use operators::cuda_operators;
pub(super) use ptx::load;
#[cfg(test)]
pub(super) use reference::reference_operators;
