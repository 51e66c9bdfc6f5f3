//! Checkpoints in every form: sharded, in half precision, behind links, and broken in every way.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::StringArray;
use datafusion_rerank::{EngineOptions, Reranker};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};

use crate::support::{CHECKPOINTS, copy, fixture, open};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn score(folder: &Path) -> Vec<f32> {
    let queries = StringArray::from(vec!["what is panda?", "ما هي عاصمة فرنسا؟", "a"]);
    let passages = StringArray::from(vec!["a bear endemic to China", "باريس هي عاصمة فرنسا", ""]);
    let reranker = Reranker::open(folder, &EngineOptions::default()).unwrap();
    reranker.score(&queries, &passages).unwrap().values().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Tensors of a checkpoint: name to type, shape and bytes.
type Owned = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(checkpoint: &str) -> Owned {
    let bytes = std::fs::read(fixture(checkpoint).join(WEIGHTS)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

fn write(tensors: &Owned, path: &Path) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// The checkpoint with its weights in half precision.
fn narrowed(checkpoint: &str, dtype: Dtype, narrow: fn(f32) -> [u8; 2]) -> Owned {
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
        let mut shards = [Owned::new(), Owned::new(), Owned::new()];
        let mut weight_map = serde_json::Map::new();
        for (index, (name, tensor)) in tensors(checkpoint).into_iter().enumerate() {
            weight_map.insert(name.clone(), json!(format!("model-{}.safetensors", index % 3)));
            shards[index % 3].insert(name, tensor);
        }
        for (index, shard) in shards.iter().enumerate() {
            write(shard, &folder.path().join(format!("model-{index}.safetensors")));
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
            write(&half, &stored.path().join(WEIGHTS));

            // The same values, stored as f32.
            let widened = tempfile::tempdir().unwrap();
            copy(checkpoint, widened.path());
            let full = half.into_iter().map(|(name, (_, shape, data))| {
                let data = data.chunks_exact(2).flat_map(|b| widen(b.try_into().unwrap()).to_le_bytes()).collect();
                (name, (Dtype::F32, shape, data))
            });
            write(&full.collect(), &widened.path().join(WEIGHTS));

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
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
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
            std::fs::write(folder.join(INDEX), r#"{"weight_map": {"a": "model-1.safetensors"}}"#).unwrap();
        },
        names: &["model-1.safetensors"],
    },
    Mutation {
        name: "an index that points out of the directory",
        apply: |folder| {
            std::fs::write(folder.join(INDEX), r#"{"weight_map": {"a": "../model.safetensors"}}"#).unwrap();
        },
        names: &[INDEX, "tensor a", "../model.safetensors"],
    },
    Mutation {
        name: "an index that puts a tensor into the wrong shard",
        apply: |folder| {
            std::fs::write(folder.join(INDEX), r#"{"weight_map": {"no.such": "model.safetensors"}}"#).unwrap();
        },
        names: &[WEIGHTS, "no.such", "missing"],
    },
    Mutation {
        name: "an index without a weight map",
        apply: |folder| std::fs::write(folder.join(INDEX), "{}").unwrap(),
        names: &[INDEX, "weight_map"],
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
        let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap().load().unwrap_err().to_string();
        assert!(error.ends_with("tensor model.layers.1.mlp.up_proj.weight is missing"), "{error}");
    }
    assert!(open(CHECKPOINTS[1]).load().is_ok());
}
