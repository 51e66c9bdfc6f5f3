//! Reading, writing, merging and checking options, all from their declarations.

use serde_json::Value;

use super::{OPTION_NAMES, OptionDeclaration, ScoreOptions};
use crate::error::{Error, Result};
use crate::models::Family;
use crate::suggestion::did_you_mean;

impl ScoreOptions {
    /// Reads options from a JSON object; a JSON `null` leaves its option unset.
    ///
    /// # Errors
    /// [`Error::Option`] for a name that does not exist or a value that the option does not take.
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
        let option = Self::declaration(name).ok_or_else(|| {
            let suggestion = did_you_mean(name, OPTION_NAMES.iter().copied());
            let names = OPTION_NAMES.join(", ");
            Error::option(name, format!("there is no such option{suggestion}; the options are {names}"))
        })?;
        (option.set)(self, name, value)
    }

    /// Sets one option from text, as in a `SET` statement or on a command line. Text and words are taken literally,
    /// everything else is read as JSON (`512`, `true`, `[8, 16]`).
    ///
    /// # Errors
    /// [`Error::Option`] as for [`Self::from_json`].
    pub fn set_text(&mut self, name: &str, value: &str) -> Result<()> {
        let text = || Value::from(value);
        if Self::declaration(name).is_some_and(|option| option.kind.is_text()) {
            return self.set(name, &text());
        }
        self.set(name, &serde_json::from_str(value).unwrap_or_else(|_| text()))
    }

    /// The options that are set, as a JSON object; [`Self::from_json`] reads it back.
    pub fn to_json(&self) -> Value {
        let set = |option: &OptionDeclaration| Some((option.name.to_owned(), option.value(self)?));
        Value::Object(Self::declarations().iter().filter_map(set).collect())
    }

    /// These options, with the unset ones taken from `defaults`.
    #[must_use]
    pub fn or(mut self, defaults: &Self) -> Self {
        for option in Self::declarations() {
            (option.inherit)(&mut self, defaults);
        }
        self
    }

    /// The adapter alone of these options: no other changes a model's fingerprint.
    #[must_use]
    pub fn only_adapter(&self) -> Self {
        Self { adapter: self.adapter.clone(), ..Self::default() }
    }

    /// Checks the values, which may have been set from Rust, as strictly as [`Self::from_json`] does. Opening a model
    /// with options does this too, and checks that the model has the options.
    ///
    /// # Errors
    /// [`Error::Option`] as for [`Self::from_json`].
    pub fn validate(&self) -> Result<()> {
        Self::from_json(&self.to_json()).map(drop)
    }

    /// The option with this name.
    pub fn declaration(name: &str) -> Option<&'static OptionDeclaration> {
        Self::declarations().iter().find(|option| option.is_named(name))
    }

    /// Refuses every option that is set and that the family does not have.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub(crate) fn check_family(&self, family: Family) -> Result<()> {
        let foreign = |option: &&OptionDeclaration| !option.families.contains(&family) && option.value(self).is_some();
        match Self::declarations().iter().find(foreign) {
            None => Ok(()),
            Some(option) => Err(Error::option(
                option.name,
                format!("{family} models do not have it; their options are {}", family.options().join(", ")),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::options::{Cutoffs, Heads, OptionKind, Precision};
    use crate::{EngineOptions, Reranker};

    fn every_option() -> Value {
        json!({
            "precision": "int8", "adapter": "/adapters/mine", "normalize": true, "max_length": 64, "query_max_length": 16,
            "query_instruction": "q: ", "query_instruction_format": "<{}>{}",
            "passage_instruction": "p: ", "passage_instruction_format": "{}\\n{}",
            "prompt": "", "cutoff_layers": [8, 4], "compress_ratio": 2, "compress_layers": [3],
            "heads": "by_layer", "attention_softcap": true,
        })
    }

    #[test]
    fn json_round_trips_every_option() {
        let all = every_option();
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

    #[test]
    fn setters_reach_their_fields() {
        let options = ScoreOptions::default()
            .with_precision(Precision::Int8)
            .with_adapter("/adapters/mine")
            .with_normalize(true)
            .with_max_length(64)
            .with_query_max_length(16)
            .with_query_instruction("q: ")
            .with_query_instruction_format("<{}>{}")
            .with_passage_instruction("p: ".to_owned())
            .with_passage_instruction_format("{}\\n{}")
            .with_prompt("")
            .with_cutoff_layers([8, 4])
            .with_compress_ratio(2)
            .with_compress_layers([3])
            .with_heads(Heads::ByLayer)
            .with_attention_softcap(true);
        assert_eq!(options, ScoreOptions::from_json(&every_option()).unwrap());
        assert_eq!(options.with_cutoff_layers(28).cutoff_layers, Some(Cutoffs::One(28)));
    }

    /// For each option, values that its field can hold but that are invalid. A text or a switch has none.
    fn wrong_fields() -> Vec<(&'static str, ScoreOptions)> {
        let unset = ScoreOptions::default;
        vec![
            ("adapter", unset().with_adapter("")),
            ("max_length", unset().with_max_length(0)),
            ("max_length", unset().with_max_length(usize::MAX)),
            ("query_max_length", unset().with_query_max_length(0)),
            ("query_max_length", unset().with_query_max_length(1 << 31)),
            ("query_instruction_format", unset().with_query_instruction_format("{}")),
            ("passage_instruction_format", unset().with_passage_instruction_format("{} {} {}")),
            ("cutoff_layers", unset().with_cutoff_layers([])),
            ("cutoff_layers", unset().with_cutoff_layers(vec![8, 1 << 20])),
            ("cutoff_layers", unset().with_cutoff_layers(1 << 20)),
            ("compress_ratio", unset().with_compress_ratio(0)),
            ("compress_ratio", unset().with_compress_ratio(usize::MAX)),
            ("compress_layers", unset().with_compress_layers([1 << 20])),
        ]
    }

    #[test]
    fn fields_are_checked_like_json() {
        for (name, options) in wrong_fields() {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("option {name}: expected ")), "{error}");
            assert_eq!(error, ScoreOptions::from_json(&options.to_json()).unwrap_err().to_string());
        }
        let wrong: Vec<&str> = wrong_fields().into_iter().map(|(name, _)| name).collect();
        for option in ScoreOptions::declarations() {
            let anything = matches!(option.kind, OptionKind::Switch | OptionKind::Text | OptionKind::Word);
            assert!(anything || wrong.contains(&option.name), "{}", option.name);
        }
        ScoreOptions::from_json(&every_option()).unwrap().validate().unwrap();
    }

    #[test]
    fn models_refuse_wrong_fields() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-gemma2-lightweight-reranker");
        let reranker = Reranker::open(fixture, &EngineOptions::default()).unwrap();
        for (name, options) in wrong_fields() {
            let error = reranker.with_options(&options).unwrap_err().to_string();
            assert_eq!(error, options.validate().unwrap_err().to_string(), "{name}");
        }
    }

    #[test]
    fn aliases_are_read_and_not_written() {
        let options = ScoreOptions::from_json(&json!({"compress_layer": 3})).unwrap();
        assert_eq!(options.to_json(), json!({"compress_layers": [3]}));
        let error = ScoreOptions::from_json(&json!({"compress_layer": "x"})).unwrap_err().to_string();
        assert!(error.starts_with("option compress_layer: expected a list of layer numbers"), "{error}");
    }
}
