//! The engines of one checkpoint, by graph.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use once_cell::sync::OnceCell;

use crate::engine::Engine;
use crate::error::Result;
use crate::models::GraphOptions;

type Cells = HashMap<GraphOptions, Arc<OnceCell<Arc<Engine>>>>;

/// Engines by graph. Callers that need the same engine at once load it once. The lock is held only to look at the map,
/// never while an engine loads: a caller that needs another engine, or the counters of any, does not wait.
#[derive(Default)]
pub(super) struct Engines(Mutex<Cells>);

impl Engines {
    /// The engine of a graph, if it is loaded. Never waits.
    pub(super) fn loaded(&self, graph: &GraphOptions) -> Option<Arc<Engine>> {
        self.lock().get(graph)?.get().cloned()
    }

    /// The engine of a graph, loaded with `load` on first use. A failure is not remembered.
    ///
    /// # Errors
    /// Those of `load`.
    pub(super) fn get_or_load(
        &self,
        graph: &GraphOptions,
        load: impl FnOnce() -> Result<Engine>,
    ) -> Result<Arc<Engine>> {
        let cell = Arc::clone(self.lock().entry(graph.clone()).or_default());
        cell.get_or_try_init(|| load().map(Arc::new)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Cells> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
