//! `rerank score`: scores passages given on the command line.

use anyhow::{Result, anyhow};
use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::Float32Type;
use serde_json::json;

use crate::args::ScoreArgs;
use crate::model::{conversion, open};
use crate::run::{json_lines, number};
use crate::terminal::Printer;

/// Runs the subcommand.
pub(crate) fn run(args: &ScoreArgs, printer: Printer) -> Result<()> {
    let reranker = open::open_model_or_bundled(&args.model, &args.options, &args.engine)?;
    if args.model.model.is_none() {
        printer.note("scored by tiny, the bundled demonstration; name a model with --model");
    }
    conversion::prepare(&reranker, printer)?;
    if let Some(file) = &args.jsonl {
        return json_lines::score(&reranker.with_max_delay(args.max_delay.0), file, printer);
    }
    let queries = StringArray::from_iter_values(args.passages.iter().flat_map(|_| &args.query));
    let passages = StringArray::from_iter_values(&args.passages);
    let scores = reranker.score_rows(&queries, &passages)?;
    if let Some((row, reason)) = scores.errors().next() {
        return Err(anyhow!("passage {}: {reason}", row + 1));
    }
    let mut ranked: Vec<_> = values(scores.to_array().as_ref()).into_iter().zip(&args.passages).collect();
    // With several cutoff layers, sort by the first one given, like SQL.
    ranked.sort_by(|(a, _), (b, _)| b[0].total_cmp(&a[0]));
    for (scores, passage) in ranked {
        printer.data(&if args.json { json_line(&scores, passage) } else { text_line(&scores, passage) })?;
    }
    Ok(())
}

/// The scores of each row; at least one per row.
fn values(scores: &dyn Array) -> Vec<Vec<f32>> {
    match scores.as_list_opt::<i32>() {
        Some(lists) => {
            lists.iter().flatten().map(|list| list.as_primitive::<Float32Type>().values().to_vec()).collect()
        }
        None => scores.as_primitive::<Float32Type>().values().iter().map(|score| vec![*score]).collect(),
    }
}

fn json_line(scores: &[f32], passage: &str) -> String {
    match scores {
        [score] => json!({ "score": number(*score), "passage": passage }),
        scores => json!({ "score": scores.iter().copied().map(number).collect::<Vec<_>>(), "passage": passage }),
    }
    .to_string()
}

/// Scores separated by commas, a tab and the passage, with tabs and line ends escaped.
fn text_line(scores: &[f32], passage: &str) -> String {
    let scores: Vec<String> = scores.iter().map(f32::to_string).collect();
    let passage = passage.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    format!("{}\t{passage}", scores.join(","))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, ListArray};
    use arrow::datatypes::Float32Type;

    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(text_line(&[1.5, -2.0], "a\tb\nc\\n"), "1.5,-2\ta\\tb\\nc\\\\n");
        assert_eq!(json_line(&[1.5], "a\nb"), r#"{"passage":"a\nb","score":1.5}"#);
        assert_eq!(json_line(&[1.5, 2.0], "a"), r#"{"passage":"a","score":[1.5,2.0]}"#);
    }

    #[test]
    fn single_scores_and_lists_are_read_alike() {
        assert_eq!(values(&Float32Array::from(vec![1.0, 2.0])), [[1.0], [2.0]]);
        let lists = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0), Some(2.0)])]);
        assert_eq!(values(Arc::new(lists).as_ref()), [[1.0, 2.0]]);
    }
}
