//! Which family a checkpoint belongs to.

use std::path::Path;

use super::architecture::Architecture;
use super::family::Family;
use super::gemma::Gemma;
use super::gemma2::Gemma2;
use super::minicpm::MiniCpm;
use super::onnx::OnnxExport;
use super::xlm_roberta::XlmRoberta;
use crate::checkpoint::{Checkpoint, Config};
use crate::error::Result;

impl Family {
    /// Determines a checkpoint's family from the content of its `config.json`. Errors name `path`, which is not read.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if it belongs to no family, or to a variant that is not
    /// supported.
    pub fn of_config(path: &Path, json: &[u8]) -> Result<Self> {
        Ok(from_config(&Config::parse(path, json)?)?.family())
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
