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
//! `scaling` is `lora_alpha / r`, or `lora_alpha / sqrt(r)` with `use_rslora`; `alpha_pattern` and `rank_pattern`
//! change both for some modules. The merge is peft's own (`LoraLayer.merge`, `get_delta_weight`, peft 0.13.2,
//! `tuners/lora/layer.py`), computed in f32 from the stored base weights.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use once_cell::sync::OnceCell;
use serde_json::Value;

use super::account::CheckpointPart;
use super::adapter_modules::{AdapterModules, LORA};
use super::config::Config;
use super::files::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
use super::ignored::{ADAPTER_KEYS, TENSORS};
use super::safetensors::read_header;
use super::tensor::{Factor, LowRank, Tensor};
use super::tensors::{Tensors, Tied};
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
    /// Its folder, as it was given.
    pub(crate) folder: PathBuf,
    /// The versions of its files when they were read.
    versions: FileVersions,
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

/// Length and time of the last change of an adapter's files; `None` for one that is missing or has none.
pub(crate) type FileVersions = [Option<(u64, SystemTime)>; 2];

/// The parts of an update as they are found.
#[derive(Debug, Default)]
struct Parts {
    a: Option<Tensor>,
    b: Option<Tensor>,
    embedding_a: Option<Tensor>,
    embedding_b: Option<Tensor>,
    magnitudes: Option<Tensor>,
}

/// The end of a tensor's name, and which part of an update it is.
type NamedPart = (&'static str, fn(&mut Parts) -> &mut Option<Tensor>);

const PARTS: [NamedPart; 5] = [
    (".lora_A.weight", |parts| &mut parts.a),
    (".lora_B.weight", |parts| &mut parts.b),
    (".lora_magnitude_vector", |parts| &mut parts.magnitudes),
    (".lora_embedding_A", |parts| &mut parts.embedding_a),
    (".lora_embedding_B", |parts| &mut parts.embedding_b),
];

impl Adapter {
    /// Reads an adapter and applies it to the tensors of its base. Merges nothing yet.
    ///
    /// # Errors
    /// [`Error::Option`] if `folder` is no adapter, [`Error::Checkpoint`] if it is of another kind, holds something
    /// that is not known, or does not fit the base; [`Error::Io`] if it cannot be read.
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
        let versions = Self::versions(folder);
        let config = Config::read(&file)?;
        check(&config)?;
        let uses_dora = config.optional_bool("use_dora")?.unwrap_or(false);
        let mut application = Application {
            config: &config,
            weights: &weights,
            tied,
            uses_dora,
            has_head: false,
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
        for part in &mut account {
            part.of_adapter = true;
        }
        // Whole, unlike those of a checkpoint: one module of an adapter is smaller than what samples may miss.
        let content = digest::of_files(&[&file, &weights], &[] as &[&Path])?;
        Ok(Self { tensors, account, folder: folder.to_owned(), versions, content, fingerprint: OnceCell::new() })
    }

    /// The versions of an adapter's files: if they are the same, so is its content.
    pub(crate) fn versions(folder: &Path) -> FileVersions {
        [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE].map(|name| {
            let meta = std::fs::metadata(folder.join(name)).ok()?;
            Some((meta.len(), meta.modified().ok()?))
        })
    }

    /// Checks that the files are still those that were read.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if one was replaced.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        if Self::versions(&self.folder) == self.versions {
            return Ok(());
        }
        let message = "it was changed after the model was opened with it; open the model again";
        Err(Error::checkpoint(self.folder.join(ADAPTER_WEIGHTS_FILE), message))
    }

    /// Identifies the base and the adapter: see [`Checkpoint::fingerprint`](super::Checkpoint::fingerprint).
    pub(crate) fn fingerprint(&self, base: &str) -> &str {
        self.fingerprint.get_or_init(|| digest::of_texts(&[base, &self.content]))
    }
}

/// Refuses kinds of adapters that are not implemented.
fn check(config: &Config) -> Result<()> {
    if config.get("peft_type").is_none() {
        return Err(config.error(format!("peft_type is missing; expected \"{LORA}\"")));
    }
    config.require("peft_type", &[LORA])?;
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
    /// Whether the adapter has an output layer of its own.
    has_head: bool,
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
        self.has_head = self.tied.is_some_and(|tied| header.tensors.contains_key(&format!("{PREFIX}{}", tied.head)));
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        for (stored, tensor) in header.tensors {
            let Some(name) = stored.strip_prefix(PREFIX) else { return Err(self.unknown(&stored)) };
            if name.contains(".original_module.") || name.contains(".modules_to_save.") {
                let reason = "a wrapper's copy, which peft does not load either";
                self.account.push(CheckpointPart::ignored(ADAPTER_WEIGHTS_FILE, &stored, reason));
                continue;
            }
            self.account.push(CheckpointPart::used(ADAPTER_WEIGHTS_FILE, &stored));
            let part = PARTS.iter().find_map(|(end, place)| Some((name.strip_suffix(end)?, place)));
            if let Some((module, place)) = part {
                *place(modules.entry(module.to_owned()).or_default()) = Some(tensor);
            } else if name.contains("lora_") {
                return Err(self.unknown(&stored));
            } else {
                self.replace(name, &stored, tensor)?;
            }
        }
        let settings = AdapterModules::read(self.config)?;
        for (module, parts) in modules {
            self.update(&module, parts, &settings)?;
        }
        let lacks_update = |tensor: &&Tensor| {
            let module = tensor.name.strip_suffix(".weight").filter(|_| tensor.shape.len() == 2);
            tensor.update.is_none()
                // The class lacks these modules, so peft does too.
                && TENSORS.reason_by_path(&tensor.name).is_none()
                && !self.tensors.is_replaced(&tensor.name)
                && module.is_some_and(|module| settings.expects_update(module))
        };
        match self.tensors.iter().find(lacks_update) {
            None => Ok(()),
            Some(tensor) => Err(Error::checkpoint(
                self.weights,
                format!(
                    "there is no update of {}, though target_modules names it; the file is incomplete, save the adapter again",
                    tensor.name
                ),
            )),
        }
    }

    fn unknown(&self, stored: &str) -> Error {
        let message = format!("tensor {stored} is not named as peft names it, so peft would not load it; {MERGE}");
        Error::checkpoint(self.weights, message)
    }

    /// Puts a trained copy in the place of a base tensor.
    fn replace(&mut self, name: &str, stored: &str, tensor: Tensor) -> Result<()> {
        // A wrapped module's own tensor, into which peft copies: unlike a module to save, it stays tied.
        let is_wrapped = name.contains(".base_layer.");
        let name = name.replace(".base_layer.", ".");
        let (name, like) = match self.tied {
            Some(Tied { table, head }) if name == head => (if is_wrapped { table } else { head }, table),
            Some(Tied { table, .. }) if !is_wrapped && name == table && !self.has_head => {
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

    fn update(&mut self, module: &str, parts: Parts, settings: &AdapterModules<'_>) -> Result<()> {
        let name = format!("{module}.weight");
        let transposed = parts.embedding_a.is_some() || parts.embedding_b.is_some();
        if transposed && (parts.a.is_some() || parts.b.is_some()) {
            let message = format!("{module} has two updates, lora_A and lora_embedding_A; {MERGE}");
            return Err(Error::checkpoint(self.weights, message));
        }
        if transposed && (self.uses_dora || parts.magnitudes.is_some()) {
            let message = format!("use_dora is not supported for embeddings ({module}); {MERGE}");
            return Err(self.config.error(message));
        }
        let stored = |part: &str| {
            let part = if transposed { format!("lora_embedding_{part}") } else { format!("lora_{part}.weight") };
            format!("{PREFIX}{module}.{part}")
        };
        let missing = |part: &str| Error::checkpoint(self.weights, format!("tensor {} is missing", stored(part)));
        let a = parts.a.or(parts.embedding_a).ok_or_else(|| missing("A"))?;
        let b = parts.b.or(parts.embedding_b).ok_or_else(|| missing("B"))?;
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
        if !transposed && magnitudes.is_some() != self.uses_dora {
            let has = if magnitudes.is_some() { "has" } else { "has no" };
            let message = format!("use_dora is {}, but {module} {has} lora_magnitude_vector; {MERGE}", self.uses_dora);
            return Err(self.config.error(message));
        }
        let scaling = settings.scaling(module, rank)?;
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
