//! `rerank model`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datafusion_rerank::Device;

#[cfg(feature = "hub")]
use super::manual::PULL_MANUAL;
use super::manual::{LIST_MANUAL, PRUNE_MANUAL};
use super::options::GraphOptionArgs;
#[cfg(feature = "hub")]
use crate::hub::HubModel;

/// The subcommand of `rerank model`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Write a checkpoint as a standard ONNX directory that other tools can run, merged with its adapter if one is
    /// given.
    Export(ExportArgs),
    /// Show the family and shape of a checkpoint, and what becomes of each of its files, keys and tensors, without
    /// loading its weights.
    Inspect(InspectArgs),
    /// Download a model from the Hugging Face Hub into the cache shared with Python, and print its folder.
    ///
    /// Downloads only what scoring needs: configuration, tokenizer and safetensors weights. Files in the cache are not
    /// downloaded again, and an interrupted download is resumed. Every file is checked against the id that the hub
    /// lists for its content.
    #[cfg(feature = "hub")]
    #[command(after_long_help = PULL_MANUAL)]
    Pull(PullArgs),
    /// List the rerankers in the Hugging Face cache and their converted weights.
    #[command(after_long_help = LIST_MANUAL)]
    List(ListArgs),
    /// Remove converted weights. They are converted again when needed.
    ///
    /// Never touches the Hugging Face cache; use `hf cache` for that. Loaded models keep their weights, and weights
    /// that a process is about to load stay.
    #[command(after_long_help = PRUNE_MANUAL)]
    Prune(PruneArgs),
}

/// `rerank model export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The checkpoint: a directory, a model name or a Hugging Face id in the local cache.
    pub(crate) model: String,

    /// The directory to create.
    pub(crate) output: String,

    /// Target of the graph: `cpu`, or `cuda`, whose fast kernels need other operands. No GPU is needed.
    #[arg(long, default_value_t = Device::Cpu)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) options: GraphOptionArgs,
}

/// `rerank model inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The checkpoint: a directory, a model name or a Hugging Face id in the local cache.
    pub(crate) model: String,

    /// The device that determines the allowed options and the defaults. No GPU is needed.
    #[arg(long, default_value_t = Device::Cpu)]
    pub(crate) device: Device,

    /// The options for which the work per token is computed.
    #[command(flatten)]
    pub(crate) options: GraphOptionArgs,
}

/// `rerank model pull`.
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The name of a published model (`m3`, `gemma`, `minicpm`, `gemma2`) or the id of a repository on the hub
    /// (`ORG/REPO`), with `@REVISION` (a branch, a tag or a commit) for another revision than `main`.
    #[arg(value_name = "NAME|ORG/REPO[@REVISION]")]
    pub(crate) model: HubModel,
}

/// `rerank model list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Folder of converted weights [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// Print a JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rerank model prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove the weights of this model only: the name of a published model, a Hugging Face id or a checkpoint
    /// directory.
    pub(crate) model: Option<String>,

    /// Folder of converted weights [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
