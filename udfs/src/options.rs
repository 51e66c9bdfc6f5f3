//! What a caller can ask of a model, per call.

use std::fmt;

use serde_json::Value;

use crate::checkpoint::DType;
use crate::error::{Error, Result};

/// Options of one scoring call; `None` means the model's default.
///
/// The names, defaults and meanings are those of the reference library's `compute_score` and constructors
/// (FlagEmbedding 1.4.2, `inference/reranker`). Which of them a model accepts depends on its family:
/// [`Reranker::with_options`](crate::Reranker::with_options) refuses the others and lists the allowed ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// In what the layers compute. Default: [`Precision::Fp32`] on the CPU; on a GPU [`Precision::Fp16`] for m3 and
    /// [`Precision::Bf16`] for the decoders.
    pub precision: Option<Precision>,
    /// Return `1 / (1 + exp(-logit))`, computed in f64, instead of the raw logit. Default: false.
    pub normalize: Option<bool>,
    /// Longest passage, and longest pair, in tokens. Default: 512. Decoder families grant the separator and the
    /// prompt on top, exactly as the reference does.
    pub max_length: Option<usize>,
    /// Longest query in tokens, instruction included. Default: three quarters of `max_length`.
    pub query_max_length: Option<usize>,
    /// Text put before every query. Default: none for m3, `"A: "` for the decoders.
    pub query_instruction: Option<String>,
    /// How instruction and query are joined: two `{}` placeholders, `\n` written as backslash-n. Default: `"{}{}"`.
    pub query_instruction_format: Option<String>,
    /// Text put before every passage. Default: none for m3, `"B: "` for the decoders.
    pub passage_instruction: Option<String>,
    /// How instruction and passage are joined. Default: `"{}{}"`.
    pub passage_instruction_format: Option<String>,
    /// The question put to a decoder after the pair; `""` for none. Default: the family's own.
    pub prompt: Option<String>,
    /// The layer or layers whose scores are wanted, 1-based count of layers run. Default: the last.
    pub cutoff_layers: Option<Cutoffs>,
    /// How many neighbouring passage tokens are averaged into one at each compression layer. Default: 1 (off).
    pub compress_ratio: Option<usize>,
    /// The layers before which passages are compressed. Default: `[8]`.
    pub compress_layers: Option<Vec<usize>>,
    /// Which scoring head a cutoff layer uses. Default: [`Heads::Reference`].
    pub heads: Option<Heads>,
    /// Apply the checkpoint's attention logit soft-capping, which the reference silently skips. Default: false.
    pub attention_softcap: Option<bool>,
}

/// In what the layers of a model compute. Scoring heads, and what is made of a logit, are in f32 or wider in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floats, straight from the checkpoint: the reference's scores.
    #[default]
    Fp32,
    /// 16-bit floats of 11 significant bits, up to 65,504: weights, activations and the operands of every product. On the
    /// CPU, where nearly all of it is computed in f32 after all, it saves memory and costs time.
    Fp16,
    /// 16-bit floats of 8 significant bits and the range of f32, on a GPU only: as [`Self::Fp16`], for models whose
    /// activations may exceed its range.
    Bf16,
    /// 8-bit integers, on the CPU only: about twice as fast. Weights are quantized symmetrically, with a scale per output
    /// channel; activations are quantized as they come, with one scale for a device batch. Scores are therefore close to
    /// those of `Fp32`, not equal, and depend a little on the pairs that they are scored with. Embeddings, norms and
    /// attention stay in f32.
    Int8,
}

impl Precision {
    /// All precisions.
    pub const ALL: &'static [Self] = &[Self::Fp32, Self::Fp16, Self::Bf16, Self::Int8];

    /// The option's spelling of this choice.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The precision of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|precision| precision.name() == name)
    }

    /// The 16-bit type of weights and activations, if they are of one.
    pub(crate) fn half(self) -> Option<DType> {
        match self {
            Self::Fp16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            Self::Fp32 | Self::Int8 => None,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One cutoff layer (a single score) or several (a list of scores from one pass, in the order asked).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cutoffs {
    /// A single exit: the score is a `Float32`.
    One(usize),
    /// Several exits: the scores are a `List<Float32>`.
    Many(Vec<usize>),
}

impl Cutoffs {
    /// The layers in the order asked.
    pub fn layers(&self) -> &[usize] {
        match self {
            Self::One(layer) => std::slice::from_ref(layer),
            Self::Many(layers) => layers,
        }
    }

    /// Whether the result is a list even if it has one element.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

/// How a lightweight checkpoint's scoring head is chosen for a cutoff layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Heads {
    /// As the reference library does: by the rank of the layer among the cutoffs asked for.
    #[default]
    Reference,
    /// The head that was trained for the layer.
    ByLayer,
}

impl Heads {
    /// The option's spelling of this choice.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::ByLayer => "by_layer",
        }
    }
}

impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every option's name, in the order of [`ScoreOptions`].
pub const OPTION_NAMES: &[&str] = &[
    "precision",
    "normalize",
    "max_length",
    "query_max_length",
    "query_instruction",
    "query_instruction_format",
    "passage_instruction",
    "passage_instruction_format",
    "prompt",
    "cutoff_layers",
    "compress_ratio",
    "compress_layers",
    "heads",
    "attention_softcap",
];

/// Names whose values are free text, taken literally by [`ScoreOptions::set_text`].
const TEXT_OPTIONS: &[&str] = &[
    "precision",
    "query_instruction",
    "query_instruction_format",
    "passage_instruction",
    "passage_instruction_format",
    "prompt",
    "heads",
];

impl ScoreOptions {
    /// Reads options from a JSON object; a JSON `null` leaves its option unset.
    ///
    /// # Errors
    /// [`Error::Option`] for a name that does not exist or a value of the wrong type.
    pub fn from_json(value: &Value) -> Result<Self> {
        let Value::Object(entries) = value else {
            return Err(Error::option("options", format!("expected an object of named options, got {value}")));
        };
        let mut options = Self::default();
        for (name, value) in entries {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Sets one option by name; `null` unsets it.
    ///
    /// # Errors
    /// [`Error::Option`] as for [`Self::from_json`].
    pub fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        match name {
            "precision" => self.precision = optional(value, |v| precision(name, v))?,
            "normalize" => self.normalize = optional(value, |v| boolean(name, v))?,
            "max_length" => self.max_length = optional(value, |v| positive(name, v))?,
            "query_max_length" => self.query_max_length = optional(value, |v| positive(name, v))?,
            "query_instruction" => self.query_instruction = optional(value, |v| text(name, v))?,
            "query_instruction_format" => self.query_instruction_format = optional(value, |v| format(name, v))?,
            "passage_instruction" => self.passage_instruction = optional(value, |v| text(name, v))?,
            "passage_instruction_format" => self.passage_instruction_format = optional(value, |v| format(name, v))?,
            "prompt" => self.prompt = optional(value, |v| text(name, v))?,
            "cutoff_layers" => self.cutoff_layers = optional(value, |v| cutoffs(name, v))?,
            "compress_ratio" => self.compress_ratio = optional(value, |v| positive(name, v))?,
            "compress_layers" | "compress_layer" => self.compress_layers = optional(value, |v| layers(name, v))?,
            "heads" => self.heads = optional(value, |v| heads(name, v))?,
            "attention_softcap" => self.attention_softcap = optional(value, |v| boolean(name, v))?,
            _ => {
                return Err(Error::option(
                    name,
                    format!("there is no such option; the options are {}", OPTION_NAMES.join(", ")),
                ));
            }
        }
        Ok(())
    }

    /// Sets one option from text, as a `SET` statement or a command line gives it: free-text options are taken
    /// literally, everything else is read as JSON (`512`, `true`, `[8, 16]`).
    ///
    /// # Errors
    /// [`Error::Option`] as for [`Self::from_json`].
    pub fn set_text(&mut self, name: &str, value: &str) -> Result<()> {
        if TEXT_OPTIONS.contains(&name) {
            return self.set(name, &Value::String(value.to_owned()));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        self.set(name, &value)
    }

    /// The options that are set, as a JSON object; [`Self::from_json`] reads it back.
    pub fn to_json(&self) -> Value {
        let mut entries = serde_json::Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                entries.insert(name.to_owned(), value);
            }
        };
        put("precision", self.precision.map(|precision| Value::from(precision.name())));
        put("normalize", self.normalize.map(Value::from));
        put("max_length", self.max_length.map(Value::from));
        put("query_max_length", self.query_max_length.map(Value::from));
        put("query_instruction", self.query_instruction.clone().map(Value::from));
        put("query_instruction_format", self.query_instruction_format.clone().map(Value::from));
        put("passage_instruction", self.passage_instruction.clone().map(Value::from));
        put("passage_instruction_format", self.passage_instruction_format.clone().map(Value::from));
        put("prompt", self.prompt.clone().map(Value::from));
        put(
            "cutoff_layers",
            self.cutoff_layers.clone().map(|cutoffs| match cutoffs {
                Cutoffs::One(layer) => Value::from(layer),
                Cutoffs::Many(layers) => Value::from(layers),
            }),
        );
        put("compress_ratio", self.compress_ratio.map(Value::from));
        put("compress_layers", self.compress_layers.clone().map(Value::from));
        put("heads", self.heads.map(|heads| Value::from(heads.name())));
        put("attention_softcap", self.attention_softcap.map(Value::from));
        Value::Object(entries)
    }

    /// These options, with whatever they leave unset taken from `defaults`.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        let defaults = defaults.clone();
        Self {
            precision: self.precision.or(defaults.precision),
            normalize: self.normalize.or(defaults.normalize),
            max_length: self.max_length.or(defaults.max_length),
            query_max_length: self.query_max_length.or(defaults.query_max_length),
            query_instruction: self.query_instruction.or(defaults.query_instruction),
            query_instruction_format: self.query_instruction_format.or(defaults.query_instruction_format),
            passage_instruction: self.passage_instruction.or(defaults.passage_instruction),
            passage_instruction_format: self.passage_instruction_format.or(defaults.passage_instruction_format),
            prompt: self.prompt.or(defaults.prompt),
            cutoff_layers: self.cutoff_layers.or(defaults.cutoff_layers),
            compress_ratio: self.compress_ratio.or(defaults.compress_ratio),
            compress_layers: self.compress_layers.or(defaults.compress_layers),
            heads: self.heads.or(defaults.heads),
            attention_softcap: self.attention_softcap.or(defaults.attention_softcap),
        }
    }

    /// Refuses every option that is set and not in `allowed`.
    pub(crate) fn check_allowed(&self, family: &str, allowed: &[&str]) -> Result<()> {
        let Value::Object(entries) = self.to_json() else { return Ok(()) };
        match entries.keys().find(|name| !allowed.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Error::option(
                name,
                format!("{family} models do not have it; their options are {}", allowed.join(", ")),
            )),
        }
    }
}

fn optional<T>(value: &Value, read: impl FnOnce(&Value) -> Result<T>) -> Result<Option<T>> {
    if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

fn wrong(name: &str, value: &Value, expected: &str) -> Error {
    Error::option(name, format!("expected {expected}, got {value}"))
}

fn boolean(name: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| wrong(name, value, "true or false"))
}

fn text(name: &str, value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(name, value, "text"))
}

fn positive(name: &str, value: &Value) -> Result<usize> {
    match value.as_u64() {
        Some(n @ 1..=0x7fff_ffff) => Ok(n as usize),
        _ => Err(wrong(name, value, "a whole number of at least 1")),
    }
}

fn format(name: &str, value: &Value) -> Result<String> {
    let format = text(name, value)?;
    if format.matches("{}").count() == 2 {
        Ok(format)
    } else {
        Err(wrong(name, value, "text with two {} placeholders, the instruction's and the text's"))
    }
}

fn layer(value: &Value) -> Option<usize> {
    value.as_u64().filter(|n| *n <= 0xffff).map(|n| n as usize)
}

fn layers(name: &str, value: &Value) -> Result<Vec<usize>> {
    let expected = "a list of layer numbers";
    let list = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    list.iter().map(layer).collect::<Option<_>>().ok_or_else(|| wrong(name, value, expected))
}

fn cutoffs(name: &str, value: &Value) -> Result<Cutoffs> {
    if value.is_array() {
        let layers = layers(name, value)?;
        if layers.is_empty() {
            return Err(wrong(name, value, "at least one layer"));
        }
        return Ok(Cutoffs::Many(layers));
    }
    layer(value).map(Cutoffs::One).ok_or_else(|| wrong(name, value, "a layer number or a list of them"))
}

fn precision(name: &str, value: &Value) -> Result<Precision> {
    let expected = "'fp32', 'fp16', 'bf16' or 'int8'";
    value.as_str().and_then(Precision::from_name).ok_or_else(|| wrong(name, value, expected))
}

fn heads(name: &str, value: &Value) -> Result<Heads> {
    match value.as_str() {
        Some("reference") => Ok(Heads::Reference),
        Some("by_layer") => Ok(Heads::ByLayer),
        _ => Err(wrong(name, value, "'reference' or 'by_layer'")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_round_trips_every_option() {
        let all = json!({
            "precision": "int8", "normalize": true, "max_length": 64, "query_max_length": 16,
            "query_instruction": "q: ", "query_instruction_format": "<{}>{}",
            "passage_instruction": "p: ", "passage_instruction_format": "{}\\n{}",
            "prompt": "", "cutoff_layers": [8, 4], "compress_ratio": 2, "compress_layers": [3],
            "heads": "by_layer", "attention_softcap": true,
        });
        let options = ScoreOptions::from_json(&all).unwrap();
        assert_eq!(options.to_json(), all);
        assert_eq!(all.as_object().unwrap().len(), OPTION_NAMES.len());
    }

    #[test]
    fn every_precision_can_be_named() {
        for &precision in Precision::ALL {
            let options = ScoreOptions::from_json(&json!({ "precision": precision.name() })).unwrap();
            assert_eq!(options.precision, Some(precision));
        }
        let error = ScoreOptions::from_json(&json!({"precision": "int4"})).unwrap_err().to_string();
        for precision in Precision::ALL {
            assert!(error.contains(&format!("'{precision}'")), "{error}");
        }
    }

    #[test]
    fn wrong_values_name_the_option() {
        for (name, value) in [
            ("normalize", json!("yes")),
            ("max_length", json!(0)),
            ("max_length", json!(-1)),
            ("query_instruction_format", json!("{}")),
            ("cutoff_layers", json!([])),
            ("cutoff_layers", json!("8")),
            ("heads", json!("best")),
            ("maxlength", json!(1)),
        ] {
            let error = ScoreOptions::from_json(&json!({ name: value })).unwrap_err().to_string();
            assert!(error.starts_with(&format!("option {name}: ")), "{error}");
        }
    }

    #[test]
    fn text_form_keeps_free_text_literal() {
        let mut options = ScoreOptions::default();
        options.set_text("query_instruction", "12").unwrap();
        options.set_text("max_length", "12").unwrap();
        options.set_text("cutoff_layers", "[1, 2]").unwrap();
        assert_eq!(options.query_instruction.as_deref(), Some("12"));
        assert_eq!(options.max_length, Some(12));
        assert_eq!(options.cutoff_layers, Some(Cutoffs::Many(vec![1, 2])));
    }

    #[test]
    fn unset_options_come_from_the_defaults() {
        let call = ScoreOptions { max_length: Some(64), ..Default::default() };
        let session = ScoreOptions { max_length: Some(128), normalize: Some(true), ..Default::default() };
        let merged = call.or(&session);
        assert_eq!((merged.max_length, merged.normalize), (Some(64), Some(true)));
    }
}
