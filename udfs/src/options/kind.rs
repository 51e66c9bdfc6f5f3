//! The kinds of values that options take, and how each is read from JSON and written to it.

use serde_json::Value;

use super::Cutoffs;
use crate::error::{Error, Result};
use crate::suggestion::did_you_mean;

/// Largest length, in tokens, and largest ratio that an option takes. Lengths are added to each other.
pub(crate) const MAX_COUNT: u64 = 0x7fff_ffff;

/// Largest layer number that an option takes. The checkpoint's own limit is checked when a model is opened.
const MAX_LAYER: u64 = 0xffff;

/// The values that an option takes, from any source: Rust, JSON, SQL, session settings or a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OptionKind {
    /// `true` or `false`.
    Switch,
    /// A whole number from 1 to 2,147,483,647.
    Count,
    /// Any text.
    Text,
    /// The path of a folder.
    Folder,
    /// Text with two `{}` placeholders, the instruction's and the text's.
    Format,
    /// One of a few words.
    Word,
    /// Layer numbers, from 0 to 65,535. A single number counts as a list of one.
    Layers,
    /// A layer number (a single score) or a list of at least one (a list of scores).
    Cutoffs,
}

impl OptionKind {
    /// Whether a value given as text is taken literally. Text for the other kinds is read as JSON: `512`, `true`, `[8,
    /// 16]`.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Folder | Self::Format | Self::Word)
    }

    /// The SQL type of a value in a call's options.
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Switch => "BOOLEAN",
            Self::Count => "BIGINT",
            Self::Text | Self::Folder | Self::Format | Self::Word => "VARCHAR",
            Self::Layers => "BIGINT[]",
            Self::Cutoffs => "BIGINT or BIGINT[]",
        }
    }
}

/// How values of one kind are read and written. `name` is the option's name in errors.
pub(super) trait ReadValue {
    type Value;
    const KIND: OptionKind;

    fn read(name: &str, value: &Value) -> Result<Self::Value>;

    fn write(value: &Self::Value) -> Value;
}

/// The type behind an option that takes one of a few words.
pub(super) trait Choice: Copy + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;
}

/// [`OptionKind::Switch`].
pub(super) struct Switch;

/// [`OptionKind::Count`].
pub(super) struct CountValue;

/// [`OptionKind::Text`].
pub(super) struct Text;

/// [`OptionKind::Folder`].
pub(super) struct Folder;

/// [`OptionKind::Format`].
pub(super) struct FormatValue;

/// [`OptionKind::Word`].
pub(super) struct Word<T>(std::marker::PhantomData<T>);

/// [`OptionKind::Layers`].
pub(super) struct Layers;

/// [`OptionKind::Cutoffs`].
pub(super) struct CutoffLayers;

impl ReadValue for Switch {
    type Value = bool;
    const KIND: OptionKind = OptionKind::Switch;

    fn read(name: &str, value: &Value) -> Result<bool> {
        value.as_bool().ok_or_else(|| wrong(name, value, "true or false"))
    }

    fn write(value: &bool) -> Value {
        Value::from(*value)
    }
}

impl ReadValue for CountValue {
    type Value = usize;
    const KIND: OptionKind = OptionKind::Count;

    fn read(name: &str, value: &Value) -> Result<usize> {
        match value.as_u64() {
            Some(count @ 1..=MAX_COUNT) => Ok(count as usize),
            Some(0) | None => Err(wrong(name, value, "a whole number of at least 1")),
            Some(_) => Err(wrong(name, value, &format!("a whole number of at most {MAX_COUNT}"))),
        }
    }

    fn write(value: &usize) -> Value {
        Value::from(*value)
    }
}

impl ReadValue for Text {
    type Value = String;
    const KIND: OptionKind = OptionKind::Text;

    fn read(name: &str, value: &Value) -> Result<String> {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong(name, value, "text"))
    }

    fn write(value: &String) -> Value {
        Value::from(value.as_str())
    }
}

impl ReadValue for Folder {
    type Value = String;
    const KIND: OptionKind = OptionKind::Folder;

    fn read(name: &str, value: &Value) -> Result<String> {
        let folder = value.as_str().filter(|folder| !folder.is_empty());
        folder.map(str::to_owned).ok_or_else(|| wrong(name, value, "the path of a folder"))
    }

    fn write(value: &String) -> Value {
        Text::write(value)
    }
}

impl ReadValue for FormatValue {
    type Value = String;
    const KIND: OptionKind = OptionKind::Format;

    fn read(name: &str, value: &Value) -> Result<String> {
        let format = Text::read(name, value)?;
        if format.matches("{}").count() == 2 {
            Ok(format)
        } else {
            Err(wrong(name, value, "text with two {} placeholders, the instruction's and the text's"))
        }
    }

    fn write(value: &String) -> Value {
        Text::write(value)
    }
}

impl<T: Choice> ReadValue for Word<T> {
    type Value = T;
    const KIND: OptionKind = OptionKind::Word;

    fn read(name: &str, value: &Value) -> Result<T> {
        let named = |word: &str| T::ALL.iter().copied().find(|choice| choice.name() == word);
        let given = value.as_str().unwrap_or_default();
        named(given).ok_or_else(|| {
            let suggestion = did_you_mean(given, T::ALL.iter().map(|choice| choice.name()));
            Error::option(name, format!("expected {}, got {value}{suggestion}", words(T::ALL)))
        })
    }

    fn write(value: &T) -> Value {
        Value::from(value.name())
    }
}

impl ReadValue for Layers {
    type Value = Vec<usize>;
    const KIND: OptionKind = OptionKind::Layers;

    fn read(name: &str, value: &Value) -> Result<Vec<usize>> {
        let list = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        list.iter().map(layer).collect::<Option<_>>().ok_or_else(|| wrong(name, value, "a list of layer numbers"))
    }

    fn write(value: &Vec<usize>) -> Value {
        Value::from(value.as_slice())
    }
}

impl ReadValue for CutoffLayers {
    type Value = Cutoffs;
    const KIND: OptionKind = OptionKind::Cutoffs;

    fn read(name: &str, value: &Value) -> Result<Cutoffs> {
        if value.is_array() {
            let layers = Layers::read(name, value)?;
            if layers.is_empty() {
                return Err(wrong(name, value, "at least one layer"));
            }
            return Ok(Cutoffs::Many(layers));
        }
        layer(value).map(Cutoffs::One).ok_or_else(|| wrong(name, value, "a layer number or a list of them"))
    }

    fn write(value: &Cutoffs) -> Value {
        match value {
            Cutoffs::One(layer) => Value::from(*layer),
            Cutoffs::Many(layers) => Value::from(layers.as_slice()),
        }
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> Error {
    Error::option(name, format!("expected {expected}, got {value}"))
}

fn layer(value: &Value) -> Option<usize> {
    value.as_u64().filter(|layer| *layer <= MAX_LAYER).map(|layer| layer as usize)
}

/// `'a', 'b' or 'c'`.
fn words<T: Choice>(choices: &[T]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("'{}'", choice.name())).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}
