//! The object stores of an executor, opened by URL and configured from its environment.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use url::{Position, Url};

use crate::storage::store;

/// Opens a store when a plan first refers to it.
#[derive(Debug, Default)]
pub(crate) struct Stores(DefaultObjectStoreRegistry);

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.0.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if let Ok(store) = self.0.get_store(url) {
            return Ok(store);
        }
        let root = &url[..Position::BeforePath];
        let root = Url::parse(root).map_err(|error| DataFusionError::Execution(format!("'{root}': {error}")))?;
        let (store, _) = store::open(&root).map_err(|error| DataFusionError::ObjectStore(Box::new(error)))?;
        self.0.register_store(&root, Arc::clone(&store));
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_opened_once() {
        let stores = Stores::default();
        let url = |text: &str| Url::parse(text).unwrap();
        let first = stores.get_store(&url("memory:///a")).unwrap();
        assert!(Arc::ptr_eq(&first, &stores.get_store(&url("memory:///b")).unwrap()));
        assert!(stores.get_store(&url("file:///a")).is_ok());
        assert!(stores.get_store(&url("gopher://host/a")).is_err());
    }
}
