//! JSON as Python writes it.

use std::borrow::Cow;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The byte order mark that some editors put first.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The numbers that Python's `json` writes and that are not JSON.
const NOT_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// Reads a JSON file of a checkpoint: see [`standard`].
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Checkpoint`] if it is no JSON or not of the expected form.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(path, &std::fs::read(path).map_err(|source| Error::io(path, source))?)
}

/// Parses the content of `path`, wherever it was read from: see [`standard`].
///
/// # Errors
/// [`Error::Checkpoint`] if it is no JSON or not of the expected form.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T> {
    serde_json::from_slice(&standard(json)).map_err(|error| {
        // `is_data`: well-formed, but of another form.
        let problem = if error.is_data() { "not of the expected form" } else { "not valid JSON" };
        Error::checkpoint(path, format!("{problem}: {error}"))
    })
}

/// The same JSON without a byte order mark, and with `NaN`, `Infinity` and `-Infinity` as texts, so that whoever
/// expects a number there refuses them by name.
pub(crate) fn standard(json: &[u8]) -> Cow<'_, [u8]> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let mut standard = Vec::new();
    // What comes before `copied` is in `standard`.
    let (mut at, mut copied, mut in_text) = (0, 0, false);
    while at < json.len() {
        match json[at] {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'-' | b'I' | b'N' if !in_text => {
                if let Some(word) = NOT_NUMBERS.iter().find(|word| json[at..].starts_with(word)) {
                    standard.extend_from_slice(&json[copied..at]);
                    standard.push(b'"');
                    standard.extend_from_slice(word);
                    standard.push(b'"');
                    at += word.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    standard.extend_from_slice(&json[copied..]);
    Cow::Owned(standard)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        let read = |text: &str| parse::<Value>(Path::new("config.json"), text.as_bytes());
        let python =
            "\u{feff}{\"a\": [0.0, Infinity], \"b\": -Infinity, \"c\": NaN, \"d\": \"NaN \\\" Infinity\", \"e\": -1}";
        let expected = json!({"a": [0.0, "Infinity"], "b": "-Infinity", "c": "NaN", "d": "NaN \" Infinity", "e": -1});
        assert_eq!(read(python).unwrap(), expected);
        assert_eq!(read(r#"{"a": "Infinity\\"}"#).unwrap(), json!({"a": "Infinity\\"}));
        for broken in ["{\"a\": Inf}", "{\"a\": N", "{\"a\": \"\\", ""] {
            let error = read(broken).unwrap_err().to_string();
            assert!(error.starts_with("checkpoint file config.json: not valid JSON: "), "{error}");
        }
    }

    #[test]
    fn standard_json_is_not_copied() {
        assert!(matches!(standard(br#"{"a": -1, "Infinity": "NaN"}"#), Cow::Borrowed(_)));
    }
}
