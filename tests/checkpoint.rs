//! Checkpoints in every form: sharded, in half precision, behind links, and broken in every way.

use std::path::Path;

use arrow::array::StringArray;
use datafusion_rerank::{EngineOptions, Reranker};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::support::weights::{Weights, read_weights, write_weights};
use crate::support::{CHECKPOINTS, copy, fixture, largest_difference, open};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SHARD: &str = "model-1.safetensors";

fn score(folder: &Path) -> Vec<f32> {
    let queries = StringArray::from(vec!["what is panda?", "ما هي عاصمة فرنسا؟", "a"]);
    let passages = StringArray::from(vec!["a bear endemic to China", "باريس هي عاصمة فرنسا", ""]);
    let reranker = Reranker::open(folder, &EngineOptions::default()).unwrap();
    reranker.score(&queries, &passages).unwrap().values().to_vec()
}

fn tensors(checkpoint: &str) -> Weights {
    read_weights(&fixture(checkpoint).join(WEIGHTS))
}

/// The checkpoint with its weights in half precision.
fn narrowed(checkpoint: &str, dtype: Dtype, narrow: fn(f32) -> [u8; 2]) -> Weights {
    let mut tensors = tensors(checkpoint);
    for (of, _, data) in tensors.values_mut() {
        assert_eq!(*of, Dtype::F32);
        *data = data.chunks_exact(4).flat_map(|b| narrow(f32::from_le_bytes(b.try_into().unwrap()))).collect();
        *of = dtype;
    }
    tensors
}

#[test]
fn shards_score_the_same_bits() {
    for checkpoint in CHECKPOINTS {
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        std::fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
        let mut shards = [Weights::new(), Weights::new(), Weights::new()];
        let mut weight_map = serde_json::Map::new();
        for (index, (name, tensor)) in tensors(checkpoint).into_iter().enumerate() {
            weight_map.insert(name.clone(), json!(format!("model-{}.safetensors", index % 3)));
            shards[index % 3].insert(name, tensor);
        }
        for (index, shard) in shards.iter().enumerate() {
            write_weights(shard, &folder.path().join(format!("model-{index}.safetensors")));
        }
        std::fs::write(folder.path().join(INDEX), json!({ "weight_map": weight_map }).to_string()).unwrap();
        assert_eq!(score(folder.path()), score(&fixture(checkpoint)), "{checkpoint}");
    }
}

#[test]
fn half_precision_weights_are_widened_exactly() {
    type Narrow = fn(f32) -> [u8; 2];
    type Widen = fn([u8; 2]) -> f32;
    let narrows: [(Dtype, Narrow, Widen); 2] = [
        (Dtype::F16, |v| half::f16::from_f32(v).to_le_bytes(), |b| half::f16::from_le_bytes(b).to_f32()),
        (Dtype::BF16, |v| half::bf16::from_f32(v).to_le_bytes(), |b| half::bf16::from_le_bytes(b).to_f32()),
    ];
    for checkpoint in CHECKPOINTS {
        for (dtype, narrow, widen) in narrows {
            let stored = tempfile::tempdir().unwrap();
            copy(checkpoint, stored.path());
            let half = narrowed(checkpoint, dtype, narrow);
            write_weights(&half, &stored.path().join(WEIGHTS));

            // The same values, stored as f32.
            let widened = tempfile::tempdir().unwrap();
            copy(checkpoint, widened.path());
            let full = half.into_iter().map(|(name, (_, shape, data))| {
                let data = data.chunks_exact(2).flat_map(|b| widen(b.try_into().unwrap()).to_le_bytes()).collect();
                (name, (Dtype::F32, shape, data))
            });
            write_weights(&full.collect(), &widened.path().join(WEIGHTS));

            let (stored, widened) = (score(stored.path()), score(widened.path()));
            assert!(largest_difference(&stored, &widened) < 1e-6, "{checkpoint}, {dtype:?}: {stored:?} {widened:?}");
            assert!(
                largest_difference(&stored, &score(&fixture(checkpoint))) > 0.0,
                "{checkpoint}: nothing was narrowed"
            );
        }
    }
}

#[test]
#[cfg(unix)]
fn a_hub_cache_of_links_opens() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123abcd"));
    std::fs::create_dir_all(&snapshot).unwrap();
    copy(CHECKPOINTS[0], &blobs);
    for entry in std::fs::read_dir(&blobs).unwrap() {
        let name = entry.unwrap().file_name();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(&name), snapshot.join(&name)).unwrap();
    }
    assert_eq!(score(&snapshot), score(&fixture(CHECKPOINTS[0])));
}

#[test]
fn a_missing_directory_says_what_to_give() {
    let error = Reranker::open("/no/such/place", &EngineOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("model '/no/such/place': there is no such directory; give"), "{error}");
}

/// A way to break a checkpoint, and what the error must name.
struct Mutation {
    name: &'static str,
    apply: fn(&Path),
    names: &'static [&'static str],
}

const EMBEDDINGS: &str = "roberta.embeddings.word_embeddings.weight";
const OUT_PROJ: &str = "classifier.out_proj.weight";

/// Rewrites the header of the weights and keeps the data.
fn edit_header(folder: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = folder.join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend(header);
    edited.extend(&bytes[8 + length..]);
    std::fs::write(path, edited).unwrap();
}

fn edit_config(folder: &Path, key: &str, value: Value) {
    edit_json(folder, "config.json", key, value);
}

fn edit_json(folder: &Path, file: &str, key: &str, value: Value) {
    edit(folder, file, |values| drop(values.insert(key.to_owned(), value)));
}

fn edit(folder: &Path, file: &str, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = folder.join(file);
    let mut values = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut values);
    std::fs::write(path, Value::Object(values).to_string()).unwrap();
}

fn edit_bytes(folder: &Path, file: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    edit(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "no tokenizer",
        apply: |folder| std::fs::remove_file(folder.join("tokenizer.json")).unwrap(),
        names: &["tokenizer.json", "missing"],
    },
    Mutation {
        name: "no config",
        apply: |folder| std::fs::remove_file(folder.join("config.json")).unwrap(),
        names: &["config.json", "missing"],
    },
    Mutation {
        name: "no weights",
        apply: |folder| std::fs::remove_file(folder.join(WEIGHTS)).unwrap(),
        names: &[WEIGHTS, INDEX, "missing"],
    },
    Mutation {
        name: "empty weights",
        apply: |folder| edit_bytes(folder, WEIGHTS, Vec::clear),
        names: &[WEIGHTS, "truncated"],
    },
    Mutation {
        name: "weights cut in the header",
        apply: |folder| edit_bytes(folder, WEIGHTS, |bytes| bytes.truncate(100)),
        names: &[WEIGHTS, "truncated"],
    },
    Mutation {
        name: "weights cut in the data",
        apply: |folder| edit_bytes(folder, WEIGHTS, |bytes| bytes.truncate(bytes.len() - 4)),
        names: &[WEIGHTS, "tensor ", "truncated"],
    },
    Mutation {
        name: "a header length beyond the file",
        apply: |folder| edit_bytes(folder, WEIGHTS, |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        names: &[WEIGHTS, "header"],
    },
    Mutation {
        name: "a header that is no JSON",
        apply: |folder| edit_bytes(folder, WEIGHTS, |bytes| bytes[8] = b'x'),
        names: &[WEIGHTS, "JSON"],
    },
    Mutation {
        name: "a pickle by the name of safetensors",
        apply: |folder| edit_bytes(folder, WEIGHTS, |bytes| *bytes = b"PK\x03\x04 pytorch".to_vec()),
        names: &[WEIGHTS, "not a safetensors file"],
    },
    Mutation {
        name: "a missing tensor",
        apply: |folder| edit_header(folder, |header| drop(header.remove(EMBEDDINGS))),
        names: &[WEIGHTS, EMBEDDINGS, "missing"],
    },
    Mutation {
        name: "a tensor of another shape",
        apply: |folder| edit_header(folder, |header| header[EMBEDDINGS]["shape"] = json!([48, 524])),
        names: &[WEIGHTS, EMBEDDINGS, "[48, 524]", "[524, 48]"],
    },
    Mutation {
        name: "a shape that its bytes do not fill",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["shape"] = json!([2, 48])),
        names: &[WEIGHTS, OUT_PROJ, "bytes"],
    },
    Mutation {
        name: "a shape that overflows",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["shape"] = json!([u64::MAX / 2, 48])),
        names: &[WEIGHTS, OUT_PROJ, "overflows"],
    },
    Mutation {
        name: "a negative dimension",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["shape"] = json!([-1, 48])),
        names: &[WEIGHTS, OUT_PROJ],
    },
    Mutation {
        name: "another element type",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["dtype"] = json!("F16")),
        names: &[WEIGHTS, OUT_PROJ, "F16"],
    },
    Mutation {
        name: "an element type that is not supported",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["dtype"] = json!("I32")),
        names: &[WEIGHTS, OUT_PROJ, "I32"],
    },
    Mutation {
        name: "overlapping tensors",
        apply: |folder| {
            edit_header(folder, |header| {
                let moved = header[OUT_PROJ]["data_offsets"].as_array().unwrap().clone();
                let (start, end) = (moved[0].as_u64().unwrap(), moved[1].as_u64().unwrap());
                let shift = if start == 0 { 4 } else { -4_i64 as u64 };
                header[OUT_PROJ]["data_offsets"] = json!([start.wrapping_add(shift), end.wrapping_add(shift)]);
            });
        },
        names: &[WEIGHTS, OUT_PROJ, "overlaps"],
    },
    Mutation {
        name: "bytes outside the file",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["data_offsets"] = json!([0, 1_u64 << 40])),
        names: &[WEIGHTS, OUT_PROJ, "outside"],
    },
    Mutation {
        name: "bytes that end before they begin",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ]["data_offsets"] = json!([192, 0])),
        names: &[WEIGHTS, OUT_PROJ],
    },
    Mutation {
        name: "an entry without a shape",
        apply: |folder| edit_header(folder, |header| header[OUT_PROJ] = json!({"dtype": "F32"})),
        names: &[WEIGHTS, OUT_PROJ],
    },
    Mutation {
        name: "a classifier of two labels",
        apply: |folder| {
            edit_header(folder, |header| {
                header[OUT_PROJ]["shape"] = json!([2, 24]);
            });
        },
        names: &[WEIGHTS, OUT_PROJ, "one label"],
    },
    Mutation {
        name: "a config that is no JSON",
        apply: |folder| edit_bytes(folder, "config.json", |bytes| bytes.truncate(20)),
        names: &["config.json", "JSON"],
    },
    Mutation {
        name: "a config that is no object",
        apply: |folder| edit_bytes(folder, "config.json", |bytes| *bytes = b"[]".to_vec()),
        names: &["config.json", "object"],
    },
    Mutation {
        name: "a config without a dimension",
        apply: |folder| edit_config(folder, "hidden_size", Value::Null),
        names: &["config.json", "hidden_size", "missing"],
    },
    Mutation {
        name: "a dimension that is text",
        apply: |folder| edit_config(folder, "hidden_size", json!("48")),
        names: &["config.json", "hidden_size", "\"48\""],
    },
    Mutation {
        name: "heads that do not divide",
        apply: |folder| edit_config(folder, "num_attention_heads", json!(5)),
        names: &["config.json", "hidden_size 48", "num_attention_heads 5"],
    },
    Mutation {
        name: "more layers than there are",
        apply: |folder| edit_config(folder, "num_hidden_layers", json!(5)),
        names: &[WEIGHTS, "roberta.encoder.layer.4", "missing"],
    },
    Mutation {
        name: "another activation",
        apply: |folder| edit_config(folder, "hidden_act", json!("relu")),
        names: &["config.json", "hidden_act", "relu", "gelu"],
    },
    Mutation {
        name: "another architecture",
        apply: |folder| edit_config(folder, "architectures", json!(["LlamaForCausalLM"])),
        names: &["config.json", "LlamaForCausalLM", "XLMRobertaForSequenceClassification"],
    },
    Mutation {
        name: "a position table without room",
        apply: |folder| edit_config(folder, "max_position_embeddings", json!(2)),
        names: &["config.json", "max_position_embeddings 2"],
    },
    Mutation {
        name: "a vocabulary smaller than the tokenizer's",
        apply: |folder| edit_config(folder, "vocab_size", json!(500)),
        names: &["tokenizer.json", "523", "500"],
    },
    Mutation {
        name: "a tokenizer that is none",
        apply: |folder| edit_bytes(folder, "tokenizer.json", |bytes| *bytes = b"{}".to_vec()),
        names: &["tokenizer.json", "not a tokenizer"],
    },
    Mutation {
        name: "a truncation side that does not exist",
        apply: |folder| {
            std::fs::write(folder.join("tokenizer_config.json"), r#"{"truncation_side": "middle"}"#).unwrap();
        },
        names: &["tokenizer_config.json", "middle"],
    },
    Mutation {
        name: "an index of a shard that is not there",
        apply: |folder| {
            std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
            std::fs::write(folder.join(INDEX), r#"{"weight_map": {"a": "model-1.safetensors"}}"#).unwrap();
        },
        names: &["model-1.safetensors", "missing, though model.safetensors.index.json names it", "again"],
    },
    Mutation {
        name: "an index that points out of the directory",
        apply: |folder| {
            std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
            std::fs::write(folder.join(INDEX), r#"{"weight_map": {"a": "../model.safetensors"}}"#).unwrap();
        },
        names: &[INDEX, "tensor a", "../model.safetensors"],
    },
    Mutation {
        name: "an index that puts a tensor into the wrong shard",
        apply: |folder| {
            std::fs::rename(folder.join(WEIGHTS), folder.join(SHARD)).unwrap();
            std::fs::write(folder.join(INDEX), r#"{"weight_map": {"no.such": "model-1.safetensors"}}"#).unwrap();
        },
        names: &[SHARD, "no.such", "missing"],
    },
    Mutation {
        name: "an index without a weight map",
        apply: |folder| {
            std::fs::rename(folder.join(WEIGHTS), folder.join(SHARD)).unwrap();
            std::fs::write(folder.join(INDEX), "{}").unwrap();
        },
        names: &[INDEX, "weight_map"],
    },
    Mutation {
        name: "a tensor in two shards",
        apply: |folder| {
            std::fs::copy(folder.join(WEIGHTS), folder.join(SHARD)).unwrap();
            std::fs::rename(folder.join(WEIGHTS), folder.join("model-2.safetensors")).unwrap();
            let map = json!({EMBEDDINGS: SHARD, OUT_PROJ: "model-2.safetensors"});
            std::fs::write(folder.join(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
        },
        names: &["model-2.safetensors", "is in ", SHARD, "keep one of them"],
    },
    Mutation {
        name: "weights of another framework",
        apply: |folder| edit_header(folder, |header| header["__metadata__"] = json!({"format": "tf"})),
        names: &[WEIGHTS, "format is tf", "PyTorch"],
    },
    Mutation {
        name: "pickled weights alone",
        apply: |folder| std::fs::rename(folder.join(WEIGHTS), folder.join("pytorch_model.bin")).unwrap(),
        names: &[WEIGHTS, "missing", "pytorch_model.bin", "convert it: python3 -c \"import ", "weights_only=True"],
    },
    Mutation {
        name: "pickled weights in shards",
        apply: |folder| {
            std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
            std::fs::write(folder.join("pytorch_model.bin.index.json"), "{}").unwrap();
        },
        names: &[WEIGHTS, "pytorch_model.bin.index.json", "convert it: python3 -c"],
    },
    Mutation {
        name: "a number that is none",
        apply: |folder| {
            let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
            std::fs::write(folder.join("config.json"), config.replace("1e-05", "Infinity")).unwrap();
        },
        names: &["config.json", "layer_norm_eps is \"Infinity\", expected a number"],
    },
    Mutation {
        name: "a feature that is not implemented",
        apply: |folder| edit_config(folder, "is_decoder", json!(true)),
        names: &["config.json", "is_decoder is true", "expected false or null"],
    },
    Mutation {
        name: "quantized weights",
        apply: |folder| edit_config(folder, "quantization_config", json!({"load_in_8bit": true})),
        names: &["config.json", "quantization_config is {\"load_in_8bit\":true}", "not supported"],
    },
    Mutation {
        name: "a key that nobody knows",
        apply: |folder| edit_config(folder, "residual_gain", json!(0.5)),
        names: &["config.json", "residual_gain is 0.5", "may change scores", "remove it"],
    },
    Mutation {
        name: "another class behind the same name",
        apply: |folder| edit_config(folder, "model_type", json!("roberta")),
        names: &["config.json", "model_type is \"roberta\"", "xlm-roberta"],
    },
    Mutation {
        name: "a tensor that nobody knows",
        apply: |folder| {
            let mut tensors = read_weights(&folder.join(WEIGHTS));
            let bias = tensors["classifier.out_proj.bias"].clone();
            tensors.insert("classifier.out_proj.gain".to_owned(), bias);
            write_weights(&tensors, &folder.join(WEIGHTS));
        },
        names: &[WEIGHTS, "classifier.out_proj.gain", "has no place", "config.json"],
    },
    Mutation {
        name: "a key of the tokenizer that nobody knows",
        apply: |folder| edit_json(folder, "tokenizer_config.json", "reverse_words", json!(true)),
        names: &["tokenizer_config.json", "reverse_words is true", "remove it"],
    },
    Mutation {
        name: "a special token that the vocabulary lacks",
        apply: |folder| edit_json(folder, "tokenizer_config.json", "cls_token", json!("[CLS]")),
        names: &["tokenizer.json", "the vocabulary lacks cls_token of the settings, [CLS]", "save_pretrained"],
    },
    Mutation {
        name: "an added token that the vocabulary lacks",
        apply: |folder| {
            let tokens = json!({"524": {"content": "[NEW]", "special": true}});
            edit_json(folder, "tokenizer_config.json", "added_tokens_decoder", tokens);
        },
        names: &["tokenizer.json", "the vocabulary lacks added token of the settings, [NEW]", "save_pretrained"],
    },
    Mutation {
        name: "no token to end a text",
        apply: |folder| {
            for file in ["tokenizer_config.json", "special_tokens_map.json"] {
                edit_json(folder, file, "sep_token", json!(null));
            }
        },
        names: &["tokenizer.json", "there is no sep_token: tokenizer_config.json sets it to null; name a token there"],
    },
    Mutation {
        name: "a special token that is null where it counts",
        apply: |folder| {
            edit(folder, "tokenizer_config.json", |settings| drop(settings.remove("added_tokens_decoder")));
            edit_json(folder, "special_tokens_map.json", "cls_token", json!(null));
        },
        names: &["there is no cls_token: special_tokens_map.json sets it to null; name a token there"],
    },
    Mutation {
        name: "a special token for one version of transformers",
        apply: |folder| edit_json(folder, "tokenizer_config.json", "extra_special_tokens", json!(["\u{2581}the"])),
        names: &["extra_special_tokens of the settings has \u{2581}the", "versions of transformers differ"],
    },
    Mutation {
        name: "a tokenizer class that joins pairs in another way",
        apply: |folder| edit_json(folder, "tokenizer_config.json", "tokenizer_class", json!("LlamaTokenizerFast")),
        names: &["tokenizer_class is LlamaTokenizerFast", "set tokenizer_class to XLMRobertaTokenizer"],
    },
    Mutation {
        name: "a tokenizer class in the model's configuration",
        apply: |folder| {
            edit(folder, "tokenizer_config.json", |settings| drop(settings.remove("tokenizer_class")));
            edit_json(folder, "config.json", "tokenizer_class", json!("T5Tokenizer"));
        },
        names: &["tokenizer_class is T5Tokenizer", "set tokenizer_class to XLMRobertaTokenizer"],
    },
    Mutation {
        name: "the general tokenizer class of transformers 4",
        apply: |folder| edit_json(folder, "tokenizer_config.json", "tokenizer_class", json!("PreTrainedTokenizerFast")),
        names: &["tokenizer_class is PreTrainedTokenizerFast", "set tokenizer_class to XLMRobertaTokenizer"],
    },
    Mutation {
        name: "a general tokenizer class whose post-processor joins pairs in another way",
        apply: |folder| {
            edit_json(folder, "tokenizer_config.json", "tokenizer_class", json!("TokenizersBackend"));
            edit(folder, "tokenizer.json", |tokenizer| {
                let pair = tokenizer["post_processor"]["pair"].as_array_mut().unwrap();
                pair.swap(1, 4);
            });
        },
        names: &["tokenizer_class is TokenizersBackend", "does not join pairs"],
    },
    #[cfg(unix)]
    Mutation {
        name: "settings behind a link to nothing",
        apply: |folder| {
            let file = folder.join("tokenizer_config.json");
            std::fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink("no-such-blob", file).unwrap();
        },
        names: &["tokenizer_config.json", "a link to a file that is not there"],
    },
    Mutation {
        name: "two labels",
        apply: |folder| edit_config(folder, "id2label", json!({"0": "no", "1": "yes"})),
        names: &["config.json", "id2label has 2 labels", "exactly one label"],
    },
    Mutation {
        name: "an architecture that is no list",
        apply: |folder| edit_config(folder, "architectures", json!("XLMRobertaForSequenceClassification")),
        names: &["config.json", "architectures is \"XLMRobertaForSequenceClassification\", expected a list of texts"],
    },
    Mutation {
        name: "a negative epsilon",
        apply: |folder| edit_config(folder, "layer_norm_eps", json!(-1)),
        names: &["config.json", "layer_norm_eps is -1, expected a number above 0"],
    },
    Mutation {
        name: "another kind of adapter",
        apply: |folder| {
            std::fs::write(folder.join("adapter_config.json"), r#"{"peft_type": "PREFIX_TUNING"}"#).unwrap();
        },
        names: &["adapter_config.json", "an adapter of the kind PREFIX_TUNING, which is not supported; only LORA is"],
    },
    Mutation {
        name: "a broken adapter configuration",
        apply: |folder| std::fs::write(folder.join("adapter_config.json"), "{").unwrap(),
        names: &["adapter_config.json", "not valid JSON"],
    },
    Mutation {
        name: "an adapter",
        apply: |folder| {
            let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "BAAI/bge-reranker-v2-m3"});
            std::fs::write(folder.join("adapter_config.json"), adapter.to_string()).unwrap();
        },
        names: &[
            "adapter_config.json",
            "a LoRA adapter of BAAI/bge-reranker-v2-m3",
            "--adapter '",
            "remove adapter_config.json",
        ],
    },
];

#[test]
fn every_corruption_is_one_clean_line_that_names_it() {
    for Mutation { name, apply, names } in MUTATIONS {
        let folder = tempfile::tempdir().unwrap();
        copy(CHECKPOINTS[0], folder.path());
        apply(folder.path());
        let opened = Reranker::open(folder.path(), &EngineOptions::default());
        let error = opened.and_then(|reranker| reranker.load()).expect_err(name).to_string();
        assert!(!error.contains('\n'), "{name}: {error}");
        for part in *names {
            assert!(error.contains(part), "{name}: '{part}' is not in: {error}");
        }
    }
}

#[test]
fn decoders_name_what_is_missing_too() {
    for checkpoint in &CHECKPOINTS[1..] {
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        edit_header(folder.path(), |header| drop(header.remove("model.layers.1.mlp.up_proj.weight")));
        let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap_err().to_string();
        assert!(error.ends_with("tensor model.layers.1.mlp.up_proj.weight is missing"), "{error}");
    }
    assert!(open(CHECKPOINTS[1]).load().is_ok());
}

/// Changes the names of all tensors.
fn rename(folder: &Path, rename: impl Fn(&str) -> String) {
    let file = folder.join(WEIGHTS);
    let tensors = read_weights(&file).into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    write_weights(&tensors, &file);
}

#[test]
fn names_with_a_prefix_or_without_the_base_models_are_recognised() {
    for checkpoint in CHECKPOINTS {
        let expected = score(&fixture(checkpoint));
        for prefix in ["base_model.model.", "module.", "model.", "_orig_mod.module."] {
            let folder = tempfile::tempdir().unwrap();
            copy(checkpoint, folder.path());
            rename(folder.path(), |name| format!("{prefix}{name}"));
            assert_eq!(score(folder.path()), expected, "{checkpoint}, {prefix}");
        }
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        rename(folder.path(), |name| {
            ["model.", "roberta."].iter().fold(name, |name, base| name.strip_prefix(base).unwrap_or(name)).to_owned()
        });
        assert_eq!(score(folder.path()), expected, "{checkpoint}");
    }
}

#[test]
fn the_account_has_the_names_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINTS[0], folder.path());
    rename(folder.path(), |name| format!("module.{name}"));
    let account = Reranker::open(folder.path(), &EngineOptions::default()).unwrap().model().account();
    for name in read_weights(&folder.path().join(WEIGHTS)).keys() {
        assert!(account.iter().any(|part| part.name.as_ref() == Some(name) && part.ignored.is_none()), "{name}");
    }
}

#[test]
fn two_tensors_that_are_one_of_the_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINTS[2], folder.path());
    rename(folder.path(), |name| format!("module.{name}"));
    let mut weights = read_weights(&folder.path().join(WEIGHTS));
    let head = weights["module.lm_head.0.linear_head.weight"].clone();
    weights.insert("lm_head.0.linear_head.weight".to_owned(), head);
    write_weights(&weights, &folder.path().join(WEIGHTS));
    let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap_err().to_string();
    let expected = "tensors lm_head.0.linear_head.weight and module.lm_head.0.linear_head.weight are both the model's";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn tied_embeddings_may_be_saved_under_either_name() {
    for checkpoint in &CHECKPOINTS[1..] {
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        rename(folder.path(), |name| name.replace("model.embed_tokens.weight", "lm_head.weight"));
        assert_eq!(score(folder.path()), score(&fixture(checkpoint)), "{checkpoint}");
    }
}

#[test]
fn a_general_tokenizer_class_counts_by_its_post_processor() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINTS[0], folder.path());
    for class in ["TokenizersBackend", "XLMRobertaTokenizerFast", "RobertaTokenizer"] {
        edit_json(folder.path(), "tokenizer_config.json", "tokenizer_class", json!(class));
        assert_eq!(score(folder.path()), score(&fixture(CHECKPOINTS[0])), "{class}");
    }
}

#[test]
fn a_space_that_the_tokenizer_puts_and_its_settings_do_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINTS[2], folder.path());
    edit_json(folder.path(), "tokenizer_config.json", "add_prefix_space", json!(true));
    assert_eq!(score(folder.path()), score(&fixture(CHECKPOINTS[2])));
    edit_json(folder.path(), "tokenizer_config.json", "add_prefix_space", json!(false));
    let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap_err().to_string();
    assert!(error.contains("add_prefix_space false") && error.contains("save_pretrained"), "{error}");
}

#[test]
fn defaults_are_those_of_the_reference_classes() {
    for (checkpoint, key, default) in [
        (CHECKPOINTS[0], "pad_token_id", json!(1)),
        (CHECKPOINTS[1], "rms_norm_eps", json!(1e-6)),
        (CHECKPOINTS[2], "rms_norm_eps", json!(1e-6)),
        (CHECKPOINTS[2], "scale_emb", json!(1)),
        (CHECKPOINTS[2], "scale_depth", json!(1)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        edit(folder.path(), "config.json", |config| drop(config.remove(key)));
        let without = score(folder.path());
        edit_json(folder.path(), "config.json", key, default);
        assert_eq!(without, score(folder.path()), "{checkpoint}, {key}");
    }
}

#[test]
fn tensors_of_two_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINTS[1], folder.path());
    let file = folder.path().join(WEIGHTS);
    let tensors = read_weights(&file);
    let both = tensors.iter().flat_map(|(name, tensor)| [("a.", name, tensor), ("b.", name, tensor)]);
    write_weights(&both.map(|(prefix, name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect(), &file);
    let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap_err().to_string();
    let expected = "tensors a.model.embed_tokens.weight and b.model.embed_tokens.weight could both be the model's";
    assert!(error.contains(expected), "{error}");
}

/// A file of the account: whether it is used, or why it is not.
fn fate(reranker: &Reranker, file: &str) -> Option<String> {
    let account = reranker.model().account();
    account.into_iter().find(|part| part.file == file && part.name.is_none()).unwrap().ignored
}

#[test]
fn weights_in_one_file_come_before_an_old_index() {
    for checkpoint in CHECKPOINTS {
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        // Shards of another training run: all zeros.
        let zeros: Weights = tensors(checkpoint)
            .into_iter()
            .map(|(name, (dtype, shape, data))| (name, (dtype, shape, vec![0; data.len()])))
            .collect();
        write_weights(&zeros, &folder.path().join(SHARD));
        let map: serde_json::Map<String, Value> = zeros.keys().map(|name| (name.clone(), json!(SHARD))).collect();
        std::fs::write(folder.path().join(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
        assert_eq!(score(folder.path()), score(&fixture(checkpoint)), "{checkpoint}");
        let reranker = Reranker::open(folder.path(), &EngineOptions::default()).unwrap();
        assert_eq!(fate(&reranker, INDEX).unwrap(), "model.safetensors takes precedence, as in transformers");
        assert_eq!(fate(&reranker, WEIGHTS), None);
        assert!(fate(&reranker, SHARD).is_some());

        std::fs::remove_file(folder.path().join(SHARD)).unwrap();
        assert_eq!(score(folder.path()), score(&fixture(checkpoint)), "{checkpoint}");
        let reranker = Reranker::open(folder.path(), &EngineOptions::default()).unwrap();
        let reason = fate(&reranker, INDEX).unwrap();
        assert!(reason.ends_with("it is stale, since it names model-1.safetensors, which is not there"), "{reason}");
    }
}

#[test]
fn tensors_of_a_shard_that_the_index_does_not_name_count() {
    let folder = tempfile::tempdir().unwrap();
    copy(CHECKPOINTS[0], folder.path());
    std::fs::rename(folder.path().join(WEIGHTS), folder.path().join(SHARD)).unwrap();
    std::fs::write(folder.path().join(INDEX), json!({"weight_map": {EMBEDDINGS: SHARD}}).to_string()).unwrap();
    assert_eq!(score(folder.path()), score(&fixture(CHECKPOINTS[0])));
}

#[test]
fn json_as_python_writes_it_is_read() {
    for checkpoint in CHECKPOINTS {
        let folder = tempfile::tempdir().unwrap();
        copy(checkpoint, folder.path());
        for file in ["config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"] {
            edit_bytes(folder.path(), file, |bytes| drop(bytes.splice(0..0, *b"\xef\xbb\xbf")));
        }
        for file in ["config.json", "tokenizer_config.json"] {
            let key = if file == "config.json" { "max_length" } else { "model_max_length" };
            edit_bytes(folder.path(), file, |bytes| {
                let text = String::from_utf8(std::mem::take(bytes)).unwrap();
                let end = text.rfind('}').unwrap();
                *bytes = format!("{}, \"{key}\": Infinity}}", &text[..end]).into_bytes();
            });
        }
        assert_eq!(score(folder.path()), score(&fixture(checkpoint)), "{checkpoint}");
    }
}

#[test]
fn everything_in_a_folder_is_accounted_for() {
    for checkpoint in CHECKPOINTS {
        let account = open(checkpoint).model().account();
        for entry in std::fs::read_dir(fixture(checkpoint)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(account.iter().any(|part| part.file == name && part.name.is_none()), "{checkpoint}: {name}");
        }
        for tensor in tensors(checkpoint).keys() {
            let part = account.iter().find(|part| part.name.as_ref() == Some(tensor)).unwrap();
            assert_eq!((part.file.as_str(), &part.ignored), (WEIGHTS, &None), "{checkpoint}: {tensor}");
        }
        for file in ["config.json", "tokenizer_config.json", "special_tokens_map.json"] {
            if fate(&open(checkpoint), file).is_some() {
                continue;
            }
            let values: serde_json::Map<String, Value> =
                serde_json::from_slice(&std::fs::read(fixture(checkpoint).join(file)).unwrap()).unwrap();
            for key in values.keys() {
                let count = account.iter().filter(|part| part.file == file && part.name.as_ref() == Some(key)).count();
                assert_eq!(count, 1, "{checkpoint}: {key}");
            }
        }
    }
}
