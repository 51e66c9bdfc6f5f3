//! An opened checkpoint and its properties.

#[cfg(test)]
use std::collections::BTreeSet;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::open::OpenedModel;
use crate::checkpoint::{CheckpointPart, DType, Weights};
use crate::engine::{Device, EngineOptions, check_device};
use crate::error::Result;
#[cfg(test)]
use crate::graph::Target;
use crate::models::{Family, GpuBytes, GraphOptions, ModelShape};
use crate::options::{Precision, ScoreOptions};
use crate::text::{PairEncoder, Tokenizer};

/// The ending of files that hold keys, not tensors.
const JSON: &str = ".json";

/// An opened checkpoint with the options that shape its graph: precision, cutoff layers, compression. It reports the
/// model's properties, converts and exports its weights, and tunes its batches; a [`Reranker`](crate::Reranker) scores
/// with it.
///
/// Cheap to clone. Clones share the tokenizer; clones with the same graph share weights and device.
///
/// ```no_run
/// use datafusion_rerank::{EngineOptions, Reranker};
///
/// let reranker = Reranker::open("bge-reranker-v2-m3", &EngineOptions::default())?;
/// let model = reranker.model();
/// println!("{} in {}, fingerprint {}", model.family(), model.precision(), model.fingerprint()?);
/// model.export("bge-reranker-v2-m3-onnx")?;
/// # Ok::<(), datafusion_rerank::Error>(())
/// ```
#[derive(Clone)]
pub struct Model {
    pub(super) opened: Arc<OpenedModel>,
    pub(super) graph_options: GraphOptions,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("location", &self.location())
            .field("family", &self.family())
            .field("graph_options", &self.graph_options)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Reads everything but the weights, with the family's default options.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model), [`Error::Checkpoint`](crate::Error::Checkpoint) or
    /// [`Error::Io`](crate::Error::Io).
    pub(crate) fn open(path: &Path, options: &EngineOptions) -> Result<Self> {
        let opened = Arc::new(OpenedModel::open(path, options)?);
        let graph_options = opened.graph_options(&ScoreOptions::default())?;
        Ok(Self { opened, graph_options })
    }

    /// The same checkpoint with other options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for an option that the family does not have, or a value that the
    /// checkpoint cannot honour.
    pub(crate) fn with_options(&self, options: &ScoreOptions) -> Result<Self> {
        Ok(Self { graph_options: self.opened.graph_options(options)?, opened: Arc::clone(&self.opened) })
    }

    /// The same model with the graph of another target, whichever device runs it.
    #[cfg(test)]
    pub(crate) fn with_target(&self, target: Target, windowed: bool) -> Self {
        let graph_options = GraphOptions { target, windowed, ..self.graph_options.clone() };
        Self { graph_options, opened: Arc::clone(&self.opened) }
    }

    /// The names of this crate's operators in the graph.
    #[cfg(test)]
    pub(crate) fn own_operators(&self) -> BTreeSet<String> {
        self.graph(&mut |_, _| ()).unwrap().own_operators().map(str::to_owned).collect()
    }

    /// The encoder of texts under these options.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if the tokenizer lacks a token that the family needs.
    pub(crate) fn encoder(&self, options: &ScoreOptions) -> Result<PairEncoder> {
        self.opened.encoder(options)
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.opened.tokenizer
    }

    /// The checkpoint's directory, as it was given.
    pub fn location(&self) -> &Path {
        &self.opened.checkpoint.path
    }

    /// The model family, recognised from `config.json`.
    pub fn family(&self) -> Family {
        self.opened.architecture.family()
    }

    /// The transformer's dimensions; `None` for an ONNX export, where only the graph knows them.
    pub fn shape(&self) -> Option<ModelShape> {
        self.opened.architecture.shape()
    }

    /// Number of parameters by the type they are stored in (`F32`, `F16`, `BF16`); empty for an ONNX export.
    pub fn parameters(&self) -> BTreeMap<&'static str, u64> {
        let mut parameters = BTreeMap::new();
        if let Weights::Tensors(tensors) = &self.opened.checkpoint.weights {
            for tensor in tensors.iter() {
                *parameters.entry(tensor.dtype.name()).or_default() += tensor.elements() as u64;
            }
        }
        parameters
    }

    /// What the checkpoint's folder holds and what became of it: every file, every key of the settings and every
    /// tensor. With an adapter, its files, keys and tensors too. Subfolders are neither read nor listed. `rerank model
    /// inspect` prints the account.
    pub fn account(&self) -> Vec<CheckpointPart> {
        let mut account = self.opened.account.clone();
        if let Some(adapter) = &self.graph_options.adapter {
            let replaced: HashSet<&str> = adapter.tensors.replaced().collect();
            for part in account.iter_mut().filter(|part| !part.file.ends_with(JSON)) {
                if part.name.as_deref().is_some_and(|name| replaced.contains(name)) {
                    part.ignored = Some("replaced by the adapter".to_owned());
                }
            }
            account.extend(adapter.account.iter().cloned());
        }
        account
    }

    /// 32 hexadecimal digits that identify the checkpoint and its adapter, wherever they are stored: the same for
    /// copies, different for another training run, stored precision, tokenizer or adapter. Other options do not change
    /// it.
    ///
    /// Computed once per opened checkpoint and adapter. An adapter is read whole, when the model is opened with it. Of
    /// the checkpoint, reads configuration and tokenizer whole, but only lengths, headers and evenly spaced samples of
    /// the weights. It takes milliseconds for any size, and does not detect a change of a few bytes between two
    /// samples.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if a file of the checkpoint cannot be read.
    pub fn fingerprint(&self) -> Result<&str> {
        let base = self.opened.fingerprint()?;
        Ok(self.graph_options.adapter.as_ref().map_or(base, |adapter| adapter.fingerprint(base)))
    }

    /// The precision of the layers: the option, or else the family's default on the device.
    pub fn precision(&self) -> Precision {
        self.graph_options.precision
    }

    /// Floating point operations for one pair of `tokens` tokens. Counts cutoff layers and compression (as if all
    /// tokens were passage), but neither embeddings nor heads (below 1 %). `None` for an ONNX export.
    pub fn pair_flops(&self, tokens: usize) -> Option<f64> {
        self.shape().map(|shape| shape.pair_flops(&self.graph_options, tokens))
    }

    /// What the model takes on a GPU: an estimate. Counts cutoff layers. For a model opened on the CPU, in 16 bits and
    /// with the default batches of a GPU. `None` for an ONNX export.
    pub fn gpu_bytes(&self) -> Option<GpuBytes> {
        let is_cpu = self.engine_options().devices.is_cpu();
        let width = if is_cpu { DType::F16 } else { self.precision().activations() }.bytes();
        let batch_tokens = if is_cpu { Device::Cuda(0).usual_batch_tokens(1) } else { self.batch_tokens() };
        self.shape().map(|shape| shape.gpu_bytes(&self.graph_options, width, batch_tokens))
    }

    /// How and where the model runs.
    pub fn engine_options(&self) -> &EngineOptions {
        &self.opened.options
    }

    /// Checks that ONNX Runtime supports the devices, that there are a driver and GPUs of these numbers, before
    /// anything large is read. Whether they have enough memory shows when the weights are loaded.
    ///
    /// # Errors
    /// [`Error::Library`](crate::Error::Library) or [`Error::Device`](crate::Error::Device).
    pub fn check_devices(&self) -> Result<()> {
        self.engine_options().devices.iter().try_for_each(check_device)
    }
}
