//! The report as a self-contained HTML page.

use std::fmt::Write;

use datafusion_rerank::Reranker;

use super::histogram::Histogram;
use super::run_report::Report;

/// Width and height of a chart.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;

/// Space for the labels below a chart.
const LABELS: f64 = 20.0;

/// A bar: start, end and height.
type Bar = (f64, f64, f64);

/// Renders the page.
pub(crate) fn page(report: &Report, model: &Reranker) -> String {
    let job = report.job_tally();
    let throughput: Vec<Bar> = report.throughput().collect();
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>rerank report</title>\n\
         <style>body{{font:15px sans-serif;max-width:{WIDTH}px;margin:2em auto}}\
         rect{{fill:#4472c4}}text{{font:12px sans-serif}}line{{stroke:#888}}</style></head><body>\n\
         <h1>rerank {}</h1>\n<p>{} with {}</p>\n",
        env!("CARGO_PKG_VERSION"),
        escape(model.family().name()),
        escape(&model.location().display().to_string()),
    );
    for line in report.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<p>{}</p>", escape(&line));
    }
    page += &chart("Throughput", "pairs per second, over the seconds of this run", &throughput);
    page += &chart("Scores", "rows, by score; all units of the job", &bars(&job.scores));
    page += &chart("Lengths", "rows, by tokens of query and passage; all units of the job", &bars(&job.tokens));
    page += "</body></html>\n";
    page
}

fn bars(histogram: &Histogram) -> Vec<Bar> {
    histogram.bins().map(|bin| (bin.start, bin.end, bin.count as f64)).collect()
}

/// Renders a heading and a bar chart.
fn chart(title: &str, unit: &str, bars: &[Bar]) -> String {
    let mut chart = format!("<h2>{title}</h2>\n<p>{unit}</p>\n");
    let (Some(first), Some(last)) = (bars.first(), bars.last()) else {
        chart += "<p>nothing</p>\n";
        return chart;
    };
    let (start, end) = (first.0, last.1);
    let highest = bars.iter().map(|bar| bar.2).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| WIDTH * (value - start) / (end - start);
    let _ = writeln!(
        chart,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{title}\">\
         <line x1=\"0\" x2=\"{WIDTH}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/>",
        HEIGHT + LABELS,
    );
    for &(from, to, value) in bars.iter().filter(|bar| bar.2 > 0.0) {
        let height = HEIGHT * value / highest;
        let _ = writeln!(
            chart,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{from:.4} to {to:.4}: {value:.0}</title></rect>",
            x(from),
            HEIGHT - height,
            (x(to) - x(from) - 1.0).max(0.5),
        );
    }
    let y = HEIGHT + LABELS - 4.0;
    let _ = writeln!(
        chart,
        "<text x=\"0\" y=\"{y}\">{start:.2}</text><text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{end:.2}</text>\
         <text x=\"{}\" y=\"{y}\" text-anchor=\"middle\">highest bar {highest:.1}</text></svg>",
        WIDTH / 2.0,
    );
    chart
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_the_chart() {
        let chart = chart("T", "u", &[(0.0, 1.0, 5.0), (1.0, 2.0, 0.0), (2.0, 4.0, 10.0)]);
        assert_eq!(chart.matches("<rect").count(), 2);
        assert!(chart.contains(r#"<rect x="0.0" y="90.0" width="179.0" height="90.0">"#), "{chart}");
        assert!(chart.contains(r#"<rect x="360.0" y="0.0" width="359.0" height="180.0">"#), "{chart}");
        assert!(chart.contains(">highest bar 10.0<"), "{chart}");
    }

    #[test]
    fn an_empty_chart_says_so() {
        assert!(chart("T", "u", &[]).contains("nothing"));
    }

    #[test]
    fn text_cannot_break_the_page() {
        assert_eq!(escape(r#"<a b="c">&"#), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
