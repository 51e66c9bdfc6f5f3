//! The model of a call in a plan.

use std::fmt::{self, Display, Formatter};

use datafusion::error::Result;

#[cfg(feature = "cluster")]
use crate::cluster::PlannedModel;
use crate::reranker::Reranker;

/// The model that a call scores with, its options resolved.
#[derive(Debug, Clone)]
pub(crate) enum CallModel {
    /// Opened while planning.
    Open {
        /// The name as the call or the session gives it.
        name: String,
        reranker: Reranker,
    },
    /// Of a plan that came from another process: opened where the plan runs.
    #[cfg(feature = "cluster")]
    Planned(PlannedModel),
}

impl CallModel {
    /// Rows sorted by length together.
    pub(crate) fn window_rows(&self) -> usize {
        match self {
            Self::Open { reranker, .. } => reranker.window_rows(),
            #[cfg(feature = "cluster")]
            Self::Planned(planned) => planned.window_rows(),
        }
    }

    /// The opened model.
    ///
    /// # Errors
    /// If it has yet to be opened and cannot be.
    #[cfg_attr(not(feature = "cluster"), expect(clippy::unused_async, reason = "all models are open"))]
    pub(crate) async fn open(&self) -> Result<Reranker> {
        match self {
            Self::Open { reranker, .. } => Ok(reranker.clone()),
            #[cfg(feature = "cluster")]
            Self::Planned(planned) => planned.open().await,
        }
    }
}

/// `model=.., options=.., device=.., precision=..`; where the device is another process's, without it and with the precision
/// among the options.
impl Display for CallModel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { name, reranker } => {
                let (options, device) = (reranker.options().to_json(), &reranker.engine_options().devices);
                write!(f, "model={name}, options={options}, device={device}, precision={}", reranker.precision())
            }
            #[cfg(feature = "cluster")]
            Self::Planned(planned) => write!(f, "model={}, options={}", planned.name(), planned.options().to_json()),
        }
    }
}
