//! A user's own ONNX export of a cross-encoder: `model.onnx` beside `tokenizer.json`.
//!
//! The graph takes `input_ids` and `attention_mask`, `[batch, sequence]` i64, and returns `logits`, one per pair.

use super::architecture::Architecture;
use super::family::Family;
use super::graph_options::GraphOptions;
use super::shape::ModelShape;
use crate::checkpoint::{Config, Tensors};
use crate::error::{Error, Result};
use crate::graph::OnnxGraph;
use crate::options::ScoreOptions;
use crate::text::{Recipe, Tokenizer};

/// `<pad>` of XLM-RoBERTa vocabularies.
const DEFAULT_PAD_ID: u32 = 1;

/// What `config.json`, if there is one, says of a ready-made graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OnnxExport {
    vocabulary: Option<usize>,
    max_tokens: Option<usize>,
    pad_id: u32,
    /// The class of the tokenizer, if its own settings name none.
    tokenizer_class: Option<String>,
}

impl Default for OnnxExport {
    fn default() -> Self {
        Self { vocabulary: None, max_tokens: None, pad_id: DEFAULT_PAD_ID, tokenizer_class: None }
    }
}

impl OnnxExport {
    /// # Errors
    /// [`Error::Checkpoint`] for a decoder: its graph does not say for which cutoffs, compression and prompt it was
    /// made, so options could be ignored silently.
    pub(super) fn read(config: &Config) -> Result<Self> {
        if let Some(decoder) = config.architecture()?.filter(|architecture| architecture.ends_with("ForCausalLM")) {
            return Err(config.error(format!(
                "{decoder} as model.onnx cannot be scored; open the checkpoint with its safetensors instead"
            )));
        }
        let pad_id = config.optional_id("pad_token_id")?.unwrap_or(DEFAULT_PAD_ID);
        let positions = config.optional_count("max_position_embeddings")?;
        Ok(Self {
            vocabulary: config.optional_count("vocab_size")?,
            max_tokens: positions.map(|positions| positions.saturating_sub(pad_id as usize + 1)),
            pad_id,
            tokenizer_class: config.optional_text("tokenizer_class")?.map(str::to_owned),
        })
    }
}

impl Architecture for OnnxExport {
    fn family(&self) -> Family {
        Family::M3
    }

    fn shape(&self) -> Option<ModelShape> {
        None
    }

    fn vocabulary(&self) -> Option<usize> {
        self.vocabulary
    }

    fn pad_id(&self) -> u32 {
        self.pad_id
    }

    fn anchors(&self) -> &'static [&'static str] {
        &[]
    }

    fn recipe(&self, tokenizer: &Tokenizer) -> Result<Recipe> {
        Recipe::encoder(tokenizer, self.tokenizer_class.as_deref(), self.max_tokens)
    }

    fn graph_options(&self, _options: &ScoreOptions) -> Result<GraphOptions> {
        Ok(GraphOptions::default())
    }

    fn graph(&self, _tensors: &Tensors, _tokenizer: &Tokenizer, _options: &GraphOptions) -> Result<OnnxGraph> {
        Err(Error::model("ONNX export", "it comes with its graph, there is none to build"))
    }
}
