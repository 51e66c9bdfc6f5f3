//! LoRA adapters: `adapter_config.json` and `adapter_model.safetensors`, as peft writes them.
//!
//! | tensor of an adapter | what it does |
//! |---|---|
//! | `base_model.model.<module>.lora_A.weight`, `.lora_B.weight` | `weight + scaling · B · A` |
//! | `base_model.model.<module>.lora_embedding_A`, `.lora_embedding_B` | `weight + scaling · (B · A)ᵀ` |
//! | `base_model.model.<module>.lora_magnitude_vector` | scales the rows of the sum to these lengths: DoRA |
//! | `base_model.model.<module>.weight`, `.bias`, also of `<module>.base_layer` | replaces the tensor: `modules_to_save`, trained biases, stored embeddings |
//! | `...original_module...`, `...modules_to_save...` | nothing: wrappers' copies, which peft does not load either |
//!
//! `scaling` is `lora_alpha / r`, or `lora_alpha / sqrt(r)` with `use_rslora`; `alpha_pattern` and `rank_pattern` change
//! both for some modules. The merge is peft's own (`LoraLayer.merge`, `get_delta_weight`, peft 0.13.2,
//! `tuners/lora/layer.py`), computed in f32 from the stored base weights.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::Path;

use once_cell::sync::OnceCell;
use regex::Regex;
use serde_json::Value;

use super::account::CheckpointPart;
use super::config::{Config, Object};
use super::files::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
use super::ignored::ADAPTER_KEYS;
use super::safetensors::read_header;
use super::tensor::{Factor, LowRank, Tensor};
use super::tensors::Tensors;
use super::{digest, directory::file_names};
use crate::error::{Error, Result};

/// What peft puts before the name of a base tensor.
const PREFIX: &str = "base_model.model.";

/// The remedy for what is not implemented.
const MERGE: &str = "merge the adapter with peft, `merge_and_unload`, and open the merged model";

/// Settings of variants of LoRA that are not implemented.
const OFF: &[&str] = &[
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// A checkpoint's weights with an adapter applied. Equal if the adapter's files are.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// The base weights with the adapter's updates and replacements.
    pub(crate) tensors: Tensors,
    /// What became of the adapter's files, keys and tensors; whatever cannot be used was refused.
    pub(crate) account: Vec<CheckpointPart>,
    /// Identifies the adapter's content, without its base.
    pub(crate) content: String,
    /// See [`Adapter::fingerprint`].
    fingerprint: OnceCell<String>,
}

impl PartialEq for Adapter {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for Adapter {}

impl Hash for Adapter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.content.hash(state);
    }
}

/// Two names that stand for one tensor in the reference: the embeddings, which are the output layer too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tied {
    pub(crate) table: &'static str,
    pub(crate) head: &'static str,
}

/// The parts of an update as they are found.
#[derive(Debug, Default)]
struct Parts {
    a: Option<Tensor>,
    b: Option<Tensor>,
    magnitudes: Option<Tensor>,
}

/// The ends of the names of an update's tensors, and which part each is.
const PARTS: [(&str, fn(&mut Parts) -> &mut Option<Tensor>); 5] = [
    (".lora_A.weight", |parts| &mut parts.a),
    (".lora_B.weight", |parts| &mut parts.b),
    (".lora_magnitude_vector", |parts| &mut parts.magnitudes),
    (".lora_embedding_A", |parts| &mut parts.a),
    (".lora_embedding_B", |parts| &mut parts.b),
];

impl Adapter {
    /// Reads the headers of an adapter and applies it to the weights of its base.
    ///
    /// # Errors
    /// [`Error::Option`] if `folder` is no adapter, [`Error::Checkpoint`] if it is of another kind, holds something that
    /// is not known, or does not fit the base.
    pub(crate) fn open(folder: &Path, base: &Tensors, tied: Option<Tied>) -> Result<Self> {
        let file = folder.join(ADAPTER_CONFIG_FILE);
        if !file.exists() {
            return Err(Error::option(
                "adapter",
                format!(
                    "there is no {}; give the folder that peft's save_pretrained wrote, with {ADAPTER_CONFIG_FILE} and \
                     {ADAPTER_WEIGHTS_FILE}",
                    file.display()
                ),
            ));
        }
        let weights = folder.join(ADAPTER_WEIGHTS_FILE);
        if !weights.exists() {
            return Err(Error::checkpoint(
                weights,
                "missing; an adapter with adapter_model.bin must be saved as safetensors (load it with peft, then \
                 `save_pretrained(..., safe_serialization=True)`)",
            ));
        }
        let config = Config::read(&file)?;
        check(&config)?;
        let uses_dora = config.optional_bool("use_dora")?.unwrap_or(false);
        let mut application = Application {
            config: &config,
            weights: &weights,
            tied,
            uses_dora,
            tensors: base.clone(),
            account: Vec::new(),
        };
        application.apply()?;
        let Application { tensors, account: of_tensors, .. } = application;

        let part = |name: &String| match name.as_str() {
            ADAPTER_CONFIG_FILE | ADAPTER_WEIGHTS_FILE => CheckpointPart::of_file(name, None),
            _ => CheckpointPart::of_file(name, Some("of the adapter; the base has the tokenizer and the rest")),
        };
        let mut account: Vec<CheckpointPart> = file_names(folder)?.iter().map(part).collect();
        // What a new version of peft adds is off by default.
        account.extend(config.account(|key| ADAPTER_KEYS.reason(key).or(config.is_off(key).then_some("off")))?);
        account.extend(of_tensors);
        let content = digest::of_files(&[&file], &[&weights])?;
        Ok(Self { tensors, account, content, fingerprint: OnceCell::new() })
    }

    /// Identifies the base and the adapter: see [`Checkpoint::fingerprint`](super::Checkpoint::fingerprint).
    pub(crate) fn fingerprint(&self, base: &str) -> &str {
        self.fingerprint.get_or_init(|| digest::of_texts(&[base, &self.content]))
    }
}

/// Refuses kinds of adapters that are not implemented.
fn check(config: &Config) -> Result<()> {
    if config.get("peft_type").is_none() {
        return Err(config.error("peft_type is missing; expected \"LORA\""));
    }
    config.require("peft_type", &["LORA"])?;
    config.require("bias", &["none", "all", "lora_only"])?;
    config.require_off(OFF).map_err(|error| error.with_remark(MERGE))?;
    match config.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(method)) if method == "gaussian" || method == "eva" || method == "orthogonal" => Ok(()),
        // These change the base weights while peft loads the adapter.
        Some(value) => Err(config.wrong(
            "init_lora_weights",
            value,
            &format!("true, false, \"gaussian\", \"eva\" or \"orthogonal\"; {MERGE}"),
        )),
    }
}

/// An adapter being applied.
struct Application<'a> {
    config: &'a Config,
    weights: &'a Path,
    tied: Option<Tied>,
    uses_dora: bool,
    tensors: Tensors,
    /// What became of the adapter's tensors.
    account: Vec<CheckpointPart>,
}

impl Application<'_> {
    fn apply(&mut self) -> Result<()> {
        let header = read_header(self.weights)?;
        if let Some(name) = header.skipped.first() {
            return Err(self.unknown(name));
        }
        let mut linear: BTreeMap<String, Parts> = BTreeMap::new();
        let mut tables: BTreeMap<String, Parts> = BTreeMap::new();
        for (stored, tensor) in header.tensors {
            let name = stored.strip_prefix(PREFIX).unwrap_or(&stored);
            if name.contains(".original_module.") || name.contains(".modules_to_save.") {
                let reason = "a wrapper's copy, which peft does not load either";
                self.account.push(CheckpointPart::ignored(ADAPTER_WEIGHTS_FILE, &stored, reason));
                continue;
            }
            self.account.push(CheckpointPart::used(ADAPTER_WEIGHTS_FILE, &stored));
            // Some programs leave in the adapter's name, which peft removes.
            let name = name.replace(".default.", ".");
            let name = name.strip_suffix(".default").unwrap_or(&name);
            let part = PARTS.iter().find_map(|(end, place)| Some((name.strip_suffix(end)?, place)));
            if let Some((module, place)) = part {
                let modules = if name.contains(".lora_embedding_") { &mut tables } else { &mut linear };
                if place(modules.entry(module.to_owned()).or_default()).replace(tensor).is_some() {
                    let message = format!("tensor {stored} is there twice, with and without the adapter's name");
                    return Err(Error::checkpoint(self.weights, message));
                }
            } else if name.contains("lora_") {
                return Err(self.unknown(&stored));
            } else {
                self.replace(name, &stored, tensor)?;
            }
        }
        let scaling = Scaling::read(self.config)?;
        for (modules, transposed) in [(linear, false), (tables, true)] {
            for (module, parts) in modules {
                self.update(&module, parts, transposed, &scaling)?;
            }
        }
        Ok(())
    }

    fn unknown(&self, stored: &str) -> Error {
        let message = format!("tensor {stored} is of no known kind; {MERGE}");
        Error::checkpoint(self.weights, message)
    }

    /// Puts a trained copy in the place of a base tensor.
    fn replace(&mut self, name: &str, stored: &str, tensor: Tensor) -> Result<()> {
        // A wrapped module's own tensor, into which peft copies: unlike a module to save, it stays tied.
        let is_wrapped = name.contains(".base_layer.");
        let name = name.replace(".base_layer.", ".");
        let (name, like) = match self.tied {
            Some(Tied { table, head }) if name == head => (if is_wrapped { table } else { head }, table),
            Some(Tied { table, .. }) if !is_wrapped && name == table => {
                let message = format!(
                    "tensor {stored} replaces embeddings that are the output layer too (tie_word_embeddings), and versions \
                     of peft differ on whether they replace both; {MERGE}"
                );
                return Err(Error::checkpoint(self.weights, message));
            }
            _ => (&*name, &*name),
        };
        if self.tensors.is_replaced(name) {
            let message = format!("tensor {stored} is the second that replaces {name}; keep one of them");
            return Err(Error::checkpoint(self.weights, message));
        }
        let Some(base) = self.tensors.find(like) else { return Err(self.no_place(stored, name)) };
        if base.shape != tensor.shape {
            return Err(self.wrong_shape(stored, &tensor.shape, name, &base.shape));
        }
        self.tensors.replace(name, tensor);
        Ok(())
    }

    fn update(&mut self, module: &str, parts: Parts, transposed: bool, scaling: &Scaling) -> Result<()> {
        let name = format!("{module}.weight");
        let stored = |part: &str| {
            let part = if transposed { format!("lora_embedding_{part}") } else { format!("lora_{part}.weight") };
            format!("{PREFIX}{module}.{part}")
        };
        let missing = |part: &str| Error::checkpoint(self.weights, format!("tensor {} is missing", stored(part)));
        let a = parts.a.ok_or_else(|| missing("A"))?;
        let b = parts.b.ok_or_else(|| missing("B"))?;
        let factor = |tensor| Factor { tensor, transposed };
        // The update of a table is (B · A)ᵀ = Aᵀ · Bᵀ.
        let (up, down) = if transposed { (factor(a), factor(b)) } else { (factor(b), factor(a)) };
        // Tied, the head is the table.
        let name = match self.tied {
            Some(Tied { table, head }) if name == head => table,
            _ => &name,
        };
        let base = self.tensors.find(name).ok_or_else(|| self.no_place(&stored("A"), name))?;
        let ([rows, rank], [down_rank, columns]) = (up.shape(), down.shape());
        let fits = |factor: &Factor, fits: bool| {
            let wrong = || self.wrong_shape(&factor.tensor.name, &factor.tensor.shape, name, &base.shape);
            fits.then_some(()).ok_or_else(wrong)
        };
        fits(&down, base.shape.get(1) == Some(&columns) && rank == down_rank && rank > 0)?;
        fits(&up, base.shape.first() == Some(&rows) && base.shape.len() == 2)?;
        if base.update.is_some() {
            let message = format!("two updates of {name}, which is the output layer too; {MERGE}");
            return Err(Error::checkpoint(self.weights, message));
        }
        let magnitudes = parts.magnitudes;
        if let Some(magnitudes) = magnitudes.as_ref().filter(|magnitudes| magnitudes.elements() != rows) {
            return Err(self.wrong_shape(&magnitudes.name, &magnitudes.shape, name, &base.shape));
        }
        if self.uses_dora && transposed {
            let message = format!("use_dora is true, which is not supported for embeddings ({module}); {MERGE}");
            return Err(self.config.error(message));
        }
        if magnitudes.is_some() != self.uses_dora {
            let has = if magnitudes.is_some() { "has" } else { "has no" };
            let message = format!("use_dora is {}, but {module} {has} lora_magnitude_vector; {MERGE}", self.uses_dora);
            return Err(self.config.error(message));
        }
        let scaling = scaling.of(self.config, module, rank)?;
        self.tensors.update(name, LowRank { up, down, scaling, magnitudes, first_row: 0 });
        Ok(())
    }

    fn no_place(&self, stored: &str, name: &str) -> Error {
        let message =
            format!("tensor {stored} changes {name}, which the model does not have; is it an adapter of this model?");
        Error::checkpoint(self.weights, message)
    }

    fn wrong_shape(&self, stored: &str, shape: &[usize], name: &str, base: &[usize]) -> Error {
        let message = format!(
            "tensor {stored} has shape {shape:?}, which does not fit {name} of shape {base:?}; is it an adapter of this model?"
        );
        Error::checkpoint(self.weights, message)
    }
}

/// How strongly the updates of each module count.
struct Scaling {
    alpha: f64,
    is_rank_stabilized: bool,
    alphas: Vec<(Pattern, f64)>,
    ranks: Vec<Pattern>,
}

/// A key of `alpha_pattern` or `rank_pattern`: a regular expression for the end of a module's name.
struct Pattern {
    key: String,
    regex: Regex,
}

impl Pattern {
    /// `get_pattern_key` of peft 0.21.2, `utils/other.py`.
    fn new(config: &Config, patterns: &Object<'_>, key: &str) -> Result<Self> {
        let regex = Regex::new(&format!("^(?:.*\\.)?(?:{key})$"));
        let regex = regex.map_err(|_| {
            let name = patterns.path_of(key);
            config
                .error(format!("{name} cannot be read as a regular expression here; write the modules out, or {MERGE}"))
        })?;
        Ok(Self { key: key.to_owned(), regex })
    }
}

impl Scaling {
    fn read(config: &Config) -> Result<Self> {
        let (mut alphas, mut ranks) = (Vec::new(), Vec::new());
        if let Some(patterns) = config.object("alpha_pattern")? {
            for key in patterns.keys() {
                if let Some(alpha) = patterns.optional_number(key)? {
                    alphas.push((Pattern::new(config, &patterns, key)?, alpha));
                }
            }
        }
        if let Some(patterns) = config.object("rank_pattern")? {
            for key in patterns.keys() {
                ranks.push(Pattern::new(config, &patterns, key)?);
            }
        }
        Ok(Self {
            alpha: config.number("lora_alpha")?,
            is_rank_stabilized: config.optional_bool("use_rslora")?.unwrap_or(false),
            alphas,
            ranks,
        })
    }

    fn of(&self, config: &Config, module: &str, rank: usize) -> Result<f32> {
        let mut matching = self.alphas.iter().filter(|(pattern, _)| pattern.regex.is_match(module));
        let alpha = match matching.next() {
            None => self.alpha,
            Some((pattern, alpha)) => {
                let disagrees = |other: &Pattern| other.key != pattern.key && other.regex.is_match(module);
                // Versions of peft take the first of them, or look into `rank_pattern` first.
                if let Some((other, _)) = matching.find(|(_, other)| other.to_bits() != alpha.to_bits()) {
                    return Err(ambiguous(config, module, &pattern.key, &other.key));
                }
                if let Some(other) = self.ranks.iter().find(|other| disagrees(other)) {
                    return Err(ambiguous(config, module, &pattern.key, &other.key));
                }
                *alpha
            }
        };
        let rank = rank as f64;
        Ok((alpha / if self.is_rank_stabilized { rank.sqrt() } else { rank }) as f32)
    }
}

fn ambiguous(config: &Config, module: &str, one: &str, other: &str) -> Error {
    config.error(format!(
        "alpha_pattern names {module} by {one}, and alpha_pattern or rank_pattern by {other}; versions of peft take one or the \
         other; use one name"
    ))
}
