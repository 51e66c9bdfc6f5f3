//! One ONNX Runtime session: the only place that runs a model.

use std::path::{Path, PathBuf};

use ort::ep::cuda::AttentionBackend;
use ort::ep::{ArenaExtendStrategy, ExecutionProvider};
use ort::logging::LogLevel;
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;
use ort::value::{TensorElementType, TensorRef};

use super::{Device, cuda, kernels, library};
use crate::error::{Error, Result};
use crate::graph::{HEAD_TOKENS, OnnxGraph, TAIL_TOKENS};
use crate::text::EncodedPair;

/// How long a thread of the CPU device spins before it sleeps: longer than the gap between two operators, shorter than
/// the gap between two batches.
const SPIN_MICROSECONDS: &str = "100";

/// Environment variable that turns on ONNX Runtime's profiler: the path and first part of the name of the JSON files
/// that it writes, one for each session.
const PROFILE_VARIABLE: &str = "RERANK_PROFILE";

/// Batches that are profiled. ONNX Runtime writes the file when the profile ends, which a process may not live to see
/// otherwise.
const PROFILED_BATCHES: u32 = 16;

/// What a session runs.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// A graph built by this crate, with its weights in their files.
    Graph(OnnxGraph),
    /// A ready-made `model.onnx`.
    File(PathBuf),
}

/// Runs batches for a worker. A panic in [`Self::run`] must leave it usable.
pub(crate) trait RunBatch: Send + 'static {
    /// Scores a batch. Returns the scores of each pair in turn.
    ///
    /// # Errors
    /// [`Error::Runtime`] with the batch's shape.
    fn run(&mut self, feed: &Feed) -> Result<Vec<f32>>;
}

/// A loaded model on a device.
#[derive(Debug)]
pub(crate) struct Session {
    inner: OrtSession,
    model: String,
    /// Scores per pair.
    columns: usize,
    logits_type: TensorElementType,
    /// Whether the graph compresses tokens, and so needs to know which.
    compresses: bool,
    /// Batches that are still to be profiled.
    profiled: u32,
}

/// A batch as the model reads it. The buffers are reused.
#[derive(Debug)]
pub(crate) struct Feed {
    pad_id: i64,
    padded_tokens: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
    head_tokens: Vec<i64>,
    tail_tokens: Vec<i64>,
}

impl Feed {
    pub(crate) fn new(pad_id: u32) -> Self {
        Self {
            pad_id: i64::from(pad_id),
            padded_tokens: 0,
            ids: Vec::new(),
            mask: Vec::new(),
            head_tokens: Vec::new(),
            tail_tokens: Vec::new(),
        }
    }

    /// Lays out `pairs`, right-padded to `padded_tokens`. Replaces the previous batch.
    pub(crate) fn fill<'a>(&mut self, pairs: impl Iterator<Item = &'a EncodedPair>, padded_tokens: usize) {
        self.padded_tokens = padded_tokens;
        let Self { pad_id, ids, mask, head_tokens, tail_tokens, .. } = self;
        for buffer in [&mut *ids, mask, head_tokens, tail_tokens] {
            buffer.clear();
        }
        for (row, pair) in pairs.enumerate() {
            let end = (row + 1) * padded_tokens;
            ids.extend(pair.ids.iter().map(|&id| i64::from(id)));
            mask.resize(ids.len(), 1);
            ids.resize(end, *pad_id);
            mask.resize(end, 0);
            head_tokens.push(i64::from(pair.head_tokens));
            tail_tokens.push(i64::from(pair.tail_tokens));
        }
    }

    /// Tokens of each pair, without padding.
    #[cfg(test)]
    pub(crate) fn lengths(&self) -> impl Iterator<Item = i64> {
        self.mask.chunks(self.padded_tokens).map(|mask| mask.iter().sum())
    }
}

impl Session {
    /// Loads the program.
    ///
    /// # Errors
    /// [`Error::Library`], [`Error::Device`], or [`Error::Runtime`] if ONNX Runtime refuses the graph.
    pub(crate) fn load(program: &Program, model: &str, columns: usize, device: Device, threads: usize) -> Result<Self> {
        let environment = library::environment()?;
        check_profile()?;
        if let Device::Cuda(index) = device {
            cuda::load_libraries();
            check_memory(program, index)?;
        }
        let fail = |action: &str, source: ort::Error| Error::Runtime {
            model: model.to_owned(),
            action: action.to_owned(),
            source: source.into(),
        };
        let own_operators = matches!(program, Program::Graph(graph) if graph.has_own_operators());
        let mut builder =
            session_builder(environment, device, threads, own_operators).map_err(|error| match error {
                BuildError::Device(source) => {
                    let message = match device {
                        Device::Cpu => source.message().to_owned(),
                        Device::Cuda(index) => cuda::remedy(index, source.message()),
                    };
                    Error::Device { device: device.to_string(), message }
                }
                BuildError::Session(source) => fail("configuring a session", source),
            })?;
        let inner = match program {
            Program::Graph(graph) => {
                let (bytes, folder) = graph.in_place()?;
                builder = with_weights_folder(builder, &folder).map_err(|e| fail("configuring a session", e))?;
                builder.commit_from_memory(&bytes)
            }
            Program::File(path) => builder.commit_from_file(path),
        }
        .map_err(|e| fail("loading the graph", e))?;

        let (compresses, logits_type) = check_interface(&inner, model)?;
        let profiled = if profile_prefix().is_some() { PROFILED_BATCHES } else { 0 };
        Ok(Self { inner, model: model.to_owned(), columns, logits_type, compresses, profiled })
    }
}

impl RunBatch for Session {
    /// Returns `columns` logits for each pair. Keeps nothing of a batch, so a panic leaves nothing behind.
    fn run(&mut self, feed: &Feed) -> Result<Vec<f32>> {
        let Feed { padded_tokens, ids, mask, head_tokens, tail_tokens, .. } = feed;
        let (size, padded_tokens) = (head_tokens.len(), *padded_tokens);
        let fail = |source: ort::Error| Error::Runtime {
            model: self.model.clone(),
            action: format!("scoring {size} pairs of {padded_tokens} tokens"),
            source: source.into(),
        };
        let shape = [size, padded_tokens];
        let tensor = |values| TensorRef::from_array_view((shape, values)).map_err(fail);
        let mut inputs = ort::inputs!["input_ids" => tensor(ids.as_slice())?, "attention_mask" => tensor(mask)?];
        if self.compresses {
            let tensor = |values| TensorRef::from_array_view(([size], values)).map_err(fail);
            inputs.extend(
                ort::inputs![HEAD_TOKENS => tensor(head_tokens.as_slice())?, TAIL_TOKENS => tensor(tail_tokens)?],
            );
        }
        let outputs = self.inner.run(inputs).map_err(fail)?;
        let logits = &outputs["logits"];
        let values: Vec<f32> = match self.logits_type {
            TensorElementType::Float16 => {
                logits.try_extract_tensor::<half::f16>().map_err(fail)?.1.iter().map(|v| v.to_f32()).collect()
            }
            _ => logits.try_extract_tensor::<f32>().map_err(fail)?.1.to_vec(),
        };
        drop(outputs);
        if self.profiled > 0 {
            self.profiled -= 1;
            if self.profiled == 0 {
                match self.inner.end_profiling() {
                    Ok(file) if Path::new(&file).exists() => tracing::info!("profile written to {file}"),
                    Ok(file) => tracing::warn!("the profile could not be written to {file}"),
                    Err(error) => tracing::warn!("the profile could not be written: {error}"),
                }
            }
        }
        if values.len() != size * self.columns {
            return Err(Error::model(
                &self.model,
                format!("it gave {} logits for {size} pairs, expected {} for each", values.len(), self.columns),
            ));
        }
        Ok(values)
    }
}

/// Whether a run failed because the device ran out of memory.
pub(crate) fn is_out_of_memory(error: &Error) -> bool {
    matches!(error, Error::Runtime { source, .. } if says_out_of_memory(&source.to_string()))
}

/// ONNX Runtime has no error code for this: its arena, CUDA, cuBLAS, cuDNN and C++ each have their own message.
fn says_out_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["out of memory", "failed to allocate", "alloc_failed", "bad_alloc"].iter().any(|words| message.contains(words))
}

/// Checks that the loaded ONNX Runtime supports a device, and that nothing is known to keep it from using it.
///
/// # Errors
/// [`Error::Library`] or [`Error::Device`].
pub(crate) fn check_device(device: Device) -> Result<()> {
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(index) => {
            library::environment()?;
            let problem = if ort::ep::CUDA::is_available().unwrap_or(false) {
                cuda::problem(index)
            } else {
                Some(cuda::no_cuda_in(library::loaded_from()))
            };
            problem.map_or(Ok(()), |message| Err(Error::Device { device: device.to_string(), message }))
        }
    }
}

/// Checks that a program's weights fit into what is free of a GPU, and warns if most of it is in use already.
fn check_memory(program: &Program, index: u16) -> Result<()> {
    let Ok(memory) = cuda::memory(index) else { return Ok(()) };
    let device = Device::Cuda(index);
    if let Program::Graph(graph) = program
        && graph.weight_bytes() > memory.free_bytes
    {
        let needed = graph.weight_bytes() as f64 / 1e9;
        let message = format!(
            "the weights need {needed:.1} GB, and {memory}; end what else uses the GPU (`nvidia-smi` lists it), or use \
             another one"
        );
        return Err(Error::Device { device: device.to_string(), message });
    }
    if memory.free_bytes < memory.total_bytes / 2 {
        tracing::warn!("{device}: only {memory}; other processes or models hold the rest");
    }
    Ok(())
}

/// The prefix of profiles, if they are asked for.
fn profile_prefix() -> Option<PathBuf> {
    std::env::var_os(PROFILE_VARIABLE).filter(|prefix| !prefix.is_empty()).map(PathBuf::from)
}

/// Checks that a profile can be written, which ONNX Runtime does not, and says when it will be.
fn check_profile() -> Result<()> {
    let Some(prefix) = profile_prefix() else { return Ok(()) };
    let folder = prefix.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map_err(|source| Error::io(&prefix, source))?;
    tracing::warn!(
        "{PROFILE_VARIABLE} profiles the first {PROFILED_BATCHES} batches; with fewer, {}_*.json stays empty",
        prefix.display()
    );
    Ok(())
}

enum BuildError {
    Device(ort::Error),
    Session(ort::Error),
}

impl<T> From<ort::Error<T>> for BuildError {
    fn from(error: ort::Error<T>) -> Self {
        Self::Session(ort::Error::new(error.message()))
    }
}

fn session_builder(
    environment: &ort::environment::Environment,
    device: Device,
    threads: usize,
    own_operators: bool,
) -> std::result::Result<SessionBuilder, BuildError> {
    let builder = SessionBuilder::new(environment)?
        .with_log_level(LogLevel::Error)?
        .with_intra_threads(threads)?
        // Memory patterns are planned by shape, and every batch has another shape.
        .with_memory_pattern(false)?
        // Spinning while waiting for the next operator makes narrow layers up to 9 % faster. It is kept short, so that
        // tokenization and the query engine get the cores between two batches.
        .with_intra_op_spinning(true)?
        .with_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)?;
    let builder = match profile_prefix() {
        Some(prefix) => builder.with_profiling(prefix)?,
        None => builder,
    };
    match device {
        // The fused operator takes eight times as long as the sum and the norm that it replaces.
        Device::Cpu => {
            #[cfg(test)]
            let builder =
                if own_operators { builder.with_operators(kernels::reference_operators()?)? } else { builder };
            Ok(builder.with_disabled_optimizers("SkipLayerNormFusion")?)
        }
        Device::Cuda(index) => {
            let provider = ort::ep::CUDA::default()
                .with_device_id(i32::from(index))
                // TF32 rounds operands to 10 bits, which breaks the promise of fp32.
                .with_tf32(false)
                // The longest batches of a window run first, so the arena reaches its full size at once. Doubling it
                // would take memory that no batch uses.
                .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
                // All but cuDNN's: it builds a graph for each shape, and every batch has another shape.
                .with_attention_backend(
                    AttentionBackend::FLASH_ATTENTION
                        | AttentionBackend::EFFICIENT_ATTENTION
                        | AttentionBackend::TRT_FUSED_ATTENTION
                        | AttentionBackend::TRT_FLASH_ATTENTION
                        | AttentionBackend::MATH,
                );
            let builder = if own_operators { builder.with_operators(kernels::cuda_operators()?)? } else { builder };
            builder
                .with_execution_providers([provider.build().error_on_failure()])
                .map_err(|e| BuildError::Device(ort::Error::new(e.message())))
        }
    }
}

fn with_weights_folder(builder: SessionBuilder, folder: &Path) -> ort::Result<SessionBuilder> {
    let folder = folder.to_str().ok_or_else(|| ort::Error::new("the weights' folder is not UTF-8"))?;
    builder
        .with_config_entry("session.model_external_initializers_file_folder_path", folder)
        .map_err(|e| ort::Error::new(e.message()))
}

/// Checks a model's inputs and outputs. Returns whether it compresses tokens, and the type of its logits.
fn check_interface(session: &OrtSession, model: &str) -> Result<(bool, TensorElementType)> {
    let inputs: Vec<&str> = session.inputs().iter().map(ort::value::Outlet::name).collect();
    let takes = |names: &[&str]| names.iter().all(|name| inputs.contains(name));
    let compresses = takes(&[HEAD_TOKENS, TAIL_TOKENS]);
    if !takes(&["input_ids", "attention_mask"]) || inputs.len() != if compresses { 4 } else { 2 } {
        return Err(Error::model(
            model,
            format!("its ONNX inputs are {}; expected input_ids and attention_mask", inputs.join(", ")),
        ));
    }
    let logits = session.outputs().iter().find(|output| output.name() == "logits").ok_or_else(|| {
        let outputs: Vec<&str> = session.outputs().iter().map(ort::value::Outlet::name).collect();
        Error::model(model, format!("its ONNX outputs are {}; expected one called logits", outputs.join(", ")))
    })?;
    match logits.dtype().tensor_type() {
        Some(ty @ (TensorElementType::Float32 | TensorElementType::Float16)) => Ok((compresses, ty)),
        other => Err(Error::model(model, format!("its logits are {other:?}; expected a Float32 or Float16 tensor"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_memory_is_told_from_other_failures() {
        for message in [
            "/onnxruntime_src/bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 1",
            "CUDA failure 2: out of memory ; GPU=0",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
            "std::bad_alloc",
        ] {
            assert!(says_out_of_memory(message), "{message}");
        }
        assert!(!says_out_of_memory("Got invalid dimensions for input: input_ids"));
        assert!(!is_out_of_memory(&Error::Stopped));
    }
}
