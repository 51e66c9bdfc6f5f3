//! Opens a checkpoint, and checks options against it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::sync::OnceCell;

use super::engines::Engines;
use crate::checkpoint::{Adapter, CONFIG_KEYS, Checkpoint, CheckpointPart, FileVersions, Tensors, Weights};
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::graph::Target;
use crate::models::{Architecture, GraphOptions, recognise};
use crate::options::{Precision, ScoreOptions};
use crate::text::{PairEncoder, Tokenizer};

/// A checkpoint's headers, tokenizer and configuration, and its engines. Callers with different options share it.
/// Weights are loaded when a graph first runs.
pub(super) struct OpenedModel {
    pub(super) checkpoint: Checkpoint,
    pub(super) architecture: Box<dyn Architecture>,
    pub(super) tokenizer: Tokenizer,
    pub(super) options: EngineOptions,
    pub(super) engines: Engines,
    /// Adapters by folder, with the versions of their files.
    adapters: Mutex<HashMap<PathBuf, (FileVersions, Arc<Adapter>)>>,
    /// What became of each part of the checkpoint.
    pub(super) account: Vec<CheckpointPart>,
    fingerprint: OnceCell<String>,
}

impl OpenedModel {
    /// Reads everything but the weights.
    ///
    /// # Errors
    /// [`Error::Model`], [`Error::Checkpoint`], [`Error::Io`], or [`Error::Option`] for invalid options.
    pub(super) fn open(path: &Path, options: &EngineOptions) -> Result<Self> {
        options.validate()?;
        let mut checkpoint = Checkpoint::open(path)?;
        let architecture = recognise(&checkpoint)?;
        let (tokenizer, tokenizer_account) = Tokenizer::read(path)?;
        if let Some(vocabulary) = architecture.vocabulary()
            && tokenizer.id_limit() > vocabulary
        {
            return Err(tokenizer.error(format!(
                "it makes ids up to {}, but config.json gives the model a vocabulary of {vocabulary}",
                tokenizer.id_limit() - 1
            )));
        }
        // A token that it needs may be missing.
        architecture.recipe(&tokenizer)?;

        let mut account = checkpoint.account_files()?;
        let is_onnx = checkpoint.is_onnx();
        if let Some(config) = &checkpoint.config {
            let of_graph = is_onnx.then_some("the graph is run as it is");
            account.extend(config.account(|key| of_graph.or(CONFIG_KEYS.reason(key)))?);
        }
        if let Weights::Tensors(tensors) = &mut checkpoint.weights {
            if let [anchor, others @ ..] = architecture.anchors() {
                *tensors = std::mem::take(tensors).named_after(anchor)?;
                for other in others {
                    *tensors = std::mem::take(tensors).with_name(anchor, other);
                }
            }
            account.extend(account_tensors(tensors, architecture.as_ref(), &tokenizer)?);
        }
        account.extend(tokenizer_account);
        Ok(Self {
            checkpoint,
            architecture,
            tokenizer,
            options: options.clone(),
            engines: Engines::default(),
            adapters: Mutex::default(),
            account,
            fingerprint: OnceCell::new(),
        })
    }

    /// See [`Checkpoint::fingerprint`]. Computed on first use.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read.
    pub(super) fn fingerprint(&self) -> Result<&str> {
        self.fingerprint.get_or_try_init(|| self.checkpoint.fingerprint()).map(String::as_str)
    }

    /// The encoder of texts under these options.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the tokenizer lacks a token that the family needs.
    pub(super) fn encoder(&self, options: &ScoreOptions) -> Result<PairEncoder> {
        PairEncoder::new(self.architecture.recipe(&self.tokenizer)?, &self.tokenizer, options)
    }

    /// Checks the options against the family and the checkpoint. Returns those that shape the graph.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub(super) fn graph_options(&self, options: &ScoreOptions) -> Result<GraphOptions> {
        let family = self.architecture.family();
        options.validate()?;
        options.check_family(family)?;
        let mut graph_options = self.architecture.graph_options(options)?;
        graph_options.target = if self.options.devices.is_cpu() { Target::Cpu } else { Target::Gpu };
        graph_options.windowed = self.is_windowed(options)?;
        graph_options.precision = self.precision(options, &graph_options)?;
        graph_options.adapter = options.adapter.as_deref().map(|folder| self.adapter(folder)).transpose()?;
        Ok(graph_options)
    }

    /// The adapter in a folder, applied to this checkpoint.
    fn adapter(&self, folder: &str) -> Result<Arc<Adapter>> {
        let Weights::Tensors(base) = &self.checkpoint.weights else {
            return Err(Error::option(
                "adapter",
                "an ONNX export is run as it is; open the checkpoint that it was made from",
            ));
        };
        let folder = Path::new(folder);
        let versions = Adapter::versions(folder);
        let adapters = || self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, adapter)) = adapters().get(folder)
            && *known == versions
        {
            return Ok(Arc::clone(adapter));
        }
        let adapter = Adapter::open(folder, base, self.architecture.tied())?;
        account_tensors(&adapter.tensors, self.architecture.as_ref(), &self.tokenizer)?;
        let adapter = Arc::new(adapter);
        adapters().insert(folder.to_owned(), (versions, Arc::clone(&adapter)));
        Ok(adapter)
    }

    /// Whether a sliding window limits attention. On a GPU it does only if a pair can be longer: the windowed operator
    /// takes up to twice the memory and has no fp32. On the CPU it is the faster one for heads of 256.
    fn is_windowed(&self, options: &ScoreOptions) -> Result<bool> {
        let Some(window) = self.architecture.sliding_window() else { return Ok(false) };
        Ok(self.options.devices.is_cpu() || self.encoder(options)?.longest() > window)
    }

    fn precision(&self, options: &ScoreOptions, graph: &GraphOptions) -> Result<Precision> {
        let devices = &self.options.devices;
        if matches!(self.checkpoint.weights, Weights::Onnx(_)) {
            return match options.precision {
                None | Some(Precision::Fp32) => Ok(Precision::Fp32),
                Some(precision) => Err(Error::option(
                    "precision",
                    format!(
                        "an ONNX export is run as it is, got {precision}; open the checkpoint that it was made from"
                    ),
                )),
            };
        }
        let precision = options.precision.unwrap_or_else(|| self.architecture.family().default_precision(devices));
        match precision {
            Precision::Int8 if !devices.is_cpu() => Err(Error::option(
                "precision",
                format!("int8 runs on the CPU only, and the device is {devices}; use fp16 or bf16"),
            )),
            // ONNX Runtime's operator for these has only a 16-bit kernel.
            Precision::Fp32 if graph.target.is_gpu() && (graph.windowed || graph.attention_softcap) => {
                let reason = if graph.attention_softcap { "attention_softcap" } else { "a sliding window" };
                Err(Error::option(
                    "precision",
                    format!("with {reason}, GPUs run 16 bits only, and the device is {devices}; use bf16 or fp16"),
                ))
            }
            Precision::Bf16 if devices.is_cpu() => {
                Err(Error::option("precision", "bf16 runs on GPUs only, and the device is cpu; use fp32 or int8"))
            }
            precision => Ok(precision),
        }
    }
}

/// What became of each tensor: those are used that the graph with all exits reads.
fn account_tensors(
    tensors: &Tensors,
    architecture: &dyn Architecture,
    tokenizer: &Tokenizer,
) -> Result<Vec<CheckpointPart>> {
    let options = GraphOptions { exits: architecture.all_exits(), ..GraphOptions::default() };
    architecture.graph(tensors, tokenizer, &options)?;
    tensors.account()
}
