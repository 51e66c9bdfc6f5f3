//! Windows in, windows with score columns out.

use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use futures::future::try_join_all;

use super::gather_windows::ReservedWindow;
use super::metrics::PartitionMetrics;
use super::rerank_call::RerankCall;
use crate::reranker::{Reranker, ScoreCache};
use crate::sql::columns::{check_planned, column};
use crate::window_stream::Following;

/// What all windows of a partition share.
pub(super) struct ScoreWindows {
    calls: Vec<RerankCall>,
    /// The model of each call; `None` for a call that repeats an earlier one.
    rerankers: Vec<Option<Reranker>>,
    firsts: Vec<usize>,
    schema: SchemaRef,
    metrics: PartitionMetrics,
    cache: Option<Arc<ScoreCache>>,
}

impl ScoreWindows {
    /// Opens the models.
    pub(super) async fn open(
        calls: Vec<RerankCall>,
        firsts: Vec<usize>,
        schema: SchemaRef,
        metrics: PartitionMetrics,
        cache: Option<Arc<ScoreCache>>,
    ) -> Result<Self> {
        let mut rerankers = Vec::with_capacity(calls.len());
        for (place, call) in calls.iter().enumerate() {
            rerankers.push(if firsts[place] == place { Some(call.model.open().await?) } else { None });
        }
        Ok(Self { calls, rerankers, firsts, schema, metrics, cache })
    }

    /// What windows follow beside the input; `None` if a call is scored in full windows only.
    pub(super) fn following(&self) -> Option<Following> {
        Following::all(self.rerankers.iter().flatten().map(Reranker::following))
    }

    /// Adds the score columns to a window.
    pub(super) async fn score(&self, window: ReservedWindow) -> Result<ReservedWindow> {
        let ReservedWindow { pieces, memory } = window;
        let distinct = self.calls.iter().zip(&self.rerankers).map(async |(call, reranker)| match reranker {
            Some(reranker) => self.score_call(call, reranker, &pieces).await.map(Some),
            None => Ok(None),
        });
        let distinct = try_join_all(distinct).await?;
        let columns: Vec<&ArrayRef> = self.firsts.iter().filter_map(|first| distinct[*first].as_ref()).collect();
        let mut first = 0;
        let scored = pieces.into_iter().map(|piece| {
            let rows = piece.num_rows();
            let mut all = piece.columns().to_vec();
            all.extend(columns.iter().map(|column| column.slice(first, rows)));
            first += rows;
            Ok(RecordBatch::try_new(Arc::clone(&self.schema), all)?)
        });
        Ok(ReservedWindow { pieces: scored.collect::<Result<_>>()?, memory })
    }

    async fn score_call(&self, call: &RerankCall, reranker: &Reranker, pieces: &[RecordBatch]) -> Result<ArrayRef> {
        let texts = |expression: &Arc<dyn PhysicalExpr>, piece| column(&expression.evaluate(piece)?, piece.num_rows());
        let pairs = pieces.iter().map(|piece| Ok((texts(&call.query, piece)?, texts(&call.passage, piece)?)));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let scores = match &self.cache {
            Some(cache) => reranker.score_once_async(pairs, Arc::clone(cache)).await?,
            None => reranker.score_pieces_async(pairs).await?,
        };
        self.metrics.add(&scores.stats());
        self.metrics.wait_time.add_elapsed(start);
        let column = call.kind.column(&scores)?;
        let planned = call.expression.return_field(&self.schema)?;
        check_planned(column.data_type(), planned.data_type())?;
        Ok(column)
    }
}
