//! ONNX graphs written directly as protobuf: the fused operators by name, the weights by reference.

mod builder;
mod export;
mod layers;
mod proto;

pub(crate) use builder::{Attr, GraphBuilder, OnnxGraph, Value};
pub(crate) use export::export;
pub(crate) use layers::{Inputs, Norm, layer_norm_residual, linear, per_token};
pub(crate) use proto::DataType;
