//! The engines of one checkpoint, by graph.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use once_cell::sync::OnceCell;

use crate::engine::{Activity, Engine};
use crate::error::Result;
use crate::models::GraphOptions;

/// The place of an engine.
#[derive(Default)]
struct Place {
    engine: OnceCell<Arc<Engine>>,
    /// Counts windows from before the engine is loaded.
    activity: Activity,
}

type Places = HashMap<GraphOptions, Arc<Place>>;

/// Engines by graph. Callers that need the same engine at once load it once. The lock is held only to look at the map,
/// never while an engine loads: a caller that needs another engine, or the counters of any, does not wait.
#[derive(Default)]
pub(super) struct Engines(Mutex<Places>);

impl Engines {
    /// The engine of a graph, if it is loaded. Never waits.
    pub(super) fn loaded(&self, graph: &GraphOptions) -> Option<Arc<Engine>> {
        self.lock().get(graph)?.engine.get().cloned()
    }

    /// What the engine of a graph has to do, whether it is loaded or not. Never waits.
    pub(super) fn activity(&self, graph: &GraphOptions) -> Activity {
        self.place(graph).activity.clone()
    }

    /// The engine of a graph, loaded on first use with `load`, which is given the counter of its work. A failure is not
    /// remembered.
    ///
    /// # Errors
    /// Those of `load`.
    pub(super) fn get_or_load(
        &self,
        graph: &GraphOptions,
        load: impl FnOnce(Activity) -> Result<Engine>,
    ) -> Result<Arc<Engine>> {
        let place = self.place(graph);
        place.engine.get_or_try_init(|| load(place.activity.clone()).map(Arc::new)).cloned()
    }

    fn place(&self, graph: &GraphOptions) -> Arc<Place> {
        let mut places = self.lock();
        if let Some(place) = places.get(graph) {
            return Arc::clone(place);
        }
        Arc::clone(places.entry(graph.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
