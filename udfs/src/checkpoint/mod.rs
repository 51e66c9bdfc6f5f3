//! A model directory as its authors publish it: `config.json`, safetensors weights, `tokenizer.json`.

mod config;
mod directory;
mod files;
mod fingerprint;
mod safetensors;

pub(crate) use config::Config;
pub(crate) use directory::{Checkpoint, Weights};
pub use files::{CONFIG_FILE, INDEX_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, shard_files};
pub(crate) use safetensors::{DType, Tensor, Tensors};
