//! The model families: one file each, all answering the same questions.
//!
//! To add a family, write its file (configuration, text recipe, graph), give it a [`Family`] variant and add it to
//! [`recognise`].

mod decoder;
mod exits;
mod family;
mod gemma;
mod gemma2;
mod minicpm;
mod onnx;
mod shape;
mod xlm_roberta;

use std::fmt::Debug;

pub(crate) use decoder::Compression;
pub(crate) use exits::Exit;
pub use family::Family;
pub(crate) use onnx::OnnxExport;
pub use shape::ModelShape;

use crate::checkpoint::{Checkpoint, Config, Tensors};
use crate::error::Result;
use crate::graph::OnnxGraph;
use crate::options::{Precision, ScoreOptions};
use crate::text::{Recipe, Tokenizer};

/// What a family knows about one checkpoint.
pub(crate) trait Architecture: Debug + Send + Sync {
    fn family(&self) -> Family;

    /// The transformer's dimensions; `None` if only the graph knows.
    fn shape(&self) -> Option<ModelShape>;

    /// Size of the embedding table, which bounds the token ids; `None` if only the graph knows.
    fn vocabulary(&self) -> Option<usize>;

    /// The id that fills up short sequences.
    fn pad_id(&self) -> u32;

    /// How query and passage are joined.
    fn recipe(&self, tokenizer: &Tokenizer) -> Result<Recipe>;

    /// The part of the options that changes the graph, checked against the checkpoint.
    fn graph_options(&self, options: &ScoreOptions) -> Result<GraphOptions>;

    /// The graph from `input_ids` and `attention_mask` to `logits` `[batch, exits]`.
    fn graph(&self, tensors: &Tensors, tokenizer: &Tokenizer, options: &GraphOptions) -> Result<OnnxGraph>;
}

/// What distinguishes two graphs of one checkpoint. Two calls with equal graph options share a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct GraphOptions {
    /// In what the layers compute.
    pub(crate) precision: Precision,
    /// Whether the graph is for a GPU.
    pub(crate) on_gpu: bool,
    /// The scores that come out, in the order of the output's columns; empty for families with one exit.
    pub(crate) exits: Vec<Exit>,
    /// Token compression, if any takes place.
    pub(crate) compression: Option<Compression>,
    /// Whether the checkpoint's attention soft-capping is applied.
    pub(crate) attention_softcap: bool,
}

impl GraphOptions {
    /// Scores per pair.
    pub(crate) fn columns(&self) -> usize {
        self.exits.len().max(1)
    }
}

/// Finds the family of a checkpoint from its configuration.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) for an architecture that is not one of the families.
pub(crate) fn recognise(checkpoint: &Checkpoint) -> Result<Box<dyn Architecture>> {
    let Some(config) = &checkpoint.config else {
        return Ok(Box::new(OnnxExport::default()));
    };
    if checkpoint.is_onnx() {
        return Ok(Box::new(OnnxExport::read(config)?));
    }
    from_config(config)
}

fn from_config(config: &Config) -> Result<Box<dyn Architecture>> {
    let architecture = config.architecture().unwrap_or_default();
    match architecture {
        "XLMRobertaForSequenceClassification" => Ok(Box::new(xlm_roberta::XlmRoberta::read(config)?)),
        "GemmaForCausalLM" => Ok(Box::new(gemma::Gemma::read(config)?)),
        "LayerWiseMiniCPMForCausalLM" => Ok(Box::new(minicpm::MiniCpm::read(config)?)),
        "CostWiseGemmaForCausalLM" => Ok(Box::new(gemma2::Gemma2::read(config)?)),
        _ => Err(config.error(format!(
            "architectures is [{architecture}], expected one of XLMRobertaForSequenceClassification, GemmaForCausalLM, \
             LayerWiseMiniCPMForCausalLM, CostWiseGemmaForCausalLM"
        ))),
    }
}
