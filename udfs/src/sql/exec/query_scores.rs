//! The score cache of a query.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use crate::reranker::{Budget, ScoreCache};

/// Shared by all scoring operators of a plan. The cache lives while one of them runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryScores(Arc<Mutex<Weak<ScoreCache>>>);

impl QueryScores {
    /// The cache of the running query, of at most `capacity` bytes and an eighth of the pool: the rest of the query
    /// needs memory more. `None` if it may keep no bytes.
    pub(super) fn open(&self, capacity: usize, pool: &Arc<dyn MemoryPool>) -> Option<Arc<ScoreCache>> {
        let capacity = match pool.memory_limit() {
            MemoryLimit::Finite(bytes) => capacity.min(bytes / 8),
            MemoryLimit::Infinite | MemoryLimit::Unknown => capacity,
        };
        if capacity == 0 {
            return None;
        }
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = shared.upgrade() {
            return Some(cache);
        }
        let reservation = MemoryConsumer::new("rerank.score_cache").register(pool);
        let cache = Arc::new(ScoreCache::new(capacity, Box::new(Reserved(reservation))));
        *shared = Arc::downgrade(&cache);
        Some(cache)
    }
}

/// Memory of the query's pool.
struct Reserved(MemoryReservation);

impl Budget for Reserved {
    fn grow(&self, bytes: usize) -> bool {
        self.0.try_grow(bytes).is_ok()
    }

    fn shrink(&self, bytes: usize) {
        self.0.shrink(bytes);
    }
}
