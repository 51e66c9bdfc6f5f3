//! One opened checkpoint, and the engines that run its graphs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::{Checkpoint, Weights};
use crate::engine::{Engine, EngineOptions, EngineSpec, Program, ScoreStats, check_device};
use crate::error::{Error, Result};
use crate::graph;
use crate::graph::OnnxGraph;
use crate::models::{Architecture, Family, GraphOptions, recognise};
use crate::options::{Precision, ScoreOptions};
use crate::text::{PairEncoder, Tokenizer};
use crate::tuning::{BatchKey, Measured, best, record};
use crate::weights::{OnProgress, Origin, WeightsCache, convert};

/// Headers, tokenizer and configuration of a checkpoint. Weights are loaded when a graph of it is first run.
pub(crate) struct Model {
    checkpoint: Checkpoint,
    architecture: Box<dyn Architecture>,
    pub(crate) tokenizer: Tokenizer,
    options: EngineOptions,
    /// Engines by graph. The lock is held while one loads, so that two callers do not load the same weights.
    engines: Mutex<HashMap<GraphOptions, Arc<Engine>>>,
}

impl Model {
    /// Reads everything but the weights.
    ///
    /// # Errors
    /// [`Error::Model`], [`Error::Checkpoint`], [`Error::Io`], or [`Error::Option`] for options that mean nothing.
    pub(crate) fn open(path: &Path, options: &EngineOptions) -> Result<Self> {
        options.validate()?;
        let checkpoint = Checkpoint::open(path)?;
        let architecture = recognise(&checkpoint)?;
        let tokenizer = Tokenizer::read(&checkpoint.tokenizer_file())?;
        if let Some(vocabulary) = architecture.vocabulary()
            && tokenizer.id_limit() > vocabulary
        {
            return Err(tokenizer.error(format!(
                "it makes ids up to {}, but config.json gives the model a vocabulary of {vocabulary}",
                tokenizer.id_limit() - 1
            )));
        }
        Ok(Self { checkpoint, architecture, tokenizer, options: options.clone(), engines: Mutex::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    pub(crate) fn architecture(&self) -> &dyn Architecture {
        self.architecture.as_ref()
    }

    pub(crate) fn engine_options(&self) -> &EngineOptions {
        &self.options
    }

    /// Checks the options against the family and the checkpoint.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub(crate) fn resolve(&self, options: &ScoreOptions) -> Result<(PairEncoder, GraphOptions)> {
        let family = self.architecture.family();
        options.validate()?;
        options.check_family(family)?;
        let mut graph_options = self.architecture.graph_options(options)?;
        graph_options.precision = self.precision(options)?;
        graph_options.on_gpu = !self.options.devices.is_cpu();
        let recipe = self.architecture.recipe(&self.tokenizer)?;
        Ok((PairEncoder::new(recipe, &self.tokenizer, options)?, graph_options))
    }

    fn precision(&self, options: &ScoreOptions) -> Result<Precision> {
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
            // Its windowed attention has a kernel of 16 bits only.
            Precision::Fp32 if !devices.is_cpu() && self.architecture.family() == Family::Gemma2 => Err(Error::option(
                "precision",
                format!("gemma2 runs in 16 bits on GPUs, and the device is {devices}; use bf16 or fp16"),
            )),
            Precision::Bf16 if devices.is_cpu() => {
                Err(Error::option("precision", "bf16 runs on GPUs only, and the device is cpu; use fp32 or int8"))
            }
            precision => Ok(precision),
        }
    }

    /// Whether the devices can be used at all.
    ///
    /// # Errors
    /// Those of [`check_device`].
    pub(crate) fn check_devices(&self) -> Result<()> {
        self.options.devices.iter().try_for_each(check_device)
    }

    /// What the engine of a graph has run so far; nothing if it is not loaded.
    pub(crate) fn device_stats(&self, graph_options: &GraphOptions) -> ScoreStats {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.get(graph_options).map(|engine| engine.stats()).unwrap_or_default()
    }

    /// The engine of a graph, loading it on first use: blocks for as long as the weights take to load.
    ///
    /// # Errors
    /// Those of building the graph and loading the session.
    pub(crate) fn engine(&self, graph_options: &GraphOptions) -> Result<Arc<Engine>> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.get(graph_options) {
            return Ok(Arc::clone(engine));
        }
        self.check_devices()?;
        let program = match &self.checkpoint.weights {
            Weights::Tensors(_) => Program::Graph(self.graph(graph_options, &mut |_, _| ())?),
            Weights::Onnx(file) => Program::File(file.clone()),
        };
        let engine = Arc::new(Engine::start(&EngineSpec {
            program,
            model: self.checkpoint.path.display().to_string(),
            pad_id: self.architecture.pad_id(),
            columns: graph_options.columns(),
            batch_tokens: self.batch_tokens(graph_options.precision),
            batches_in_flight: self.options.devices.batches_in_flight(),
            options: self.options.clone(),
        })?);
        engines.insert(graph_options.clone(), Arc::clone(&engine));
        Ok(engine)
    }

    /// Most tokens in a batch: what the caller says, or else what was measured here before, or else the usual number.
    pub(crate) fn batch_tokens(&self, precision: Precision) -> usize {
        let options = &self.options;
        options
            .batch_tokens
            .or_else(|| self.measured_batch_tokens(precision))
            .unwrap_or_else(|| options.usual_batch_tokens())
    }

    fn measured_batch_tokens(&self, precision: Precision) -> Option<usize> {
        let cache = WeightsCache::open(self.options.cache.as_deref()).ok()?;
        // The fingerprint costs more than the question whether there is anything to compare it with.
        if cache.measurements().ok()?.is_empty() {
            return None;
        }
        record::read(&cache, &self.batch_key(&self.fingerprint().ok()?, precision))
    }

    fn batch_key<'a>(&'a self, fingerprint: &'a str, precision: Precision) -> BatchKey<'a> {
        BatchKey { fingerprint, devices: &self.options.devices, threads: self.options.threads(), precision }
    }

    /// Whether batches have a size that was asked for or measured.
    pub(crate) fn is_tuned(&self, precision: Precision) -> bool {
        self.options.batch_tokens.is_some() || self.measured_batch_tokens(precision).is_some()
    }

    /// Takes the best of the sizes of batches that were measured and keeps it; gives it.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache cannot be written.
    pub(crate) fn keep_batch_tokens(&self, graph_options: &GraphOptions, measured: &[Measured]) -> Result<usize> {
        let precision = graph_options.precision;
        // If not even the smallest fitted, batches are halved as they come.
        let batch_tokens = best(measured).map_or_else(|| self.options.usual_batch_tokens(), |size| size.batch_tokens);
        for size in measured {
            tracing::info!(batch_tokens = size.batch_tokens, tokens_per_second = size.tokens_per_second, "measured");
        }
        self.engine(graph_options)?.set_batch_tokens(batch_tokens);
        let cache = WeightsCache::open(self.options.cache.as_deref())?;
        record::write(&cache, &self.batch_key(&self.fingerprint()?, precision), batch_tokens, measured)?;
        Ok(batch_tokens)
    }

    /// Calls `then` with [`Self::engine`]: here if it is loaded, else from a thread of its own, so that whoever encodes
    /// windows for other models need not wait for this one's weights.
    pub(crate) fn with_engine(
        self: &Arc<Self>,
        graph_options: &GraphOptions,
        then: impl FnOnce(Result<Arc<Engine>>) + Send + 'static,
    ) {
        // Held for as long as another thread is loading.
        let loaded = self.engines.try_lock().ok().and_then(|engines| engines.get(graph_options).cloned());
        if let Some(engine) = loaded {
            return then(Ok(engine));
        }
        let (model, graph_options) = (Arc::clone(self), graph_options.clone());
        let loading = std::thread::Builder::new().name("rerank-load".to_owned());
        // Without a thread `then` is dropped.
        if let Err(error) = loading.spawn(move || then(model.engine(&graph_options))) {
            tracing::error!("{} is not loaded, its thread cannot be started: {error}", self.checkpoint.path.display());
        }
    }

    /// See [`Checkpoint::fingerprint`].
    pub(crate) fn fingerprint(&self) -> Result<String> {
        self.checkpoint.fingerprint()
    }

    /// Parameters by the type they are stored in; empty for an ONNX export.
    pub(crate) fn parameters(&self) -> BTreeMap<&'static str, u64> {
        let mut parameters = BTreeMap::new();
        if let Weights::Tensors(tensors) = &self.checkpoint.weights {
            for tensor in tensors.iter() {
                *parameters.entry(tensor.dtype.name()).or_default() += tensor.elements() as u64;
            }
        }
        parameters
    }

    /// The graph, with weights in another precision made if they are not there.
    ///
    /// # Errors
    /// Those of building the graph and converting the weights; [`Error::Model`] if this is an ONNX export.
    fn graph(&self, graph_options: &GraphOptions, on_progress: OnProgress<'_>) -> Result<OnnxGraph> {
        match &self.checkpoint.weights {
            Weights::Tensors(tensors) => {
                let graph = self.architecture.graph(tensors, &self.tokenizer, graph_options)?;
                if graph.converted().is_empty() {
                    return Ok(graph);
                }
                let origin = Origin {
                    fingerprint: &self.fingerprint()?,
                    checkpoint: &self.checkpoint.path,
                    family: self.architecture.family(),
                };
                let cache = self.options.cache.as_deref();
                let (parts, file) = convert(graph.converted(), graph.precision(), &origin, cache, on_progress)?;
                Ok(graph.with_converted(parts, file))
            }
            Weights::Onnx(file) => {
                Err(Error::model(file.display().to_string(), "it is an ONNX graph already; copy its files instead"))
            }
        }
    }

    /// Sees to it that the cache has the weights of a graph, if it needs other weights than the checkpoint's.
    ///
    /// # Errors
    /// As [`Self::graph`].
    pub(crate) fn convert_weights(&self, graph_options: &GraphOptions, on_progress: OnProgress<'_>) -> Result<()> {
        // Whatever the checkpoint stores is widened while it loads; an export comes as it is, which is fp32 here too.
        if graph_options.precision == Precision::Fp32 {
            return Ok(());
        }
        self.graph(graph_options, on_progress).map(drop)
    }

    /// Writes the graph, its weights and the tokenizer as a standard ONNX model directory.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Model`] if this is an ONNX export already.
    pub(crate) fn export(&self, graph_options: &GraphOptions, folder: &Path) -> Result<()> {
        graph::export(&self.graph(graph_options, &mut |_, _| ())?, folder)?;
        for file in self.checkpoint.companions() {
            let copy = folder.join(file.file_name().unwrap_or_default());
            std::fs::copy(&file, &copy).map_err(|source| Error::io(&copy, source))?;
        }
        Ok(())
    }
}
