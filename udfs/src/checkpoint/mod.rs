//! A model directory as its authors publish it: `config.json`, safetensors weights, `tokenizer.json`; and the adapters
//! that change it.

// First: the documentation of `account` uses its macros.
#[macro_use]
mod ignored;

mod account;
mod adapter;
mod adapter_modules;
mod config;
mod digest;
mod directory;
mod files;
mod fingerprint;
mod json;
mod safetensors;
mod tensor;
mod tensors;
mod values;

pub use account::CheckpointPart;
pub(crate) use adapter::{Adapter, FileVersions};
pub(crate) use config::{Config, Object};
pub(crate) use directory::{Checkpoint, Weights};
pub use files::{
    ADAPTER_CONFIG_FILE, ADDED_TOKENS_FILE, CONFIG_FILE, INDEX_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE, WEIGHTS_FILE, shard_files,
};
pub(crate) use ignored::{CONFIG_KEYS, TOKENIZER_KEYS};
pub(crate) use json::standard as standard_json;
pub(crate) use tensor::{DType, Tensor};
pub(crate) use tensors::{Tensors, Tied};
pub(crate) use values::{all_f32, read_f32};
