//! Layers shared by the model families.
//!
//! Activations are `[tokens, hidden]` matrices, where tokens = batch x sequence, because `Gemm` with `transB`
//! multiplies by a weight in its stored layout, `[out, in]`. Attention takes `[batch, sequence, hidden]`; the reshapes
//! between the two copy nothing.

use super::builder::{Attr, GraphBuilder, Value};
use super::own_operators::OwnOperator;
use super::proto::DataType;
use crate::checkpoint::{Tensor, Tensors};
use crate::error::Result;
use crate::options::Precision;

/// A batch of right-padded sequences: all that layers need besides the activations.
#[derive(Debug, Clone)]
pub(crate) struct Sequences {
    /// Real tokens of each row, i64 `[batch]`.
    pub(crate) lengths: Value,
    /// The shape `[batch, sequence, -1]`.
    pub(crate) shape: Value,
}

impl Sequences {
    /// Real tokens of each row, i32 `[batch]`.
    pub(crate) fn lengths_i32(&self, g: &mut GraphBuilder) -> Value {
        g.cast(&self.lengths, DataType::Int32)
    }

    /// Tokens of a row, padding included: a scalar.
    pub(crate) fn padded(&self, g: &mut GraphBuilder) -> Value {
        let sequence = g.int(1);
        g.op("Gather", &[&self.shape, &sequence], &[])
    }

    /// The positions 0, 1, ... of a row, i64 `[sequence]`.
    pub(crate) fn positions(&self, g: &mut GraphBuilder) -> Value {
        let (start, end, step) = (g.int(0), self.padded(g), g.int(1));
        g.op("Range", &[&start, &end, &step], &[])
    }

    /// Position of each row's last real token, i64 `[batch, 1]`.
    pub(crate) fn last_positions(&self, g: &mut GraphBuilder) -> Value {
        let one = g.int(1);
        let last = g.op("Sub", &[&self.lengths, &one], &[]);
        unsqueeze(g, &last, &[1])
    }

    /// `[tokens, hidden]` to `[batch, sequence, hidden]`.
    pub(crate) fn per_batch(&self, g: &mut GraphBuilder, tokens: &Value) -> Value {
        g.op("Reshape", &[tokens, &self.shape], &[])
    }

    /// The rows' last real tokens: `[tokens, hidden]` to `[batch, hidden]`.
    pub(crate) fn last_tokens(&self, g: &mut GraphBuilder, tokens: &Value) -> Value {
        let batch = self.per_batch(g, tokens);
        let last = self.last_positions(g);
        g.op("GatherND", &[&batch, &last], &[("batch_dims", Attr::Int(1))])
    }
}

/// Declares `input_ids` and `attention_mask`, both i64 `[batch, sequence]`. Returns the ids and the sequences. Padding
/// is on the right, so only the mask's row sums matter.
pub(crate) fn declare_inputs(g: &mut GraphBuilder) -> (Value, Sequences) {
    let ids = g.input("input_ids", DataType::Int64, &["batch", "sequence"]);
    let mask = g.input("attention_mask", DataType::Int64, &["batch", "sequence"]);
    let sequence_axis = g.ints(&[1]);
    let lengths = g.op("ReduceSum", &[&mask, &sequence_axis], &[("keepdims", Attr::Int(0))]);
    let shape = g.op("Shape", &[&ids], &[]);
    let rest = g.ints(&[-1]);
    let shape = g.op("Concat", &[&shape, &rest], &[("axis", Attr::Int(0))]);
    (ids, Sequences { lengths, shape })
}

/// `[batch, sequence, hidden]` to `[tokens, hidden]`.
pub(crate) fn per_token(g: &mut GraphBuilder, batch: &Value, hidden: usize) -> Value {
    let shape = g.ints(&[-1, hidden as i64]);
    g.op("Reshape", &[batch, &shape], &[])
}

/// Inserts dimensions of size 1 at `axes`.
pub(crate) fn unsqueeze(g: &mut GraphBuilder, value: &Value, axes: &[i64]) -> Value {
    let axes = g.ints(axes);
    g.op("Unsqueeze", &[value, &axes], &[])
}

/// `x · weightᵀ + bias` on `[rows, in]`, in the precision of the graph.
pub(crate) fn linear(g: &mut GraphBuilder, x: &Value, weight: &Tensor, bias: Option<&Tensor>) -> Value {
    let bias = bias.map(|bias| g.weight(bias));
    if g.precision() == Precision::Int8 {
        let (weight, scale) = g.quantized(weight);
        let none = Value::none();
        return g.ms_op("DynamicQuantizeMatMul", &[x, &weight, &scale, &none, &bias.unwrap_or(Value::none())], &[]);
    }
    let width = weight.shape[0];
    let weight = g.weight(weight);
    // ONNX Runtime writes the bias into each row of the output before the product, which takes an H100 twice as long as
    // adding it afterwards: 60 against 28 us for 16,384 rows of 1,024.
    if let Some(bias) = &bias
        && g.takes_own_operators(width)
    {
        let product = gemm(g, x, &weight, None, &[]);
        return g.own_op(OwnOperator::AddBias, &[&product, bias]);
    }
    gemm(g, x, &weight, bias.as_ref(), &[])
}

/// `x · weightᵀ + bias` on `[rows, in]` in f32, whatever the precision of the graph: in a head, the last digits matter.
pub(crate) fn linear_f32(g: &mut GraphBuilder, x: &Value, weight: &Tensor, bias: Option<&Tensor>) -> Value {
    let x = g.cast_to_f32(x);
    let weight = g.weight_f32(weight);
    let bias = bias.map(|bias| g.weight_f32(bias));
    gemm(g, &x, &weight, bias.as_ref(), &[])
}

/// `weight · constant + bias`, `[out]`: the bias of a linear layer whose input lacks `constant`, `[in]`. Computed in
/// f32; ONNX Runtime folds it while it loads.
pub(crate) fn bias_after_constant(g: &mut GraphBuilder, weight: &Tensor, bias: &Tensor, constant: &Tensor) -> Value {
    let (weight, bias, constant) = (g.weight_f32(weight), g.weight_f32(bias), g.weight_f32(constant));
    let product = g.op("MatMul", &[&weight, &constant], &[]);
    let sum = g.op("Add", &[&product, &bias], &[]);
    g.cast_to_activation(&sum)
}

/// `scale * x · weightᵀ` on `[rows, in]`.
pub(crate) fn scaled_linear(g: &mut GraphBuilder, x: &Value, weight: &Tensor, scale: f32) -> Value {
    if g.precision() != Precision::Int8 {
        let weight = g.weight(weight);
        return gemm(g, x, &weight, None, &[("alpha", Attr::Float(scale))]);
    }
    let product = linear(g, x, weight, None);
    if scale.to_bits() == 1.0_f32.to_bits() {
        return product;
    }
    let scale = g.float(scale);
    g.op("Mul", &[&product, &scale], &[])
}

fn gemm(g: &mut GraphBuilder, x: &Value, weight: &Value, bias: Option<&Value>, attributes: &[(&str, Attr)]) -> Value {
    let attributes = [&[("transB", Attr::Int(1))], attributes].concat();
    let operands: Vec<&Value> = [x, weight].into_iter().chain(bias).collect();
    g.op("Gemm", &operands, &attributes)
}

/// Scale and shift of a layer normalisation.
pub(crate) struct LayerNorm<'a> {
    weight: &'a Tensor,
    bias: &'a Tensor,
    eps: f64,
}

impl<'a> LayerNorm<'a> {
    /// Reads the tensors `name.weight` and `name.bias`, each `[hidden]`.
    pub(crate) fn named(tensors: &'a Tensors, name: &str, hidden: usize, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: tensors.get(&format!("{name}.weight"), &[hidden])?,
            bias: tensors.get(&format!("{name}.bias"), &[hidden])?,
            eps,
        })
    }

    fn of(&self, g: &mut GraphBuilder, x: &Value) -> Value {
        let (weight, shift) = (g.weight(self.weight), g.weight(self.bias));
        g.op("LayerNormalization", &[x, &weight, &shift], &[("epsilon", Attr::Float(self.eps as f32))])
    }

    /// `layer_norm(x + y + bias)`; the bias is `[hidden]`. One fused operator on a GPU only: its CPU kernel takes eight
    /// times as long as a sum and a norm (ONNX Runtime 1.32: 4.1 against 0.5 ns an element).
    pub(crate) fn of_sum(&self, g: &mut GraphBuilder, x: &Value, y: &Value, bias: &Value) -> Value {
        if !g.on_gpu() {
            let sum = g.op("Add", &[x, bias], &[]);
            let sum = g.op("Add", &[&sum, y], &[]);
            return self.of(g, &sum);
        }
        let (weight, shift) = (g.weight(self.weight), g.weight(self.bias));
        let eps = [("epsilon", Attr::Float(self.eps as f32))];
        g.ms_op("SkipLayerNormalization", &[x, y, &weight, &shift, bias], &eps)
    }

    /// `layer_norm(x · weightᵀ + bias + residual)` on `[rows, in]`. Adds the bias where that is cheapest.
    pub(crate) fn of_linear(
        &self,
        g: &mut GraphBuilder,
        x: &Value,
        weight: &Tensor,
        bias: &Tensor,
        residual: &Value,
    ) -> Value {
        if g.on_gpu() {
            let product = linear(g, x, weight, None);
            let bias = g.weight(bias);
            return self.of_sum(g, &product, residual, &bias);
        }
        let product = linear(g, x, weight, Some(bias));
        let sum = g.op("Add", &[&product, residual], &[]);
        self.of(g, &sum)
    }
}

/// `gelu(x · weightᵀ + bias)` on `[rows, in]`, with GELU by the error function. Adds the bias where that is cheapest.
pub(crate) fn gelu_of_linear(g: &mut GraphBuilder, x: &Value, weight: &Tensor, bias: &Tensor) -> Value {
    if g.on_gpu() {
        let product = linear(g, x, weight, None);
        let bias = g.weight(bias);
        let operands = [&product, &bias];
        if g.takes_own_operators(weight.shape[0]) {
            return g.own_op(OwnOperator::BiasGelu, &operands);
        }
        return g.ms_op("BiasGelu", &operands, &[]);
    }
    let sum = linear(g, x, weight, Some(bias));
    Activation::GeluErf.apply(g, &sum)
}

/// A root mean square normalisation: `x / sqrt(mean(x²) + eps) * weight`.
pub(crate) struct RmsNorm<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) eps: f64,
    /// Gemma stores `weight - 1`.
    pub(crate) plus_one: bool,
}

impl RmsNorm<'_> {
    fn scale(&self, g: &mut GraphBuilder) -> Value {
        if !self.plus_one {
            return g.weight(self.weight);
        }
        // ONNX Runtime folds this while it loads.
        let weight = g.weight_f32(self.weight);
        let one = g.float(1.0);
        let scale = g.op("Add", &[&weight, &one], &[]);
        g.cast_to_activation(&scale)
    }

    pub(crate) fn of(&self, g: &mut GraphBuilder, x: &Value) -> Value {
        let scale = self.scale(g);
        let attributes = [("epsilon", Attr::Float(self.eps as f32)), ("axis", Attr::Int(-1))];
        g.op("RMSNormalization", &[x, &scale], &attributes)
    }

    /// The normalised `x + residual`, and the sum itself. One fused operator on a GPU only: its CPU kernel takes twice
    /// as long as a sum and a norm.
    pub(crate) fn of_sum(&self, g: &mut GraphBuilder, x: &Value, residual: &Value) -> (Value, Value) {
        if !g.on_gpu() {
            let sum = g.op("Add", &[x, residual], &[]);
            return (self.of(g, &sum), sum);
        }
        let scale = self.scale(g);
        let eps = [("epsilon", Attr::Float(self.eps as f32))];
        let operator = "SkipSimplifiedLayerNormalization";
        let [normalised, sum] = g.ms_op_outputs(operator, &[x, residual, &scale], &eps, [0, 3]);
        (normalised, sum)
    }
}

/// Nonlinearity of a gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// `x * sigmoid(x)`
    Silu,
}

impl Activation {
    fn apply(self, g: &mut GraphBuilder, x: &Value) -> Value {
        match self {
            Self::GeluTanh => g.ms_op("FastGelu", &[x], &[]),
            Self::GeluErf => g.ms_op("Gelu", &[x], &[]),
            Self::Silu => g.ms_op("QuickGelu", &[x], &[("alpha", Attr::Float(1.0))]),
        }
    }
}

/// Weights of `down(activation(gate(x)) * up(x))`.
pub(crate) struct GatedMlp<'a> {
    pub(crate) gate: &'a Tensor,
    pub(crate) up: &'a Tensor,
    pub(crate) down: &'a Tensor,
    pub(crate) activation: Activation,
}

impl GatedMlp<'_> {
    /// The MLP on `[rows, hidden]`, multiplied by `scale`.
    pub(crate) fn apply(&self, g: &mut GraphBuilder, x: &Value, scale: f32) -> Value {
        let gate = linear(g, x, self.gate, None);
        let up = linear(g, x, self.up, None);
        let fused = match self.activation {
            Activation::GeluTanh => Some(OwnOperator::GatedGelu),
            Activation::Silu => Some(OwnOperator::GatedSilu),
            Activation::GeluErf => None,
        };
        let inner = if let Some(fused) = fused.filter(|_| g.takes_own_operators(self.gate.shape[0])) {
            g.own_op(fused, &[&gate, &up])
        } else {
            let gate = self.activation.apply(g, &gate);
            g.op("Mul", &[&gate, &up], &[])
        };
        scaled_linear(g, &inner, self.down, scale)
    }
}

/// Rotary position embedding, half-split: cosine and sine of every position, `[sequence, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    head_dim: usize,
    cosine: Value,
    sine: Value,
}

impl Rotary {
    /// Tables for the positions of `sequences`; shorter sequences can use them too.
    pub(crate) fn new(g: &mut GraphBuilder, sequences: &Sequences, head_dim: usize, theta: f64) -> Self {
        let frequencies: Vec<f32> =
            (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64) as f32).collect();
        let frequencies = g.floats("rotary/frequencies", &frequencies);
        let positions = sequences.positions(g);
        let positions = g.cast(&positions, DataType::Float);
        let positions = unsqueeze(g, &positions, &[1]);
        let angles = g.op("Mul", &[&positions, &frequencies], &[]);
        let [cosine, sine] = ["Cos", "Sin"].map(|function| {
            let table = g.op(function, &[&angles], &[]);
            g.cast_to_activation(&table)
        });
        Self { head_dim, cosine, sine }
    }

    /// Rotates `[batch, sequence, heads * head_dim]` at positions 0, 1, ...
    pub(crate) fn apply(&self, g: &mut GraphBuilder, x: &Value) -> Value {
        if g.takes_own_operators(self.head_dim / 2) {
            return g.own_op(OwnOperator::Rotate, &[x, &self.cosine, &self.sine]);
        }
        let from_zero = g.ints(&[0]);
        self.apply_at(g, x, &from_zero)
    }

    /// Rotates each token at its own position; `positions` is i64 `[batch, sequence]`.
    pub(crate) fn apply_at(&self, g: &mut GraphBuilder, x: &Value, positions: &Value) -> Value {
        g.ms_op("RotaryEmbedding", &[x, positions, &self.cosine, &self.sine], &[])
    }
}

/// Attention of every query to all real tokens of its row, on `[batch, sequence, heads * head_dim]` operands. A row has
/// any number of queries, and one key per token, padding included.
///
/// The other operators of ONNX Runtime 1.31.1 on an H100, with m3's layers: with `MultiHeadAttention` the model is 4 %
/// slower in fp16, and its scores in fp32 are wrong, because a kernel ignores the lengths; `GroupQueryAttention`
/// without a causal mask gives wrong scores; `PackedMultiHeadAttention` on unpadded tokens is as fast, takes three
/// times the memory and has no bf16. On the CPU, `MultiHeadAttention` takes a third longer.
pub(crate) fn full_attention(
    g: &mut GraphBuilder,
    sequences: &Sequences,
    heads: usize,
    [queries, keys, values]: [&Value; 3],
) -> Value {
    let none = Value::none();
    let heads = |name| (name, Attr::Int(heads as i64));
    let operands = [queries, keys, values, &none, &none, &none, &sequences.lengths];
    g.op("Attention", &operands, &[heads("q_num_heads"), heads("kv_num_heads")])
}

/// Causal grouped-query attention on `[batch, sequence, heads * head_dim]` operands. Right-padding needs no mask: no
/// real token attends to a later one.
///
/// `GroupQueryAttention` could also rotate queries and keys itself. On an H100 that is no faster (gemma) or 4 % slower
/// (minicpm), and takes up to twice the memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CausalAttention {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) scale: f32,
    /// How many tokens a token attends to, itself included.
    pub(crate) window: Option<usize>,
    /// Caps logits: `cap * tanh(logit / cap)`.
    pub(crate) softcap: Option<f32>,
}

impl CausalAttention {
    /// Attention from every token.
    pub(crate) fn apply(
        &self,
        g: &mut GraphBuilder,
        sequences: &Sequences,
        queries: &Value,
        keys: &Value,
        values: &Value,
    ) -> Value {
        if self.window.is_none() && self.softcap.is_none() {
            let causal = ("is_causal", Attr::Int(1));
            return g.op("Attention", &[queries, keys, values], &[self.heads(), self.kv_heads(), self.scale(), causal]);
        }
        let mut attributes = vec![("num_heads", Attr::Int(self.heads as i64)), self.kv_heads(), self.scale()];
        attributes.extend(self.window.map(|window| ("local_window_size", Attr::Int(window as i64))));
        attributes.extend(self.softcap.map(|cap| ("softcap", Attr::Float(cap))));
        let lengths = sequences.lengths_i32(g);
        let one = g.int(1);
        let one = g.cast(&one, DataType::Int32);
        let last = g.op("Sub", &[&lengths, &one], &[]);
        let padded = sequences.padded(g);
        let padded = g.cast(&padded, DataType::Int32);
        let none = Value::none();
        let operands = [queries, keys, values, &none, &none, &last, &padded];
        // The GPU kernel requires outputs for keys and values. Given them, the CPU kernel is a flash attention, a fifth
        // faster for heads of 256. Before ONNX Runtime 1.28, that kernel leaves the output after a row's last real
        // token uninitialized, NaN at worst, and the next layer multiplies it by zero.
        let [attended, _, _] = g.ms_op_outputs("GroupQueryAttention", &operands, &attributes, [0, 1, 2]);
        attended
    }

    /// Whether [`Self::apply_to_last`] can be used. ONNX does not specify whether a mask comes before or after the
    /// soft-capping.
    pub(crate) fn can_attend_from_last(&self) -> bool {
        self.softcap.is_none()
    }

    /// Attention from each row's last real token only: `queries` is `[batch, 1, heads * head_dim]`.
    pub(crate) fn apply_to_last(
        &self,
        g: &mut GraphBuilder,
        sequences: &Sequences,
        queries: &Value,
        keys: &Value,
        values: &Value,
    ) -> Value {
        let last = sequences.last_positions(g);
        let positions = sequences.positions(g);
        let mut visible = g.op("LessOrEqual", &[&positions, &last], &[]);
        if let Some(window) = self.window {
            let window = g.int(window as i64);
            let before = g.op("Sub", &[&last, &window], &[]);
            let inside = g.op("Greater", &[&positions, &before], &[]);
            visible = g.op("And", &[&visible, &inside], &[]);
        }
        let visible = unsqueeze(g, &visible, &[1, 2]);
        g.op("Attention", &[queries, keys, values, &visible], &[self.heads(), self.kv_heads(), self.scale()])
    }

    fn heads(&self) -> (&'static str, Attr) {
        ("q_num_heads", Attr::Int(self.heads as i64))
    }

    fn kv_heads(&self) -> (&'static str, Attr) {
        ("kv_num_heads", Attr::Int(self.kv_heads as i64))
    }

    fn scale(&self) -> (&'static str, Attr) {
        ("scale", Attr::Float(self.scale))
    }
}
