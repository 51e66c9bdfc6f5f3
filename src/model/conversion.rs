//! Says that weights are being converted to another precision, which for the largest models takes minutes.

use datafusion_rerank::Reranker;
use indicatif::ProgressBar;

use crate::terminal::{Count, Printer, ProgressStyle, bar};

/// Converts the weights of a model that is about to run to the precision that it computes in, where that is needed and was
/// not done before.
pub(crate) fn prepare(reranker: &Reranker, printer: Printer) -> datafusion_rerank::Result<()> {
    reranker.check_devices()?;
    convert_weights(reranker, printer)
}

/// Converts the weights of a model to the precision that it computes in, where that is needed and was not done before.
pub(crate) fn convert_weights(reranker: &Reranker, printer: Printer) -> datafusion_rerank::Result<()> {
    let mut bar = None;
    let result = reranker.convert_weights(|done, total| {
        bar.get_or_insert_with(|| begin(total, reranker, printer)).set_position(done);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
}

fn begin(total_bytes: u64, reranker: &Reranker, printer: Printer) -> ProgressBar {
    let what = format!("converting weights to {}, once", reranker.precision());
    match printer.progress_style() {
        ProgressStyle::Silent => ProgressBar::hidden(),
        ProgressStyle::Lines => {
            printer.note(&what);
            ProgressBar::hidden()
        }
        ProgressStyle::Bar(target) => bar(target, total_bytes, Count::Bytes).with_message(what),
    }
}
