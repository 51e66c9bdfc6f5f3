//! Layers shared by the model families.
//!
//! Activations travel as `[tokens, hidden]` matrices, where tokens = batch x sequence, because `Gemm` with `transB`
//! multiplies by a weight as it is stored, `[out, in]`. Attention sees `[batch, sequence, hidden]`; the reshapes
//! between the two copy nothing.

use super::builder::{Attr, GraphBuilder, Value};
use super::proto::DataType;
use crate::checkpoint::{Tensor, Tensors};
use crate::error::Result;

/// What every model is fed, and what all its layers need to know about it.
pub(crate) struct Inputs {
    /// Token ids, `[batch, sequence]`, right-padded.
    pub(crate) ids: Value,
    /// Real tokens per row, i32 `[batch]`.
    pub(crate) lengths: Value,
    /// The shape `[batch, sequence, -1]`.
    pub(crate) batch_shape: Value,
}

impl Inputs {
    /// Declares `input_ids` and `attention_mask`. Only the mask's row sums are used: padding is on the right.
    pub(crate) fn declare(g: &mut GraphBuilder) -> Self {
        let ids = g.input("input_ids", DataType::Int64, &["batch", "sequence"]);
        let mask = g.input("attention_mask", DataType::Int64, &["batch", "sequence"]);
        let last_axis = g.ints(&[1]);
        let lengths = g.op("ReduceSum", &[&mask, &last_axis], &[("keepdims", Attr::Int(0))]);
        let lengths = g.cast(&lengths, DataType::Int32);
        let shape = g.op("Shape", &[&ids], &[]);
        let rest = g.ints(&[-1]);
        let batch_shape = g.op("Concat", &[&shape, &rest], &[("axis", Attr::Int(0))]);
        Self { ids, lengths, batch_shape }
    }

    /// `[tokens, hidden]` to `[batch, sequence, hidden]`.
    pub(crate) fn per_batch(&self, g: &mut GraphBuilder, tokens: &Value) -> Value {
        g.op("Reshape", &[tokens, &self.batch_shape], &[])
    }
}

/// `[batch, sequence, hidden]` to `[tokens, hidden]`.
pub(crate) fn per_token(g: &mut GraphBuilder, batch: &Value, hidden: usize) -> Value {
    let shape = g.ints(&[-1, hidden as i64]);
    g.op("Reshape", &[batch, &shape], &[])
}

/// `x · weightᵀ + bias` on `[rows, in]`.
pub(crate) fn linear(g: &mut GraphBuilder, x: &Value, weight: &Tensor, bias: Option<&Tensor>) -> Value {
    let weight = g.weight(weight);
    let transposed = [("transB", Attr::Int(1))];
    match bias {
        Some(bias) => {
            let bias = g.weight(bias);
            g.op("Gemm", &[x, &weight, &bias], &transposed)
        }
        None => g.op("Gemm", &[x, &weight], &transposed),
    }
}

/// Scale and shift of a layer normalisation.
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: &'a Tensor,
    pub(crate) eps: f64,
}

impl<'a> Norm<'a> {
    /// The tensors `name.weight` and `name.bias`, each `[hidden]`.
    pub(crate) fn named(tensors: &'a Tensors, name: &str, hidden: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: tensors.get(&format!("{name}.weight"), &[hidden])?,
            bias: tensors.get(&format!("{name}.bias"), &[hidden])?,
            eps,
        })
    }
}

/// `layer_norm(x + residual + bias)`, one fused operator; `bias` is the one of the projection that made `x`.
pub(crate) fn layer_norm_residual(
    g: &mut GraphBuilder,
    x: &Value,
    residual: &Value,
    bias: &Tensor,
    norm: &Norm<'_>,
) -> Value {
    let (weight, shift, bias) = (g.weight(norm.weight), g.weight(norm.bias), g.weight(bias));
    let eps = [("epsilon", Attr::Float(norm.eps as f32))];
    g.ms_op("SkipLayerNormalization", &[x, residual, &weight, &shift, &bias], &eps)
}
