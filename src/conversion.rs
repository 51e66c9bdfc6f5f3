//! Says that weights are being converted to another precision, which for the largest models takes minutes.

use datafusion_rerank::Reranker;
use indicatif::{ProgressBar, ProgressStyle as BarStyle};

use crate::printer::{Printer, ProgressStyle};

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
        ProgressStyle::Bar(target) => {
            let style = BarStyle::with_template("{wide_bar} {binary_bytes}/{binary_total_bytes}\n{wide_msg}");
            ProgressBar::with_draw_target(Some(total_bytes), target)
                .with_style(style.unwrap_or_else(|_| BarStyle::default_bar()))
                .with_message(what)
        }
    }
}
