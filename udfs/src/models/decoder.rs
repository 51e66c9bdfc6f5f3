//! The transformer that the decoder families share. What differs between them is data.

use std::collections::BTreeMap;

use super::exits::ExitLayers;
use super::graph_options::TokenCompression;
use super::rope::rope_theta;
use super::shape::ModelShape;
use crate::checkpoint::{Config, Tensor, Tensors};
use crate::error::Result;
use crate::graph::{
    Activation, CausalAttention, GatedMlp, GraphBuilder, RmsNorm, Rotary, Sequences, Uncompressed, Value, compress,
    declare_inputs, linear, per_token, scaled_linear, unsqueeze,
};

/// The default of all reference classes.
const DEFAULT_RMS_NORM_EPS: f64 = 1e-6;

/// The embedding table: the tensor by which a decoder's names are recognised.
pub(super) const EMBEDDINGS: &str = "model.embed_tokens.weight";

/// The output layer. Where it is tied to the embeddings, a checkpoint may have these under its name alone.
/// (`safetensors.torch.save_model` keeps one name of a shared tensor.)
pub(super) const OUTPUT: &str = "lm_head.weight";

/// The names of the embedding table where it may be the output layer too.
pub(super) const ANCHORS: &[&str] = &[EMBEDDINGS, OUTPUT];

/// A decoder: its dimensions, under keys that all families share, and what is specific to its family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoder {
    pub(super) layers: usize,
    pub(super) hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    pub(super) vocabulary: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    variation: Variation,
}

/// What is specific to a family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variation {
    /// Width of a head, independent of the hidden width.
    pub(super) head_dim: usize,
    pub(super) activation: Activation,
    /// Factor of the embeddings.
    pub(super) embedding_scale: f64,
    /// Factor of what a layer adds to the residual stream.
    pub(super) residual_scale: f64,
    /// Factor of the attention logits.
    pub(super) attention_scale: f64,
    /// Whether norm weights are stored less one.
    pub(super) norm_plus_one: bool,
    /// Whether what a layer adds to the residual stream is normalised first.
    pub(super) norms_after: bool,
    /// Sliding window of the even layers.
    pub(super) window: Option<usize>,
}

/// What limits the attention of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct AttentionLimits {
    /// Whether the sliding window applies.
    pub(super) windowed: bool,
    /// Caps logits: `cap * tanh(logit / cap)`.
    pub(super) softcap: Option<f32>,
}

/// The residual stream, `x + delta`, not yet summed: the sum is fused with the next norm.
struct Stream {
    x: Value,
    delta: Option<Value>,
}

impl Stream {
    /// The normalised sum, and the sum itself.
    fn normalised(&self, g: &mut GraphBuilder, norm: &RmsNorm<'_>) -> (Value, Value) {
        match &self.delta {
            Some(delta) => norm.of_sum(g, delta, &self.x),
            None => (norm.of(g, &self.x), self.x.clone()),
        }
    }

    fn sum(&self, g: &mut GraphBuilder) -> Value {
        match &self.delta {
            Some(delta) => g.op("Add", &[&self.x, delta], &[]),
            None => self.x.clone(),
        }
    }
}

impl Decoder {
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for a missing key or a variant that is not implemented.
    pub(super) fn read(config: &Config, variation: Variation) -> Result<Self> {
        let heads = config.count("num_attention_heads")?;
        let decoder = Self {
            layers: config.count("num_hidden_layers")?,
            hidden: config.count("hidden_size")?,
            intermediate: config.count("intermediate_size")?,
            heads,
            kv_heads: config.optional_count("num_key_value_heads")?.unwrap_or(heads),
            vocabulary: config.count("vocab_size")?,
            rms_norm_eps: config.optional_positive("rms_norm_eps")?.unwrap_or(DEFAULT_RMS_NORM_EPS),
            rope_theta: rope_theta(config)?,
            variation,
        };
        if !decoder.heads.is_multiple_of(decoder.kv_heads) {
            return Err(config.error(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {}",
                decoder.heads, decoder.kv_heads
            )));
        }
        if !decoder.variation.head_dim.is_multiple_of(2) {
            return Err(
                config.error(format!("head_dim {} is odd; rotary embedding needs pairs", decoder.variation.head_dim))
            );
        }
        decoder.check_layer_types(config)?;
        Ok(decoder)
    }

    /// transformers 5 writes the type of each layer, which the families fix.
    fn check_layer_types(&self, config: &Config) -> Result<()> {
        let types = config.texts("layer_types")?;
        let expected = |layer: usize| if self.is_windowed(layer) { "sliding_attention" } else { "full_attention" };
        match types.iter().enumerate().find(|&(layer, layer_type)| *layer_type != expected(layer)) {
            None if types.is_empty() || types.len() == self.layers => Ok(()),
            None => Err(config.error(format!("layer_types has {} entries for {} layers", types.len(), self.layers))),
            Some((layer, found)) => Err(config.error(format!(
                "layer_types says {found} for layer {layer}, which is not supported; expected {}",
                expected(layer)
            ))),
        }
    }

    /// Whether the sliding window, if there is one, limits this layer.
    fn is_windowed(&self, layer: usize) -> bool {
        self.variation.window.is_some() && layer.is_multiple_of(2)
    }

    pub(super) fn shape(&self, exits: Option<&ExitLayers>) -> ModelShape {
        ModelShape {
            layers: self.layers,
            hidden: self.hidden,
            intermediate: self.intermediate,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.variation.head_dim,
            vocabulary: self.vocabulary,
            // Rotary positions have no table that limits the length.
            max_tokens: None,
            mlp_matrices: 3,
            exits: exits.map(|exits| (exits.first, exits.last, exits.step)),
        }
    }

    /// See [`Architecture::sliding_window`](super::architecture::Architecture::sliding_window).
    pub(super) fn window(&self) -> Option<usize> {
        self.variation.window
    }

    pub(super) fn embeddings<'a>(&self, tensors: &'a Tensors) -> Result<&'a Tensor> {
        tensors.get(EMBEDDINGS, &[self.vocabulary, self.hidden])
    }

    /// Declares the inputs and runs the layers up to the last of `exits`. Returns, for each distinct exit, the final
    /// norm of the residual stream at the last token: `[batch, hidden]`.
    ///
    /// The last layer computes keys and values for all tokens, and everything else for the last token only.
    pub(super) fn run(
        &self,
        g: &mut GraphBuilder,
        tensors: &Tensors,
        exits: &[usize],
        compression: Option<&TokenCompression>,
        limits: AttentionLimits,
    ) -> Result<BTreeMap<usize, Value>> {
        let (ids, mut sequences) = declare_inputs(g);
        let uncompressed = compression.map(|compression| (compression, Uncompressed::declare(g)));
        let rotary = Rotary::new(g, &sequences, self.variation.head_dim, self.rope_theta);
        let final_norm = self.norm(tensors, "model.norm")?;

        let x = g.rows(self.embeddings(tensors)?, &ids);
        let x = per_token(g, &x, self.hidden);
        let scale = g.float(self.variation.embedding_scale as f32);
        let scale = g.cast_to_activation(&scale);
        let mut stream = Stream { x: g.op("Mul", &[&x, &scale], &[]), delta: None };

        let depth = exits.iter().max().copied().unwrap_or(self.layers);
        let mut outputs = BTreeMap::new();
        for layer in 0..depth {
            if exits.contains(&layer) {
                let last = Stream {
                    x: sequences.last_tokens(g, &stream.x),
                    delta: stream.delta.as_ref().map(|delta| sequences.last_tokens(g, delta)),
                };
                outputs.insert(layer, last.normalised(g, &final_norm).0);
            }
            if let Some((compression, uncompressed)) = &uncompressed
                && compression.layers.contains(&layer)
            {
                let x = stream.sum(g);
                let (x, shorter) = compress(g, &x, &sequences, uncompressed, compression.ratio, self.hidden);
                stream = Stream { x, delta: None };
                sequences = shorter;
            }
            let only_last_token = layer + 1 == depth;
            stream = self.layer(g, tensors, layer, &stream, &sequences, &rotary, limits, only_last_token)?;
        }
        outputs.insert(depth, stream.normalised(g, &final_norm).0);
        Ok(outputs)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
    fn layer(
        &self,
        g: &mut GraphBuilder,
        tensors: &Tensors,
        layer: usize,
        stream: &Stream,
        sequences: &Sequences,
        rotary: &Rotary,
        limits: AttentionLimits,
        only_last_token: bool,
    ) -> Result<Stream> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let weight = |part: &str, out: usize, r#in: usize| tensors.get(&name(&format!("{part}.weight")), &[out, r#in]);
        let (hidden, kv_width, width) =
            (self.hidden, self.kv_heads * self.variation.head_dim, self.heads * self.variation.head_dim);

        let (mut x, mut residual) = stream.normalised(g, &self.norm(tensors, &name("input_layernorm"))?);
        let keys = linear(g, &x, weight("self_attn.k_proj", kv_width, hidden)?, None);
        let keys = sequences.per_batch(g, &keys);
        let keys = rotary.apply(g, &keys);
        let values = linear(g, &x, weight("self_attn.v_proj", kv_width, hidden)?, None);
        let values = sequences.per_batch(g, &values);

        let attention = CausalAttention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            scale: self.variation.attention_scale as f32,
            window: self.variation.window.filter(|_| limits.windowed && self.is_windowed(layer)),
            softcap: limits.softcap,
        };
        let query_weight = weight("self_attn.q_proj", width, hidden)?;
        if only_last_token {
            residual = sequences.last_tokens(g, &residual);
        }
        let attended = if only_last_token && attention.can_attend_from_last() {
            x = sequences.last_tokens(g, &x);
            let queries = linear(g, &x, query_weight, None);
            let queries = unsqueeze(g, &queries, &[1]);
            let position = sequences.last_positions(g);
            let queries = rotary.apply_at(g, &queries, &position);
            let attended = attention.apply_to_last(g, sequences, &queries, &keys, &values);
            per_token(g, &attended, width)
        } else {
            let queries = linear(g, &x, query_weight, None);
            let queries = sequences.per_batch(g, &queries);
            let queries = rotary.apply(g, &queries);
            let attended = attention.apply(g, sequences, &queries, &keys, &values);
            let attended = per_token(g, &attended, width);
            if only_last_token { sequences.last_tokens(g, &attended) } else { attended }
        };
        let residual_scale = self.variation.residual_scale as f32;
        let mut delta = scaled_linear(g, &attended, weight("self_attn.o_proj", hidden, width)?, residual_scale);

        let mlp_norm = if self.variation.norms_after {
            delta = self.norm(tensors, &name("post_attention_layernorm"))?.of(g, &delta);
            self.norm(tensors, &name("pre_feedforward_layernorm"))?
        } else {
            self.norm(tensors, &name("post_attention_layernorm"))?
        };
        let (x, residual) = mlp_norm.of_sum(g, &delta, &residual);
        let mlp = GatedMlp {
            gate: weight("mlp.gate_proj", self.intermediate, hidden)?,
            up: weight("mlp.up_proj", self.intermediate, hidden)?,
            down: weight("mlp.down_proj", hidden, self.intermediate)?,
            activation: self.variation.activation,
        };
        let mut delta = mlp.apply(g, &x, residual_scale);
        if self.variation.norms_after {
            delta = self.norm(tensors, &name("post_feedforward_layernorm"))?.of(g, &delta);
        }
        Ok(Stream { x: residual, delta: Some(delta) })
    }

    fn norm<'a>(&self, tensors: &'a Tensors, name: &str) -> Result<RmsNorm<'a>> {
        let weight = tensors.get(&format!("{name}.weight"), &[self.hidden])?;
        Ok(RmsNorm { weight, eps: self.rms_norm_eps, plus_one: self.variation.norm_plus_one })
    }
}
