//! Scores JSON lines: prints the same objects in the same order, each with its score.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::{self, Formatter};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write, stdin, stdout};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{AsArray, StringArray};
use arrow::datatypes::Float32Type;
use datafusion_rerank::{DEFAULT_WINDOW_ROWS, Reranker, Scores, WindowCutter};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::terminal::Printer;

/// The keys added to an object.
const SCORE: &str = "score";
const SCORE_ERROR: &str = "score_error";

/// A line as written, and its texts.
#[derive(Debug)]
struct Line {
    text: String,
    query: Option<String>,
    passage: Option<String>,
    /// Why the pair cannot be scored: a text is not valid Unicode.
    broken: Option<String>,
}

/// Scores the objects of a file (`-`: standard input) and prints them. A line that is not an object is an error. A pair
/// that cannot be scored gets a reason in its object.
pub(crate) fn score(reranker: &Reranker, file: &Path, printer: Printer) -> Result<()> {
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
    };
    let mut output = BufWriter::new(stdout().lock());
    let lines = input.lines().enumerate().map(|(line, text)| {
        let text = text.with_context(|| format!("line {}: cannot be read", line + 1))?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        parse(text).with_context(|| format!("line {}", line + 1)).map(Some)
    });
    let mut cutter = WindowCutter::new(DEFAULT_WINDOW_ROWS);
    let (mut rows, mut failed) = (0, 0);
    let mut print = |window: Vec<Vec<Line>>| {
        let window = window.into_iter().flatten().collect::<Vec<_>>();
        failed += score_window(reranker, &window, &mut output)?;
        rows += window.len();
        output.flush()?;
        anyhow::Ok(())
    };
    let mut ended = Ok(());
    for line in lines {
        match line {
            Ok(line) => cutter.push(Vec::from_iter(line)),
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
        if let Some(window) = cutter.next_full() {
            print(window)?;
        }
    }
    // Lines before an invalid one are still printed.
    print(cutter.finish())?;
    ended?;
    if failed > 0 {
        printer.note(&format!("{failed} of {rows} pairs could not be scored; the reasons are in score_error"));
    }
    Ok(())
}

/// Prints the lines of a window with their scores. Returns the number of failed pairs.
fn score_window(reranker: &Reranker, window: &[Line], output: &mut impl Write) -> Result<usize> {
    let queries: StringArray = window.iter().map(|line| line.query.as_deref()).collect();
    let passages: StringArray = window.iter().map(|line| line.passage.as_deref()).collect();
    let scores = reranker.score_rows(&queries, &passages)?;
    let mut errors = scores.errors().peekable();
    let mut failed = 0;
    for (row, (line, score)) in window.iter().zip(json_scores(&scores)).enumerate() {
        let error = errors.next_if(|(failed, _)| *failed == row).map(|(_, reason)| reason);
        let error = line.broken.clone().or(error);
        failed += usize::from(error.is_some());
        output.write_all(with_score(&line.text, &score, error).as_bytes())?;
    }
    Ok(failed)
}

/// The line with keys added to its object. The rest stays as written.
fn with_score(line: &str, score: &Value, error: Option<String>) -> String {
    let object = line.trim_end().strip_suffix('}').unwrap_or(line).trim_end();
    let error = error.map(|reason| format!(",\"{SCORE_ERROR}\":{}", Value::from(reason))).unwrap_or_default();
    format!("{object},\"{SCORE}\":{score}{error}}}\n")
}

/// A number, a list of numbers or null for each row.
fn json_scores(scores: &Scores) -> Vec<Value> {
    let array = scores.to_array();
    match array.as_list_opt::<i32>() {
        Some(lists) => {
            let list = |list: arrow::array::ArrayRef| -> Value {
                list.as_primitive::<Float32Type>().iter().map(|score| score.map_or(Value::Null, number)).collect()
            };
            lists.iter().map(|scores| scores.map_or(Value::Null, list)).collect()
        }
        None => array.as_primitive::<Float32Type>().iter().map(|score| score.map_or(Value::Null, number)).collect(),
    }
}

/// The shortest decimal number that identifies a 32-bit score.
pub(crate) fn number(score: f32) -> Value {
    score.to_string().parse().map_or(Value::Null, |score: f64| Value::from(score))
}

/// A key of an object, which may hold half of a surrogate pair and then is no text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key(Vec<u8>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Key;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// Reads the texts of a line and leaves the rest as it is.
fn parse(text: String) -> Result<Line> {
    // Some programs put a byte order mark first.
    let mut object: HashMap<Key, &RawValue> = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| anyhow!("no JSON object: {error}"))?;
    let mut broken = None;
    let mut take = |name: &str| -> Result<Option<String>> {
        let value = object.remove(name.as_bytes()).map(RawValue::get);
        let value = value.ok_or_else(|| anyhow!("there is no {name}; a line is an object with query and passage"))?;
        match serde_json::from_str(value) {
            Ok(text) => Ok(text),
            // The line is valid JSON. But JSON, unlike text, may hold half of a pair: half an emoji of a cut string.
            Err(_) if value.starts_with('"') => {
                broken.get_or_insert_with(|| {
                    format!("{name} is no text: it holds half of a surrogate pair (\\ud800 to \\udfff)")
                });
                Ok(None)
            }
            Err(_) => Err(anyhow!("{name} is {value}, expected a text or null")),
        }
    };
    let (query, passage) = (take("query")?, take("passage")?);
    if let Some(name) = [SCORE, SCORE_ERROR].into_iter().find(|name| object.contains_key(name.as_bytes())) {
        bail!("there is a {name} already; rename it");
    }
    Ok(Line { text, query, passage, broken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_pairs_are_refused() {
        let error = |line: &str| format!("{:#}", parse(line.to_owned()).err().unwrap());
        assert!(error("[1]").starts_with("no JSON object: "));
        assert_eq!(error(r#"{"query": "a"}"#), "there is no passage; a line is an object with query and passage");
        assert_eq!(error(r#"{"query": 1, "passage": "b"}"#), "query is 1, expected a text or null");
        assert_eq!(error(r#"{"query": "a", "passage": "b", "score": 1}"#), "there is a score already; rename it");
    }

    #[test]
    fn half_an_emoji_fails_its_line_and_nothing_else() {
        let read = |line: &str| parse(line.to_owned()).unwrap();
        let line = read(r#"{"query": "a \ud83d b", "passage": "b \udc3c"}"#);
        assert_eq!((&line.query, &line.passage), (&None, &None));
        let reason = r"query is no text: it holds half of a surrogate pair (\ud800 to \udfff)";
        assert_eq!(line.broken.as_deref(), Some(reason));
        let line = read(
            r#"{"query": "\ud83d\udc3c", "passage": null, "note": "\ud83d", "\udc00": [{"\ud800": 1}], "n": 1e999}"#,
        );
        assert_eq!((line.query.as_deref(), line.broken), (Some("🐼"), None));
        assert_eq!(read("\u{feff}{\"query\": \"a\", \"passage\": \"b\"}").query.as_deref(), Some("a"));
    }

    #[test]
    fn a_line_stays_as_it_was_written() {
        let line = r#"{"query": "a}", "n": 1.00, "passage": null } "#;
        assert_eq!(parse(line.to_owned()).unwrap().query.as_deref(), Some("a}"));
        assert_eq!(
            with_score(line, &number(0.62), None),
            "{\"query\": \"a}\", \"n\": 1.00, \"passage\": null,\"score\":0.62}\n"
        );
        assert_eq!(
            with_score("{\"i\":1}", &Value::Null, Some("a \"b\"".to_owned())),
            "{\"i\":1,\"score\":null,\"score_error\":\"a \\\"b\\\"\"}\n"
        );
    }
}
