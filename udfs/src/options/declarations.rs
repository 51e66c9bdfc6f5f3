//! Every option of a scoring call, declared once.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::declare::declare_options;
use super::kind::{CountValue, CutoffLayers, Folder, FormatValue, Layers, ReadValue, Switch, Text, Word};
use super::{Cutoffs, Heads, OptionKind, Precision};
use crate::error::Result;
use crate::models::Family;

const ALL: &[Family] = Family::ALL;
const DECODERS: &[Family] = &[Family::Gemma, Family::MiniCpm, Family::Gemma2];
const LAYER_WISE: &[Family] = &[Family::MiniCpm, Family::Gemma2];
const LIGHTWEIGHT: &[Family] = &[Family::Gemma2];

/// One option. [`ScoreOptions::declarations`] lists them all.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionDeclaration {
    /// The name: a field of [`ScoreOptions`], a key in JSON and SQL, and `rerank.<name>` among session settings.
    pub name: &'static str,
    /// What it does, in plain text.
    pub documentation: &'static str,
    /// What applies if it is unset, in words.
    pub default: &'static str,
    /// The values that it takes.
    pub kind: OptionKind,
    /// The families that have it; the others refuse it.
    pub families: &'static [Family],
    /// Whether it changes the graph, and so what an export writes. The others change the input text or the resulting
    /// score.
    pub in_graph: bool,
    /// Whether a command line has a flag for it; every option can be given there by its name.
    pub flag: bool,
    /// Other names, read but never written.
    pub(super) aliases: &'static [&'static str],
    pub(super) get: fn(&ScoreOptions) -> Option<Value>,
    /// Sets the value, under the name that errors use; `null` unsets it.
    pub(super) set: fn(&mut ScoreOptions, &str, &Value) -> Result<()>,
    /// Takes the value from other options if it is unset.
    pub(super) inherit: fn(&mut ScoreOptions, &ScoreOptions),
}

impl OptionDeclaration {
    /// The value in `options` as JSON; `None` if it is unset.
    pub fn value(&self, options: &ScoreOptions) -> Option<Value> {
        (self.get)(options)
    }

    /// Whether `name` is its name, or one of its other names.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

declare_options! {
    /// Options of one scoring call; `None` is the model's default.
    ///
    /// Names, defaults and meanings follow the reference library's `compute_score` and constructors (FlagEmbedding
    /// 1.4.2, `inference/reranker`). A model accepts the options of its family ([`Family::options`]) and refuses the
    /// others. [`Reranker::with_options`](crate::Reranker::with_options) and every other way into a model check the
    /// values, whether they were set from Rust, JSON, SQL or a command line.
    ///
    /// ```
    /// use datafusion_rerank::{Precision, ScoreOptions};
    ///
    /// let options = ScoreOptions::default().with_precision(Precision::Int8).with_max_length(256);
    /// assert_eq!(options.to_json().to_string(), r#"{"max_length":256,"precision":"int8"}"#);
    /// ```
    #[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub struct ScoreOptions {
        /// Precision of the layers: `fp32`; `fp16` or `bf16` on a GPU, which are several times as fast; `int8` on the
        /// CPU, which is about twice as fast and less exact. Weights are converted once and kept in the cache.
        precision: Precision as Word<Precision> {
            default: "fp32 on the CPU; on a GPU fp16 for m3, bf16 for the decoders",
            families: ALL,
            in_graph: true,
            flag: true,
            setter: with_precision(Precision),
        }

        /// The folder of a LoRA adapter, as peft saves it. Its weights are merged into the model's once and kept in the
        /// cache. As a session's default, it is for the session's model only.
        adapter: String as Folder {
            default: "none",
            families: ALL,
            in_graph: true,
            flag: true,
            setter: with_adapter(impl Into<String>),
        }

        /// Return the sigmoid of the logit (0 to 1), computed in f64, instead of the logit.
        normalize: bool as Switch {
            default: "false",
            families: ALL,
            in_graph: false,
            flag: true,
            setter: with_normalize(bool),
        }

        /// Longest passage, and longest pair, in tokens. Decoders grant the separator and the prompt on top, as the
        /// reference does.
        max_length: usize as CountValue {
            default: "512",
            families: ALL,
            in_graph: false,
            flag: true,
            setter: with_max_length(usize),
        }

        /// Longest query, instruction included, in tokens.
        query_max_length: usize as CountValue {
            default: "three quarters of the longest pair",
            families: ALL,
            in_graph: false,
            flag: true,
            setter: with_query_max_length(usize),
        }

        /// Text put before every query.
        query_instruction: String as Text {
            default: "none for m3, `A: ` for the decoders",
            families: ALL,
            in_graph: false,
            flag: true,
            setter: with_query_instruction(impl Into<String>),
        }

        /// How instruction and query are joined: two `{}` placeholders, `\n` written as backslash and n.
        query_instruction_format: String as FormatValue {
            default: "`{}{}`",
            families: ALL,
            in_graph: false,
            flag: false,
            setter: with_query_instruction_format(impl Into<String>),
        }

        /// Text put before every passage.
        passage_instruction: String as Text {
            default: "none for m3, `B: ` for the decoders",
            families: ALL,
            in_graph: false,
            flag: true,
            setter: with_passage_instruction(impl Into<String>),
        }

        /// How instruction and passage are joined: two `{}` placeholders, `\n` written as backslash and n.
        passage_instruction_format: String as FormatValue {
            default: "`{}{}`",
            families: ALL,
            in_graph: false,
            flag: false,
            setter: with_passage_instruction_format(impl Into<String>),
        }

        /// The question put to a decoder after the pair; an empty text for none.
        prompt: String as Text {
            default: "the family's own",
            families: DECODERS,
            in_graph: false,
            flag: true,
            setter: with_prompt(impl Into<String>),
        }

        /// The layer whose score is wanted, counted from 1, or several layers for a list of scores from one pass.
        cutoff_layers: Cutoffs as CutoffLayers {
            default: "the last",
            families: LAYER_WISE,
            in_graph: true,
            flag: true,
            setter: with_cutoff_layers(impl Into<Cutoffs>),
        }

        /// How many neighbouring passage tokens are averaged into one at each compression layer; 1 is off.
        compress_ratio: usize as CountValue {
            default: "1",
            families: LIGHTWEIGHT,
            in_graph: true,
            flag: true,
            setter: with_compress_ratio(usize),
        }

        /// The layers before which passages are compressed.
        compress_layers: Vec<usize> as Layers {
            default: "8",
            families: LIGHTWEIGHT,
            in_graph: true,
            flag: true,
            setter: with_compress_layers(impl Into<Vec<usize>>),
            alias: "compress_layer",
        }

        /// Which scoring head a cutoff layer uses: `reference`, the one that the reference library takes, or
        /// `by_layer`, the one that was trained for the layer.
        heads: Heads as Word<Heads> {
            default: "reference",
            families: LIGHTWEIGHT,
            in_graph: true,
            flag: false,
            setter: with_heads(Heads),
        }

        /// Apply the checkpoint's attention logit soft-capping, which the reference silently skips.
        attention_softcap: bool as Switch {
            default: "false",
            families: LIGHTWEIGHT,
            in_graph: true,
            flag: false,
            setter: with_attention_softcap(bool),
        }
    }
}

impl Family {
    /// The options that apply to the family, in the order of [`ScoreOptions`].
    pub fn options(self) -> &'static [&'static str] {
        static NAMES: LazyLock<HashMap<Family, Vec<&'static str>>> = LazyLock::new(|| {
            let names = |family| {
                let declared = ScoreOptions::declarations().iter();
                declared.filter(|option| option.families.contains(&family)).map(|option| option.name).collect()
            };
            Family::ALL.iter().map(|&family| (family, names(family))).collect()
        });
        NAMES.get(&self).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_adds_options() {
        let counts: Vec<usize> = Family::ALL.iter().map(|family| family.options().len()).collect();
        assert_eq!(counts, [9, 10, 11, OPTION_NAMES.len()]);
        assert_eq!(Family::MiniCpm.options().last(), Some(&"cutoff_layers"));
    }

    #[test]
    fn declarations_are_complete_sentences_under_names_of_their_own() {
        let options = ScoreOptions::declarations();
        for option in options {
            assert!(option.documentation.ends_with('.') && !option.default.ends_with('.'), "{option:?}");
            let named = options.iter().filter(|other| other.is_named(option.name)).count();
            assert_eq!(named, 1, "{}", option.name);
        }
    }
}
