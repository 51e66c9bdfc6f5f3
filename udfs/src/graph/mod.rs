//! ONNX graphs, written directly as protobuf: fused operators by name, weights by reference.

mod builder;
mod compression;
mod export;
mod layers;
mod own_operators;
mod proto;

pub(crate) use builder::{Attr, GraphBuilder, OnnxGraph, QuantizedNames, Target, Value, converted_name};
pub(crate) use compression::{HEAD_TOKENS, TAIL_TOKENS, Uncompressed, compress};
pub(crate) use export::export;
pub(crate) use layers::{
    Activation, CausalAttention, GatedMlp, LayerNorm, RmsNorm, Rotary, Sequences, bias_after_constant, declare_inputs,
    full_attention, gelu_of_linear, linear, linear_f32, per_token, scaled_linear, unsqueeze,
};
pub(crate) use own_operators::{OWN_DOMAIN, OwnOperator};
pub(crate) use proto::DataType;
