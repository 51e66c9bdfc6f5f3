//! What is made from a model's weights: its graph, copies in another precision, an ONNX export.

use std::path::Path;
use std::sync::Arc;

use super::facts::Model;
use crate::checkpoint::Weights;
use crate::error::{Error, Result};
use crate::graph::{self, OnnxGraph, Target};
use crate::models::GraphOptions;
use crate::options::Precision;
use crate::weights::{AdapterOrigin, OnProgress, Origin, convert};

impl Model {
    /// Converts the weights to [`Self::precision`], merged with the adapter if there is one, now instead of while
    /// loading, unless the cache has them or no conversion is needed. Calls `on_progress` with the checkpoint's bytes
    /// converted so far and their total; never if there is nothing to do.
    ///
    /// # Errors
    /// [`Error::Io`] if the checkpoint cannot be read or the cache cannot be written, [`Error::Checkpoint`] if a weight
    /// is out of the precision's range.
    pub fn convert_weights(&self, mut on_progress: impl FnMut(u64, u64)) -> Result<()> {
        // ONNX Runtime widens the stored weights while it loads. An export is fp32 here, whatever it holds.
        if self.precision() == Precision::Fp32 && self.graph_options.adapter.is_none() {
            return Ok(());
        }
        self.graph(&mut on_progress).map(drop)
    }

    /// Writes the model with these options as a standard ONNX directory: `model.onnx`, `model.onnx.data`, tokenizer
    /// and configuration. Other tools can run it, and [`Reranker::open`](crate::Reranker::open) opens it for encoder
    /// families.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Model`] if this is already an ONNX export.
    pub fn export(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        // Whoever runs the export may give it longer pairs than these options allow, and has none of our operators.
        let target = if self.graph_options.target.is_gpu() { Target::Gpu } else { Target::Cpu };
        let graph_options = GraphOptions { windowed: true, target, ..self.graph_options.clone() };
        let model = Self { graph_options, opened: Arc::clone(&self.opened) };
        graph::export(&model.graph(&mut |_, _| ())?, folder)?;
        for file in self.opened.checkpoint.companions() {
            let copy = folder.join(file.file_name().unwrap_or_default());
            std::fs::copy(&file, &copy).map_err(|source| Error::io(&copy, source))?;
        }
        Ok(())
    }

    /// The graph, with weights in the precision of its layers. Converts them if the cache does not have them.
    ///
    /// # Errors
    /// Those of building the graph and converting the weights; [`Error::Model`] if this is an ONNX export.
    pub(super) fn graph(&self, on_progress: OnProgress<'_>) -> Result<OnnxGraph> {
        match &self.opened.checkpoint.weights {
            Weights::Tensors(tensors) => {
                let tensors = self.graph_options.adapter.as_ref().map_or(tensors, |adapter| &adapter.tensors);
                let graph = self.opened.architecture.graph(tensors, &self.opened.tokenizer, &self.graph_options)?;
                if graph.converted().is_empty() {
                    return Ok(graph);
                }
                let origin = Origin {
                    fingerprint: self.opened.fingerprint()?,
                    adapter: self
                        .graph_options
                        .adapter
                        .as_deref()
                        .map(|adapter| AdapterOrigin { content: &adapter.content, folder: &adapter.folder }),
                    checkpoint: self.location(),
                    family: self.family(),
                };
                let cache = self.engine_options().cache.as_deref();
                if let Some(adapter) = &self.graph_options.adapter {
                    adapter.check_unchanged()?;
                }
                let (parts, file) = convert(graph.converted(), graph.precision(), &origin, cache, on_progress)?;
                Ok(graph.with_converted(parts, file))
            }
            Weights::Onnx(file) => {
                Err(Error::model(file.display().to_string(), "it is an ONNX graph already; copy its files instead"))
            }
        }
    }
}
