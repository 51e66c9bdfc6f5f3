//! Loads the engine of a model.

use std::sync::Arc;

use super::facts::Model;
use crate::checkpoint::Weights;
use crate::engine::{Activity, Engine, EngineSpec, Program, ScoreStats};
use crate::error::Result;
use crate::graph::Target;
use crate::models::GraphOptions;
use crate::panics::catch_panic;

impl Model {
    /// Loads the weights now instead of when the first pair is scored. Blocks until they are loaded.
    ///
    /// # Errors
    /// [`Error::Library`], [`Error::Device`], [`Error::Checkpoint`] or [`Error::Runtime`].
    ///
    /// [`Error::Library`]: crate::Error::Library
    /// [`Error::Device`]: crate::Error::Device
    /// [`Error::Checkpoint`]: crate::Error::Checkpoint
    /// [`Error::Runtime`]: crate::Error::Runtime
    pub fn load(&self) -> Result<()> {
        self.engine().map(drop)
    }

    /// What the device has run since the weights were loaded, for everyone who shares them: pairs (without those that
    /// repeat another of their window), tokens, padding, batches and device time. All zero before that. Never waits.
    pub fn device_stats(&self) -> ScoreStats {
        self.opened.engines.loaded(&self.graph_options).map(|engine| engine.stats()).unwrap_or_default()
    }

    /// What the engine of the graph has to do, for everyone who shares it, whether it is loaded or not. Never waits.
    pub(crate) fn activity(&self) -> Activity {
        self.opened.engines.activity(&self.graph_options)
    }

    /// The engine of the graph, loaded on first use. Blocks until the weights are loaded.
    ///
    /// # Errors
    /// Those of building the graph and loading the session.
    pub(super) fn engine(&self) -> Result<Arc<Engine>> {
        self.opened.engines.get_or_load(&self.graph_options, |activity| {
            self.check_devices()?;
            let program = match &self.opened.checkpoint.weights {
                Weights::Tensors(_) => Program::Graph(self.for_devices()?.graph(&mut |_, _| ())?),
                Weights::Onnx(file) => Program::File(file.clone()),
            };
            Engine::start(&EngineSpec {
                program,
                model: self.location().display().to_string(),
                pad_id: self.opened.architecture.pad_id(),
                columns: self.graph_options.columns(),
                batch_tokens: self.batch_tokens(),
                batches_in_flight: self.engine_options().devices.batches_in_flight(),
                options: self.engine_options().clone(),
                activity,
            })
        })
    }

    /// The model with the operators that only this crate has, if all of its devices run them.
    fn for_devices(&self) -> Result<Self> {
        let has_kernels = self.graph_options.target == Target::Gpu && self.engine_options().devices.run_kernels()?;
        let target = if has_kernels { Target::GpuWithKernels } else { self.graph_options.target };
        let graph_options = GraphOptions { target, ..self.graph_options.clone() };
        Ok(Self { graph_options, opened: Arc::clone(&self.opened) })
    }

    /// Calls `then` with [`Self::engine`]: at once if it is loaded, otherwise from a new thread, so that the encoding
    /// threads can serve other models while this one loads.
    pub(crate) fn with_engine(&self, then: impl FnOnce(Result<Arc<Engine>>) + Send + 'static) {
        if let Some(engine) = self.opened.engines.loaded(&self.graph_options) {
            return then(Ok(engine));
        }
        let model = self.clone();
        let name = self.location().display().to_string();
        let thread = std::thread::Builder::new().name("rerank-load".to_owned());
        // If the thread cannot start, `then` is dropped, which its caller notices.
        if let Err(error) = thread.spawn(move || then(catch_panic(&name, "loading", || model.engine()))) {
            tracing::error!("{} is not loaded, its thread cannot be started: {error}", self.location().display());
        }
    }
}
