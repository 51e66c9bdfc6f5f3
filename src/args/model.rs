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

/// What to do with a checkpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Write a checkpoint as a standard ONNX directory that other tools can run.
    Export(ExportArgs),
    /// Say what a checkpoint is, without loading its weights.
    Inspect(InspectArgs),
    /// Fetch a model from the Hugging Face Hub into the cache that Python shares, and print the folder it is in.
    ///
    /// Only the files that are needed are fetched: configuration, tokenizer and safetensors weights. What is there is
    /// not fetched again, and a download that was cut goes on where it was. Every file is checked against the hub's
    /// own id of its content.
    #[cfg(feature = "hub")]
    #[command(after_long_help = PULL_MANUAL)]
    Pull(PullArgs),
    /// List the rerankers in the Hugging Face cache, and their weights in other precisions.
    #[command(after_long_help = LIST_MANUAL)]
    List(ListArgs),
    /// Remove weights in other precisions, which are made again when they are needed.
    ///
    /// The Hugging Face cache is never touched; `hf cache` is for that. Models that are loaded keep their weights, and
    /// weights that are about to be loaded stay.
    #[command(after_long_help = PRUNE_MANUAL)]
    Prune(PruneArgs),
}

/// `rerank model export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The checkpoint: a directory, a model name or a Hugging Face id in the local cache.
    pub(crate) model: String,

    /// The directory to make.
    pub(crate) output: String,

    /// What the graph is for: `cpu`, or `cuda`, whose fast kernels want other operands. No GPU is needed.
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

    /// Which options are allowed and what is usual may depend on the device. No GPU is needed.
    #[arg(long, default_value_t = Device::Cpu)]
    pub(crate) device: Device,

    /// The work is told for these.
    #[command(flatten)]
    pub(crate) options: GraphOptionArgs,
}

/// `rerank model pull`.
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A published model's name (`m3`, `gemma`, `minicpm`, `gemma2`) or the id of a repository on the hub (`ORG/REPO`),
    /// with `@REVISION` (a branch, a tag or a commit) if it is not `main` that is wanted.
    #[arg(value_name = "NAME|ORG/REPO[@REVISION]")]
    pub(crate) model: HubModel,
}

/// `rerank model list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Folder in which weights of another precision are kept [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// Print a JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rerank model prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove the weights of this model only: a published model's name, a Hugging Face id, or a checkpoint directory.
    pub(crate) model: Option<String>,

    /// Folder in which weights of another precision are kept [default: `rerank` in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "RERANK_CACHE")]
    pub(crate) cache: Option<PathBuf>,

    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
