//! A model directory as its authors publish it: `config.json`, safetensors weights, `tokenizer.json`.

mod config;
mod directory;
mod fingerprint;
mod safetensors;

pub(crate) use config::Config;
pub(crate) use directory::{Checkpoint, Weights};
pub(crate) use safetensors::{DType, Tensor, Tensors};
