//! The kernels of this crate's own operators ([`OwnOperator`](crate::graph::OwnOperator)), and what makes ONNX Runtime
//! run them.

mod driver;
mod launch;
mod operators;
#[cfg(test)]
mod reference;

pub(super) use driver::kernels;
pub(super) use operators::cuda_operators;
#[cfg(test)]
pub(super) use reference::reference_operators;
