//! Gemma decoders that answer "Yes": bge-reranker-v2-gemma.
//!
//! Reference: `GemmaForCausalLM` of transformers 4.46.3, as called by FlagEmbedding's `FlagLLMReranker`.

use super::architecture::Architecture;
use super::decoder::{ANCHORS, AttentionLimits, Decoder, EMBEDDINGS, OUTPUT, Variation};
use super::family::Family;
use super::graph_options::GraphOptions;
use super::shape::ModelShape;
use crate::checkpoint::{Config, Tensor, Tensors, Tied, all_f32};
use crate::error::{Error, Result};
use crate::graph::{Activation, GraphBuilder, OnnxGraph, linear_f32};
use crate::options::ScoreOptions;
use crate::text::{Recipe, Tokenizer};

/// The answer whose logit is the score.
const ANSWER: &str = "Yes";

/// The prompt of the LLM rerankers.
/// (`BaseLLMReranker`, FlagEmbedding 1.4.2, `inference/reranker/decoder_only/base.py`)
pub(super) const PROMPT: &str = "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a prediction of either 'Yes' or 'No'.";

/// A Gemma checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gemma {
    decoder: Decoder,
    /// Whether the embedding table is the output layer too.
    is_tied: bool,
    pad_id: u32,
}

impl Gemma {
    /// # Errors
    /// [`Error::Checkpoint`] for a missing key or a variant that is not implemented.
    pub(super) fn read(config: &Config) -> Result<Self> {
        config.require("model_type", &["gemma"])?;
        // The default of the reference's class fits one size only.
        config.count("num_key_value_heads")?;
        let head_dim = config.count("head_dim")?;
        let variation = Variation {
            head_dim,
            activation: activation(config)?,
            embedding_scale: (config.count("hidden_size")? as f64).sqrt(),
            residual_scale: 1.0,
            attention_scale: (head_dim as f64).powf(-0.5),
            norm_plus_one: true,
            norms_after: false,
            window: None,
        };
        Ok(Self {
            decoder: Decoder::read(config, variation)?,
            is_tied: config.optional_bool("tie_word_embeddings")?.unwrap_or(true),
            pad_id: config.optional_id("pad_token_id")?.unwrap_or(0),
        })
    }

    /// The row of the output layer that belongs to the answer.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a checkpoint without a separate output layer holds another one than its embeddings:
    /// transformers 4 takes the embeddings, transformers 5 the output layer.
    fn answer<'a>(&self, tensors: &'a Tensors, tokenizer: &Tokenizer) -> Result<Tensor> {
        let row = tokenizer.first_id(ANSWER)? as usize;
        let output = || -> Result<&'a Tensor> { tensors.get(OUTPUT, &[self.decoder.vocabulary, self.decoder.hidden]) };
        if !self.is_tied || tensors.is_replaced(OUTPUT) {
            return Ok(output()?.row_matrix(row));
        }
        let tied = self.decoder.embeddings(tensors)?.row_matrix(row);
        if tensors.find(OUTPUT).is_some() {
            let output = output()?;
            // As they are stored: an adapter updates the embeddings only, which stand for both.
            let stored = Tensor { update: None, ..tied.clone() };
            if all_f32(&output.row_matrix(row))? != all_f32(&stored)? {
                return Err(Error::checkpoint(
                    output.file.as_path(),
                    format!(
                        "tensor {OUTPUT} differs from {EMBEDDINGS}, though tie_word_embeddings is true; if the model was \
                         trained with it, set tie_word_embeddings to false in config.json, otherwise remove the tensor"
                    ),
                ));
            }
        }
        Ok(tied)
    }
}

/// Legacy configurations say `hidden_act: "gelu"` but mean the tanh approximation, with which Gemma was trained. Only
/// `hidden_activation` means what it says.
/// (`GemmaMLP.__init__`, transformers 4.46.3, `modeling_gemma.py`)
pub(super) fn activation(config: &Config) -> Result<Activation> {
    config.require("hidden_activation", &["gelu_pytorch_tanh", "gelu"])?;
    config.require("hidden_act", &["gelu_pytorch_tanh", "gelu"])?;
    Ok(match config.optional_text("hidden_activation")? {
        Some("gelu") => Activation::GeluErf,
        _ => Activation::GeluTanh,
    })
}

impl Architecture for Gemma {
    fn family(&self) -> Family {
        Family::Gemma
    }

    fn shape(&self) -> Option<ModelShape> {
        Some(self.decoder.shape(None))
    }

    fn vocabulary(&self) -> Option<usize> {
        Some(self.decoder.vocabulary)
    }

    fn pad_id(&self) -> u32 {
        self.pad_id
    }

    fn anchors(&self) -> &'static [&'static str] {
        if self.is_tied { ANCHORS } else { &[EMBEDDINGS] }
    }

    fn tied(&self) -> Option<Tied> {
        self.is_tied.then_some(Tied { table: EMBEDDINGS, head: OUTPUT })
    }

    fn recipe(&self, tokenizer: &Tokenizer) -> Result<Recipe> {
        // Only this class of the reference omits bos where bos doubles as padding.
        let bos = Some(tokenizer.bos()?).filter(|bos| Some(*bos) != tokenizer.pad);
        Recipe::decoder(tokenizer, bos, PROMPT)
    }

    fn graph_options(&self, _options: &ScoreOptions) -> Result<GraphOptions> {
        Ok(GraphOptions::default())
    }

    fn graph(&self, tensors: &Tensors, tokenizer: &Tokenizer, options: &GraphOptions) -> Result<OnnxGraph> {
        let mut g = GraphBuilder::new(options.precision, options.target);
        let layers = self.decoder.layers;
        let outputs = self.decoder.run(&mut g, tensors, &[layers], None, AttentionLimits::default())?;

        let answer = self.answer(tensors, tokenizer)?;
        let logits = linear_f32(&mut g, &outputs[&layers], &answer, None);
        g.output("logits", &logits, 1);
        Ok(g.build("gemma"))
    }
}
