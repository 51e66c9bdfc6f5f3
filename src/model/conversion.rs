//! Converts weights to another precision and shows progress: the largest models take minutes.

use datafusion_rerank::Reranker;

use crate::terminal::{Count, Printer, ProgressView};

/// Prepares a model for scoring: checks its devices, and converts its weights if its precision requires it and the
/// cache does not have them yet.
pub(crate) fn prepare(reranker: &Reranker, printer: Printer) -> datafusion_rerank::Result<()> {
    reranker.model().check_devices()?;
    convert_weights(reranker, printer)
}

/// Converts the weights of a model if its precision requires it and the cache does not have them yet.
pub(crate) fn convert_weights(reranker: &Reranker, printer: Printer) -> datafusion_rerank::Result<()> {
    let what = || match &reranker.options().adapter {
        None => format!("converting weights to {}, once", reranker.precision()),
        Some(adapter) => format!("merging {adapter} into the weights in {}, once", reranker.precision()),
    };
    let mut view = None;
    reranker.model().convert_weights(|done_bytes, total_bytes| {
        let view = view.get_or_insert_with(|| {
            let view = ProgressView::start(printer, total_bytes, Count::Bytes);
            view.line(what);
            view
        });
        view.update(done_bytes, what);
    })
}
