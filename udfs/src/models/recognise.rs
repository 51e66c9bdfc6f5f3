//! Which family a checkpoint belongs to.

use std::path::Path;

use super::architecture::Architecture;
use super::family::Family;
use super::gemma::Gemma;
use super::gemma2::Gemma2;
use super::minicpm::MiniCpm;
use super::onnx::OnnxExport;
use super::xlm_roberta::XlmRoberta;
use crate::checkpoint::{CONFIG_KEYS, Checkpoint, Config};
use crate::error::Result;

/// Features that no family implements.
const UNSUPPORTED: &[&str] = &[
    "add_cross_attention",
    "attention_bias",
    "is_causal",
    "is_decoder",
    "is_encoder_decoder",
    "mlp_bias",
    "pruned_heads",
    "quantization_config",
    "use_bidirectional_attention",
];

impl Family {
    /// Determines a checkpoint's family from the content of its `config.json`. Errors name `path`, which is not read.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if it belongs to no family, or to a variant that is not
    /// supported.
    pub fn of_config(path: &Path, json: &[u8]) -> Result<Self> {
        let config = Config::parse(path, json)?;
        let family = from_config(&config)?.family();
        config.account(|key| CONFIG_KEYS.reason(key))?;
        Ok(family)
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
    config.require_off(UNSUPPORTED)?;
    let architecture = config.architecture()?.unwrap_or_default();
    match architecture {
        "XLMRobertaForSequenceClassification" => Ok(Box::new(XlmRoberta::read(config)?)),
        "GemmaForCausalLM" => Ok(Box::new(Gemma::read(config)?)),
        "LayerWiseMiniCPMForCausalLM" => Ok(Box::new(MiniCpm::read(config)?)),
        "CostWiseGemmaForCausalLM" => Ok(Box::new(Gemma2::read(config)?)),
        _ => Err(config.error(format!(
            "architectures is [{architecture}], expected one of XLMRobertaForSequenceClassification, GemmaForCausalLM, \
             LayerWiseMiniCPMForCausalLM, CostWiseGemmaForCausalLM"
        ))),
    }
}
