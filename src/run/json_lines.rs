//! Scores JSON lines: prints the same objects in the same order, each with its score.

use std::fmt::{self, Formatter};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write, stdin, stdout};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use datafusion_rerank::{PairColumns, Reranker, ScoredRows, Scores};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::terminal::Printer;

/// The most lines that are sent at once.
const BATCH_LINES: usize = 1024;

/// What is read at once: [`BATCH_LINES`] lines of 1 KiB.
const READ_BYTES: usize = 1 << 20;

/// Batches of lines that wait to be gathered into windows.
const BATCHES_AHEAD: usize = 1;

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

/// Scores the objects of a file (`-`: standard input) and prints them, those of a window as soon as it is scored. A
/// line that is not an object is an error, after the lines before it. A pair that cannot be scored gets a reason in its
/// object.
pub(crate) fn score(reranker: &Reranker, file: &Path, printer: Printer) -> Result<()> {
    let input: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let runtime = Builder::new_current_thread().enable_time().build().context("cannot start the runtime")?;
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
    // Standard input may block for ever, also when scoring has failed.
    let reading = thread::Builder::new().name("read-lines".to_owned()).spawn(move || read(input, &sender));
    let reading = reading.context("cannot start a thread that reads")?;
    let batches = stream::poll_fn(move |context| batches.poll_recv(context)).map(Ok);
    let mut scored = reranker.score_batches(batches, PairColumns::default());
    let mut output = BufWriter::new(stdout().lock());
    let (mut rows, mut failed) = (0, 0);
    while let Some(window) = runtime.block_on(scored.try_next())? {
        failed += print(&window, &mut output)?;
        rows += window.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        output.flush()?;
    }
    let read = reading.join().map_err(|_| anyhow!("reading stopped"))?;
    let place = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    read.with_context(|| place)?;
    if failed > 0 {
        printer.note(&format!("{failed} of {rows} pairs could not be scored; the reasons are in score_error"));
    }
    Ok(())
}

/// Reads lines and sends those that are there at once as a batch, so that nobody waits for a line to come. Stops when
/// the receiver is dropped.
///
/// # Errors
/// A line that cannot be read or is no object. Those before it are sent.
fn read(input: impl Read, sender: &mpsc::Sender<RecordBatch>) -> Result<()> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut lines = Vec::new();
    let send = |lines: &mut Vec<Line>| {
        let batch = (!lines.is_empty()).then(|| batch(lines)).transpose()?;
        lines.clear();
        anyhow::Ok(batch.is_none_or(|batch| sender.blocking_send(batch).is_ok()))
    };
    for number in 1_u64.. {
        let line = match read_line(&mut input).with_context(|| format!("line {number}: cannot be read")) {
            Ok(None) => break,
            Ok(Some(text)) if text.trim().is_empty() => Ok(None),
            Ok(Some(text)) => parse(text).with_context(|| format!("line {number}")).map(Some),
            Err(error) => Err(error),
        };
        match line {
            Ok(line) => lines.extend(line),
            Err(error) => {
                send(&mut lines)?;
                return Err(error);
            }
        }
        let more = input.buffer().contains(&b'\n');
        if (!more || lines.len() == BATCH_LINES) && !send(&mut lines)? {
            return Ok(());
        }
    }
    send(&mut lines)?;
    Ok(())
}

/// The next line, without its end; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let text = line.strip_suffix('\n').map_or(line.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    line.truncate(text.len());
    Ok(Some(line))
}

fn batch(lines: &[Line]) -> Result<RecordBatch> {
    let text =
        |text: fn(&Line) -> Option<&str>| -> ArrayRef { Arc::new(lines.iter().map(text).collect::<StringArray>()) };
    // As bytes, the lines do not count as text to be scored.
    let written = BinaryArray::from_iter_values(lines.iter().map(|line| &line.text));
    let columns = [
        ("line", Arc::new(written) as ArrayRef),
        ("query", text(|line| line.query.as_deref())),
        ("passage", text(|line| line.passage.as_deref())),
        ("broken", text(|line| line.broken.as_deref())),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?)
}

/// Prints the lines of a window with their scores. Returns the number of failed pairs.
fn print(window: &ScoredRows, output: &mut impl Write) -> Result<usize> {
    let mut errors = window.scores.errors().peekable();
    let mut scores = json_scores(&window.scores).into_iter();
    let (mut row, mut failed) = (0, 0);
    for batch in &window.batches {
        let (lines, broken) = (batch.column(0).as_binary::<i32>(), batch.column(3).as_string::<i32>());
        for ((line, broken), score) in lines.iter().flatten().zip(broken).zip(&mut scores) {
            let error = errors.next_if(|(failed, _)| *failed == row).map(|(_, reason)| reason);
            let error = broken.map(str::to_owned).or(error);
            failed += usize::from(error.is_some());
            output.write_all(with_score(str::from_utf8(line)?, &score, error).as_bytes())?;
            row += 1;
        }
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

/// A JSON object as written: the same key may occur twice.
struct Object<'a>(Vec<(Key, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The values of a key.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.0 == name.as_bytes()).map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A key of an object, which may hold half of a surrogate pair and then is no text.
struct Key(Vec<u8>);

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
    let object: Object<'_> = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| anyhow!("no JSON object: {error}"))?;
    let mut broken = None;
    let mut take = |name: &str| -> Result<Option<String>> {
        let mut values = object.values(name);
        let value = values.next();
        let value = value.ok_or_else(|| anyhow!("there is no {name}; a line is an object with query and passage"))?;
        if let Some(other) = values.next() {
            bail!("{name} is given twice, as {value} and {other}; keep one");
        }
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
    if let Some(name) = [SCORE, SCORE_ERROR].into_iter().find(|name| object.values(name).next().is_some()) {
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
        let twice = "query is given twice, as \"a\" and null; keep one";
        assert_eq!(error(r#"{"query": "a", "query": null, "passage": "b", "x": 1, "x": 2}"#), twice);
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
