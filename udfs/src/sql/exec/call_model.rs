//! The model of a call in a plan.

use std::fmt::{self, Display, Formatter};

#[cfg(feature = "cluster")]
use datafusion::error::DataFusionError;
use datafusion::error::Result;

#[cfg(feature = "cluster")]
use crate::remote::{ExecutorModels, PlannedModel};
use crate::reranker::Reranker;

/// The model that a call scores with, its options resolved.
#[derive(Debug, Clone)]
pub(crate) enum CallModel {
    /// Opened while planning.
    Open {
        /// The name in the call, or the session's.
        name: String,
        reranker: Reranker,
    },
    /// From another process's plan: opened when the plan runs.
    #[cfg(feature = "cluster")]
    Planned {
        planned: PlannedModel,
        /// How this process opens it; `None` where plans are only passed on.
        models: Option<ExecutorModels>,
    },
}

impl CallModel {
    /// Rows sorted by length together.
    pub(crate) fn window_rows(&self) -> usize {
        match self {
            Self::Open { reranker, .. } => reranker.window_rows(),
            #[cfg(feature = "cluster")]
            Self::Planned { planned, .. } => planned.window_rows(),
        }
    }

    /// The opened model.
    ///
    /// # Errors
    /// If it is not open yet and cannot be opened.
    #[cfg_attr(not(feature = "cluster"), expect(clippy::unused_async, reason = "all models are open"))]
    pub(crate) async fn open(&self) -> Result<Reranker> {
        match self {
            Self::Open { reranker, .. } => Ok(reranker.clone()),
            #[cfg(feature = "cluster")]
            Self::Planned { planned, models: Some(models) } => open_planned(planned.clone(), models.clone()).await,
            #[cfg(feature = "cluster")]
            Self::Planned { models: None, .. } => {
                Err(DataFusionError::Internal("a plan of another process runs on an executor".to_owned()))
            }
        }
    }
}

/// Opens a model of another process's plan. Reading a tokenizer takes seconds.
#[cfg(feature = "cluster")]
async fn open_planned(planned: PlannedModel, models: ExecutorModels) -> Result<Reranker> {
    let opening = move || {
        // The error crosses processes as text.
        models
            .open(&planned)
            .map_err(|error| DataFusionError::Execution(format!("executor {}: {error}", models.executor())))
    };
    tokio::task::spawn_blocking(opening).await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
}

/// `model=.., options=.., device=.., precision=..`. Leaves out another process's device; the precision is then among
/// the options.
impl Display for CallModel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { name, reranker } => {
                let (options, device) = (reranker.options().to_json(), &reranker.engine_options().devices);
                write!(f, "model={name}, options={options}, device={device}, precision={}", reranker.precision())
            }
            #[cfg(feature = "cluster")]
            Self::Planned { planned, .. } => {
                write!(f, "model={}, options={}", planned.name(), planned.options().to_json())
            }
        }
    }
}
