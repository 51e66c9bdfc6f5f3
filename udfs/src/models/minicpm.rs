//! MiniCPM decoders with a scoring head at every layer: bge-reranker-v2-minicpm-layerwise.
//!
//! Reference: `LayerWiseMiniCPMForCausalLM`, as called by FlagEmbedding's `LayerWiseFlagLLMReranker`.

use super::architecture::Architecture;
use super::decoder::{ANCHORS, AttentionLimits, Decoder, Variation};
use super::exits::{Exit, ExitLayers, head};
use super::family::Family;
use super::gemma::PROMPT;
use super::graph_options::GraphOptions;
use super::shape::ModelShape;
use crate::checkpoint::{Config, Tensors};
use crate::error::Result;
use crate::graph::{Activation, Attr, GraphBuilder, OnnxGraph, linear_f32};
use crate::options::ScoreOptions;
use crate::text::{Recipe, Tokenizer};

/// A MiniCPM checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MiniCpm {
    decoder: Decoder,
    exits: ExitLayers,
    /// Whether every exit has a head of its own; otherwise all share one.
    head_multi: bool,
    pad_id: u32,
}

impl MiniCpm {
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for a missing key or a variant that is not implemented.
    pub(super) fn read(config: &Config) -> Result<Self> {
        for key in ["hidden_act", "hidden_activation"] {
            config.require(key, &["silu"])?;
        }
        // The other head types are vocabulary heads, which the reference's layer-wise class cannot score either.
        config.require("head_type", &["simple"])?;
        let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        if !hidden.is_multiple_of(heads) {
            return Err(config.error(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}")));
        }
        // The class divides, whatever this says.
        if let Some(head_dim) = config.optional_count("head_dim")?.filter(|head_dim| head_dim * heads != hidden) {
            return Err(config.error(format!("head_dim is {head_dim}, expected hidden_size / num_attention_heads")));
        }
        let layers = config.count("num_hidden_layers")?;
        let variation = Variation {
            head_dim: hidden / heads,
            activation: Activation::Silu,
            // Both default to 1 in the reference's class.
            embedding_scale: config.optional_positive("scale_emb")?.unwrap_or(1.0),
            // By the depth of the checkpoint, even for an early exit.
            residual_scale: config.optional_positive("scale_depth")?.unwrap_or(1.0) / (layers as f64).sqrt(),
            attention_scale: ((hidden / heads) as f64).powf(-0.5),
            norm_plus_one: false,
            norms_after: false,
            window: None,
        };
        Ok(Self {
            decoder: Decoder::read(config, variation)?,
            exits: ExitLayers::read(config, layers, 1)?,
            head_multi: config.optional_bool("head_multi")?.unwrap_or(true),
            pad_id: config.optional_id("pad_token_id")?.unwrap_or(0),
        })
    }
}

impl Architecture for MiniCpm {
    fn family(&self) -> Family {
        Family::MiniCpm
    }

    fn shape(&self) -> Option<ModelShape> {
        Some(self.decoder.shape(Some(&self.exits)))
    }

    fn vocabulary(&self) -> Option<usize> {
        Some(self.decoder.vocabulary)
    }

    fn pad_id(&self) -> u32 {
        self.pad_id
    }

    fn anchors(&self) -> &'static [&'static str] {
        ANCHORS
    }

    fn all_exits(&self) -> Vec<Exit> {
        self.exits.all()
    }

    fn recipe(&self, tokenizer: &Tokenizer) -> Result<Recipe> {
        Recipe::decoder(tokenizer, Some(tokenizer.bos()?), PROMPT)
    }

    fn graph_options(&self, options: &ScoreOptions) -> Result<GraphOptions> {
        let exits = self.exits.asked(options)?;
        let exits = exits.into_iter().map(|layer| Exit { layer, head: self.exits.head_of(layer) }).collect();
        Ok(GraphOptions { exits, ..GraphOptions::default() })
    }

    fn graph(&self, tensors: &Tensors, _tokenizer: &Tokenizer, options: &GraphOptions) -> Result<OnnxGraph> {
        let mut g = GraphBuilder::new(options.precision, options.target);
        let layers: Vec<usize> = options.exits.iter().map(|exit| exit.layer).collect();
        let outputs = self.decoder.run(&mut g, tensors, &layers, None, AttentionLimits::default())?;
        let hidden = self.decoder.hidden;
        let mut logits = Vec::new();
        for exit in &options.exits {
            let x = &outputs[&exit.layer];
            logits.push(if self.head_multi {
                head(&mut g, tensors, x, exit.head, hidden)?
            } else {
                linear_f32(&mut g, x, tensors.get("lm_head.linear_head.weight", &[1, hidden])?, None)
            });
        }
        let logits = g.op("Concat", &logits.iter().collect::<Vec<_>>(), &[("axis", Attr::Int(1))]);
        g.output("logits", &logits, options.columns());
        Ok(g.build("minicpm"))
    }
}
