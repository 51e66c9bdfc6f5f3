//! Gemma 2 decoders with layer heads and token compression: bge-reranker-v2.5-gemma2-lightweight.
//!
//! Reference: `CostWiseGemmaForCausalLM`, as called by FlagEmbedding's `LightWeightFlagLLMReranker`, with
//! transformers 4.46.3.
//!
//! Two quirks of the reference are on by default, because its published scores depend on them. Each can be turned off:
//!
//! * The head of a cutoff layer is chosen by the layer's **rank** among those asked for: `cutoff_layers = 28` reads
//!   layer 28 with the head that was trained for layer 8. `heads = 'by_layer'` uses layer 28's own.
//! * The checkpoint's attention soft-capping is never applied, because the class uses an attention kernel that lacks
//!   it. `attention_softcap = true` applies it.

use super::architecture::Architecture;
use super::decoder::{ANCHORS, AttentionLimits, Decoder, Variation};
use super::exits::{Exit, ExitLayers, head};
use super::family::Family;
use super::gemma::activation;
use super::graph_options::{GraphOptions, TokenCompression};
use super::shape::ModelShape;
use crate::checkpoint::{Config, Tensors};
use crate::error::{Error, Result};
use crate::graph::{Attr, GraphBuilder, OnnxGraph};
use crate::options::{Heads, ScoreOptions};
use crate::text::{Recipe, Tokenizer};

/// The lightweight reranker's prompt.
/// (`LightweightLLMReranker`, FlagEmbedding 1.4.2, `inference/reranker/decoder_only/lightweight.py`)
const PROMPT: &str = "Predict whether passage B contains an answer to query A.";

/// Defaults of the reference's class, for a configuration without the key.
/// (`Gemma2Config`, transformers 4.46.3, `configuration_gemma2.py`)
const DEFAULT_WINDOW: usize = 4096;
const DEFAULT_ATTENTION_SOFTCAP: f64 = 50.0;
const DEFAULT_FINAL_SOFTCAP: f64 = 30.0;

/// Default layers before which passages are compressed.
const DEFAULT_COMPRESS_LAYERS: &[usize] = &[8];

/// A lightweight checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gemma2 {
    decoder: Decoder,
    exits: ExitLayers,
    attention_softcap: Option<f64>,
    final_softcap: Option<f64>,
    pad_id: u32,
}

impl Gemma2 {
    /// # Errors
    /// [`Error::Checkpoint`] for a missing key or a variant that is not implemented.
    pub(super) fn read(config: &Config) -> Result<Self> {
        if !config.optional_bool("layer_wise")?.unwrap_or(false) {
            return Err(config.error("layer_wise is not true; a checkpoint without layer heads cannot score"));
        }
        for key in ["_attn_implementation", "attn_implementation"] {
            if config.optional_text(key)? == Some("eager") {
                return Err(config.error(format!(
                    "{key} is eager, with which the reference caps attention logits; remove it, and set the option \
                     attention_softcap"
                )));
            }
        }
        // The default of the reference's class fits one size only.
        config.count("num_key_value_heads")?;
        let layers = config.count("num_hidden_layers")?;
        let variation = Variation {
            head_dim: config.count("head_dim")?,
            activation: activation(config)?,
            embedding_scale: (config.count("hidden_size")? as f64).sqrt(),
            residual_scale: 1.0,
            attention_scale: config.positive("query_pre_attn_scalar")?.powf(-0.5),
            norm_plus_one: true,
            norms_after: true,
            window: if config.contains("sliding_window") {
                config.optional_count("sliding_window")?
            } else {
                Some(DEFAULT_WINDOW)
            },
        };
        Ok(Self {
            decoder: Decoder::read(config, variation)?,
            exits: ExitLayers::read(config, layers, config.count("layer_sep")?)?,
            attention_softcap: config.number_or_off("attn_logit_softcapping", DEFAULT_ATTENTION_SOFTCAP)?,
            final_softcap: config.number_or_off("final_logit_softcapping", DEFAULT_FINAL_SOFTCAP)?,
            pad_id: config.optional_id("pad_token_id")?.unwrap_or(0),
        })
    }

    /// The compression that takes effect: not at layer 0, nor after the last layer that is computed.
    fn compression(&self, options: &ScoreOptions, depth: usize) -> Result<Option<TokenCompression>> {
        let ratio = options.compress_ratio.unwrap_or(1);
        let asked = options.compress_layers.as_deref();
        if let Some(layer) = asked.into_iter().flatten().find(|&&layer| layer > self.decoder.layers) {
            return Err(Error::option(
                "compress_layers",
                format!("{layer} is not a layer of this model; its layers are 1 to {}", self.decoder.layers),
            ));
        }
        let mut layers: Vec<usize> = asked
            .unwrap_or(DEFAULT_COMPRESS_LAYERS)
            .iter()
            .copied()
            .filter(|&layer| 0 < layer && layer < depth)
            .collect();
        layers.sort_unstable();
        layers.dedup();
        Ok(Some(TokenCompression { ratio, layers }).filter(|compression| ratio > 1 && !compression.layers.is_empty()))
    }
}

impl Architecture for Gemma2 {
    fn family(&self) -> Family {
        Family::Gemma2
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

    fn sliding_window(&self) -> Option<usize> {
        self.decoder.window()
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
        let asked = self.exits.asked(options)?;
        let mut ranked = asked.clone();
        ranked.sort_unstable();
        ranked.dedup();
        let head_of = |layer: usize| match options.heads.unwrap_or_default() {
            Heads::Reference => ranked.partition_point(|&exit| exit < layer),
            Heads::ByLayer => self.exits.head_of(layer),
        };
        let depth = ranked.last().copied().unwrap_or(self.decoder.layers);
        Ok(GraphOptions {
            exits: asked.iter().map(|&layer| Exit { layer, head: head_of(layer) }).collect(),
            compression: self.compression(options, depth)?,
            attention_softcap: options.attention_softcap.unwrap_or(false) && self.attention_softcap.is_some(),
            ..GraphOptions::default()
        })
    }

    fn graph(&self, tensors: &Tensors, _tokenizer: &Tokenizer, options: &GraphOptions) -> Result<OnnxGraph> {
        let mut g = GraphBuilder::new(options.precision, options.target);
        let layers: Vec<usize> = options.exits.iter().map(|exit| exit.layer).collect();
        let limits = AttentionLimits {
            windowed: options.windowed,
            softcap: self.attention_softcap.filter(|_| options.attention_softcap).map(|cap| cap as f32),
        };
        let outputs = self.decoder.run(&mut g, tensors, &layers, options.compression.as_ref(), limits)?;
        let mut logits = Vec::new();
        for exit in &options.exits {
            logits.push(head(&mut g, tensors, &outputs[&exit.layer], exit.head, self.decoder.hidden)?);
        }
        let mut logits = g.op("Concat", &logits.iter().collect::<Vec<_>>(), &[("axis", Attr::Int(1))]);
        if let Some(cap) = self.final_softcap {
            let cap = g.float(cap as f32);
            logits = g.op("Div", &[&logits, &cap], &[]);
            logits = g.op("Tanh", &[&logits], &[]);
            logits = g.op("Mul", &[&logits, &cap], &[]);
        }
        g.output("logits", &logits, options.columns());
        Ok(g.build("gemma2"))
    }
}
