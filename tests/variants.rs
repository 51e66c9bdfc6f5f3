//! Checkpoints as other programs save them: spelled as by transformers 4 or 5, with or without the optional files, with
//! an output layer of their own, in bf16, with LoRA adapters. Scores are those of the reference library on the same
//! folder.
//!
//! `tests/fixtures/reference/variants.py` defines the variants, as edits of the tiny checkpoints, and writes
//! `goldens/variants.json` and `adapters/`.

use std::path::Path;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::Float32Type;
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};
use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};

use crate::support::weights::{Weights, read_weights, write_weights};
use crate::support::{copy, fixture, largest_difference};

/// Rounding only: both compute in fp32, and each may differ by 1e-4 from the exact scores.
const TOLERANCE: f32 = 2e-4;

fn variants() -> (Vec<(String, String)>, Vec<Value>) {
    let golden: Value = serde_json::from_slice(&std::fs::read(fixture("goldens/variants.json")).unwrap()).unwrap();
    (serde_json::from_value(golden["pairs"].clone()).unwrap(), golden["variants"].as_array().unwrap().clone())
}

fn variant(name: &str) -> Value {
    variants().1.into_iter().find(|variant| variant["name"] == name).unwrap()
}

/// Makes the checkpoint of a variant: the same steps as in `variants.py`.
fn make(variant: &Value, folder: &Path) {
    copy(variant["checkpoint"].as_str().unwrap(), folder);
    let edits = &variant["edits"];
    for (name, text) in edits["files"].as_object().into_iter().flatten() {
        std::fs::write(folder.join(name), text.as_str().unwrap()).unwrap();
    }
    for name in edits["remove"].as_array().into_iter().flatten() {
        std::fs::remove_file(folder.join(name.as_str().unwrap())).unwrap();
    }
    for file in ["config", "tokenizer_config", "special_tokens_map"] {
        let (set, unset) = (&edits[format!("{file}_set")], &edits[format!("{file}_unset")]);
        if set.is_null() && unset.is_null() {
            continue;
        }
        let path = folder.join(format!("{file}.json"));
        let mut values: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        values.extend(set.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        for key in unset.as_array().into_iter().flatten() {
            values.remove(key.as_str().unwrap());
        }
        std::fs::write(path, Value::Object(values).to_string()).unwrap();
    }
    if let Some(factor) = edits["lm_head_factor"].as_f64() {
        add_lm_head(folder, factor as f32);
    }
    if edits["dtype"] == "bf16" {
        store_bf16(folder);
    }
}

/// Adds an output layer that is a multiple of the embeddings.
fn add_lm_head(folder: &Path, factor: f32) {
    let file = folder.join("model.safetensors");
    let mut tensors = read_weights(&file);
    let (dtype, shape, data) = tensors["model.embed_tokens.weight"].clone();
    let scaled =
        data.as_chunks().0.iter().flat_map(|bytes| (f32::from_le_bytes(*bytes) * factor).to_le_bytes()).collect();
    tensors.insert("lm_head.weight".to_owned(), (dtype, shape, scaled));
    write_weights(&tensors, &file);
}

fn store_bf16(folder: &Path) {
    let file = folder.join("model.safetensors");
    let mut tensors = read_weights(&file);
    for (dtype, _, data) in tensors.values_mut() {
        let halves = data.as_chunks().0.iter().map(|bytes| half::bf16::from_f32(f32::from_le_bytes(*bytes)));
        *data = halves.flat_map(half::bf16::to_le_bytes).collect();
        *dtype = Dtype::BF16;
    }
    write_weights(&tensors, &file);
}

fn options(variant: &Value) -> ScoreOptions {
    let options = ScoreOptions::from_json(&variant["options"]).unwrap();
    match variant["edits"]["adapter"].as_str() {
        Some(adapter) => options.with_adapter(fixture("adapters").join(adapter).display().to_string()),
        None => options,
    }
}

/// Scores of all pairs: one row per cutoff layer.
fn score(reranker: &Reranker, pairs: &[(String, String)]) -> Vec<Vec<f32>> {
    let queries = StringArray::from_iter_values(pairs.iter().map(|(query, _)| query));
    let passages = StringArray::from_iter_values(pairs.iter().map(|(_, passage)| passage));
    let array = reranker.score_rows(&queries, &passages).unwrap().to_array();
    let Some(lists) = array.as_list_opt::<i32>() else {
        return vec![array.as_primitive::<Float32Type>().values().to_vec()];
    };
    let exits = lists.value_length(0) as usize;
    let values = lists.values().as_primitive::<Float32Type>().values();
    (0..exits).map(|exit| values.iter().skip(exit).step_by(exits).copied().collect()).collect()
}

/// Scores per pair, or rows of them.
fn expected(variant: &Value) -> Vec<Vec<f32>> {
    let scores = &variant["scores"];
    serde_json::from_value(scores.clone()).unwrap_or_else(|_| vec![serde_json::from_value(scores.clone()).unwrap()])
}

/// The largest difference of any pair at any exit.
fn difference(actual: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let exits = actual.iter().zip(expected);
    exits.map(|(actual, expected)| largest_difference(actual, expected)).fold(0.0, f32::max)
}

#[test]
fn every_variant_scores_like_the_reference() {
    let (pairs, variants) = variants();
    let cache = tempfile::tempdir().unwrap();
    let engine = EngineOptions::default().with_cache(cache.path());
    let mut wrong = Vec::new();
    for variant in &variants {
        let folder = tempfile::tempdir().unwrap();
        make(variant, folder.path());
        let name = variant["name"].as_str().unwrap();
        let scores = Reranker::open(folder.path(), &engine)
            .and_then(|reranker| reranker.with_options(&options(variant)))
            .map(|reranker| score(&reranker, &pairs));
        match scores {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(scores) => {
                let largest = difference(&scores, &expected(variant));
                if largest > TOLERANCE {
                    wrong.push(format!("{name}: {largest:e}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), variants.len());
    assert!(variants.len() > 60);
}

/// What is refused: a checkpoint, edits of it as in `variants.json`, and what the error must name.
fn refused() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let set = |key: &str, value: Value| json!({"config_set": { key: value }});
    let (gemma, minicpm, gemma2) =
        ("tiny-gemma-reranker", "tiny-minicpm-layerwise-reranker", "tiny-gemma2-lightweight-reranker");
    let without_bos = json!({"tokenizer_config_set": {"bos_token": null}, "special_tokens_map_unset": ["bos_token"]});
    vec![
        (
            gemma,
            set("rope_scaling", json!({"type": "linear", "factor": 2.0})),
            &["rope_scaling.type is \"linear\"", "\"default\""],
        ),
        (
            minicpm,
            set("rope_scaling", json!({"rope_type": "dynamic", "factor": 2.0})),
            &["rope_scaling.rope_type is \"dynamic\""],
        ),
        (
            gemma2,
            set("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0})),
            &["rope_parameters.rope_type is \"yarn\""],
        ),
        (
            gemma,
            set("rope_parameters", json!({"rope_theta": 5e5})),
            &["rope_theta is 10000", "rope_parameters.rope_theta is 500000", "keep the one"],
        ),
        (gemma, set("final_logit_softcapping", json!(30.0)), &["final_logit_softcapping is 30.0", "may change scores"]),
        (gemma, set("sliding_window", json!(8)), &["sliding_window is 8", "may change scores"]),
        (gemma, set("attention_bias", json!(true)), &["attention_bias is true"]),
        (gemma, set("use_bidirectional_attention", json!(true)), &["use_bidirectional_attention is true"]),
        (gemma, set("model_type", json!("gemma2")), &["model_type is \"gemma2\"", "gemma"]),
        (gemma, set("hidden_activation", json!("relu")), &["hidden_activation is \"relu\""]),
        (gemma, set("tie_word_embeddings", json!(false)), &["tensor lm_head.weight is missing"]),
        (
            gemma,
            json!({"lm_head_factor": 2.0}),
            &["lm_head.weight differs", "tie_word_embeddings is true", "set tie_word_embeddings to false"],
        ),
        (gemma, json!({"config_unset": ["num_key_value_heads"]}), &["num_key_value_heads is missing"]),
        (minicpm, set("hidden_activation", json!("gelu")), &["hidden_activation is \"gelu\"", "silu"]),
        (minicpm, set("head_dim", json!(16)), &["head_dim is 16", "hidden_size / num_attention_heads"]),
        (minicpm, set("head_type", json!("raw")), &["head_type is \"raw\"", "simple"]),
        (
            gemma2,
            set("layer_types", Value::from(vec!["full_attention"; 8])),
            &["layer_types says full_attention for layer 0", "sliding_attention"],
        ),
        (gemma2, set("layer_types", json!(["sliding_attention"])), &["layer_types has 1 entries for 8 layers"]),
        (gemma2, set("attn_implementation", json!("eager")), &["attn_implementation is eager", "attention_softcap"]),
        (gemma2, json!({"config_unset": ["layer_sep"]}), &["layer_sep is missing"]),
        (gemma2, json!({"config_unset": ["layer_wise"]}), &["layer_wise is not true"]),
        (
            gemma,
            without_bos.clone(),
            &["there is no bos_token: tokenizer_config.json sets it to null", "name a token there"],
        ),
        (minicpm, without_bos.clone(), &["there is no bos_token"]),
        (gemma2, without_bos, &["there is no bos_token"]),
    ]
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (checkpoint, edits, names) in refused() {
        let folder = tempfile::tempdir().unwrap();
        make(&json!({"checkpoint": checkpoint, "edits": edits}), folder.path());
        let error = Reranker::open(folder.path(), &EngineOptions::default()).expect_err(&edits.to_string()).to_string();
        assert!(!error.contains('\n'), "{error}");
        for name in names {
            assert!(error.contains(name), "{checkpoint}, {edits}: '{name}' is not in: {error}");
        }
    }
}

#[test]
fn a_decoder_whose_post_processor_puts_no_bos_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    make(&variant("gemma_no_tokenizer_config_no_special_tokens_map"), folder.path());
    let file = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    tokenizer["post_processor"] = Value::Null;
    std::fs::write(file, tokenizer.to_string()).unwrap();
    let error = Reranker::open(folder.path(), &EngineOptions::default()).unwrap_err().to_string();
    assert!(error.contains("there is no bos_token: no file names one"), "{error}");
    assert!(error.ends_with("add \"bos_token\" to tokenizer_config.json"), "{error}");
}

/// A copy of an adapter with other settings.
fn adapter(name: &str, key: &str, value: Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&format!("adapters/{name}"), folder.path());
    let file = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(file, config.to_string()).unwrap();
    folder
}

fn open_with(checkpoint: &str, adapter: &Path) -> datafusion_rerank::Result<Reranker> {
    let options = ScoreOptions::default().with_adapter(adapter.display().to_string());
    Reranker::open(fixture(checkpoint), &EngineOptions::default())?.with_options(&options)
}

#[test]
fn adapters_that_cannot_be_honoured_are_refused_by_name() {
    let (m3, gemma) = ("tiny-xlmr-reranker", "tiny-gemma-reranker");
    for (key, value, names) in [
        ("peft_type", json!("IA3"), &["peft_type is \"IA3\"", "LORA"][..]),
        ("init_lora_weights", json!("pissa"), &["init_lora_weights is \"pissa\"", "merge_and_unload"]),
        ("fan_in_fan_out", json!(true), &["fan_in_fan_out is true"]),
        ("lora_bias", json!(true), &["lora_bias is true"]),
        ("layer_replication", json!([[0, 2]]), &["layer_replication is [[0,2]]"]),
        ("new_key", json!(1), &["adapter_config.json: new_key is 1", "remove it"]),
        ("use_dora", json!(true), &["use_dora is true", "has no lora_magnitude_vector", "merge_and_unload"]),
        ("lora_alpha", json!(null), &["lora_alpha is missing"]),
        ("alpha_pattern", json!({"query": 1, "self.query": 2}), &["depending on the version of peft"]),
        ("alpha_pattern", json!({"(": 1}), &["alpha_pattern.( cannot be read as a regular expression"]),
        ("rank_pattern", json!({"value": 2}), &[]),
        ("rank_pattern", json!({"value": 3}), &["the update of", "has rank 2, but r and rank_pattern make it 3"]),
        ("r", json!(8), &["has rank 2, but r and rank_pattern make it 8"]),
        (
            "target_modules",
            json!(["query"]),
            &["target_modules, exclude_modules or layers_to_transform leave out", "value"],
        ),
        ("layers_to_transform", json!([0]), &["leave out", "layer.1."]),
        ("kasa_config", json!({"beta": 1e-4}), &["adapter_config.json: kasa_config is {\"beta\":0.0001}"]),
        ("new_switch", json!(false), &[]),
    ] {
        let opened = open_with(m3, adapter("m3_query_value", key, value).path());
        assert_eq!(opened.is_ok(), names.is_empty(), "{key}");
        let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(names.iter().all(|name| error.contains(name)), "{key}: {error}");
    }
    let error = |checkpoint, adapter: &Path| open_with(checkpoint, adapter).unwrap_err().to_string();
    let text = error(gemma, &fixture("adapters/m3_query_value"));
    assert!(text.contains("which the model does not have; is it an adapter of this model?"), "{text}");
    let text = error(m3, &fixture(gemma));
    assert!(text.starts_with("option adapter: there is no ") && text.contains("adapter_config.json"), "{text}");
    let text = error(m3, Path::new("no/such/folder"));
    assert!(text.starts_with("option adapter: there is no no/such/folder/adapter_config.json"), "{text}");
    let pickled = adapter("m3_query_value", "r", json!(2));
    let (from, to) = (pickled.path().join("adapter_model.safetensors"), pickled.path().join("adapter_model.bin"));
    std::fs::rename(from, to).unwrap();
    let text = error(m3, pickled.path());
    assert!(text.contains("adapter_model.safetensors: missing") && text.contains("safe_serialization"), "{text}");

    let tied = adapter("gemma_embed_tokens_lora", "r", json!(2));
    let file = tied.path().join("adapter_model.safetensors");
    let embeddings = read_weights(&fixture(gemma).join("model.safetensors"))["model.embed_tokens.weight"].clone();
    write_weights(&[("base_model.model.model.embed_tokens.weight".to_owned(), embeddings)].into(), &file);
    let text = error(gemma, tied.path());
    assert!(text.contains("tie_word_embeddings") && text.contains("merge_and_unload"), "{text}");
}

/// Changes the tensors of a copy of an adapter.
fn with_tensors(name: &str, edit: impl FnOnce(&mut Weights)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&format!("adapters/{name}"), folder.path());
    let file = folder.path().join("adapter_model.safetensors");
    let mut weights = read_weights(&file);
    edit(&mut weights);
    write_weights(&weights, &file);
    folder
}

#[test]
fn tensors_of_an_adapter_that_cannot_be_used_are_named() {
    const QUERY: &str = "base_model.model.roberta.encoder.layer.0.attention.self.query";
    let moved = |weights: &mut Weights, from: &str, to: &str| {
        let tensor = weights.remove(from).unwrap();
        weights.insert(to.to_owned(), tensor);
    };
    let error = |checkpoint, adapter: tempfile::TempDir| open_with(checkpoint, adapter.path()).unwrap_err().to_string();
    let (m3, gemma) = ("tiny-xlmr-reranker", "tiny-gemma-reranker");
    let (a, b) = (format!("{QUERY}.lora_A.weight"), format!("{QUERY}.lora_B.weight"));

    let text = error(
        m3,
        with_tensors("m3_query_value", |weights| moved(weights, &a, &format!("{QUERY}.lora_A.default.weight"))),
    );
    assert!(text.contains("lora_A.default.weight is not named as peft names it"), "{text}");
    let text = error(m3, with_tensors("m3_query_value", |weights| moved(weights, &a, "query.lora_A.weight")));
    assert!(text.contains("tensor query.lora_A.weight is not named as peft names it"), "{text}");
    let text = error(m3, with_tensors("m3_query_value", |weights| drop(weights.remove(&b))));
    assert!(text.contains(&format!("tensor {b} is missing")), "{text}");
    for (name, rows, columns) in [(&a, 1, 48), (&a, 2, 24), (&b, 24, 2)] {
        let text = error(
            m3,
            with_tensors("m3_query_value", |weights| {
                weights.insert(name.clone(), (Dtype::F32, vec![rows, columns], vec![0; 4 * rows * columns]));
            }),
        );
        assert!(text.contains(&format!("{name} has shape [{rows}, {columns}], which does not fit")), "{text}");
    }
    let text = error(
        m3,
        with_tensors("m3_word_embeddings", |weights| {
            let name = "base_model.model.roberta.embeddings.word_embeddings.lora_magnitude_vector";
            weights.insert(name.to_owned(), (Dtype::F32, vec![524], vec![0; 4 * 524]));
        }),
    );
    assert!(text.contains("use_dora is not supported for embeddings (roberta.embeddings.word_embeddings)"), "{text}");
    let text = error(m3, adapter("m3_word_embeddings", "use_dora", json!(true)));
    assert!(text.contains("use_dora is not supported for embeddings"), "{text}");
    let text = error(
        gemma,
        with_tensors("gemma_lm_head", |weights| {
            let head = weights["base_model.model.lm_head.weight"].clone();
            weights.insert("base_model.model.lm_head.base_layer.weight".to_owned(), head.clone());
            weights.insert("base_model.model.model.embed_tokens.base_layer.weight".to_owned(), head);
        }),
    );
    assert!(text.contains("is the second that replaces model.embed_tokens.weight"), "{text}");
}

#[test]
fn modules_that_the_class_lacks_need_no_update() {
    let base = tempfile::tempdir().unwrap();
    copy("tiny-xlmr-reranker", base.path());
    let file = base.path().join("model.safetensors");
    let mut weights = read_weights(&file);
    let dense = weights["classifier.dense.weight"].clone();
    weights.insert("roberta.pooler.dense.weight".to_owned(), dense);
    write_weights(&weights, &file);
    let variant = variant("m3_dense_rslora");
    let reranker = Reranker::open(base.path(), &EngineOptions::default()).unwrap();
    let (pairs, _) = variants();
    let scores = score(&reranker.with_options(&options(&variant)).unwrap(), &pairs);
    assert!(difference(&scores, &expected(&variant)) <= TOLERANCE);
}

#[test]
fn an_adapter_that_changes_before_it_is_merged_is_refused() {
    let folder = adapter("gemma_q_v", "revision", json!(null));
    let cache = tempfile::tempdir().unwrap();
    let engine = EngineOptions::default().with_cache(cache.path());
    let options = ScoreOptions::default().with_adapter(folder.path().display().to_string());
    let reranker = Reranker::open(fixture("tiny-gemma-reranker"), &engine).unwrap().with_options(&options).unwrap();
    let file = folder.path().join("adapter_model.safetensors");
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let error = reranker.load().unwrap_err().to_string();
    assert!(error.contains("it was changed after the model was opened with it; open the model again"), "{error}");
}

#[test]
fn an_incomplete_adapter_is_refused() {
    let name = "base_model.model.model.layers.2.self_attn.v_proj";
    let adapter = with_tensors("gemma_q_v", |weights| weights.retain(|tensor, _| !tensor.starts_with(name)));
    let error = open_with("tiny-gemma-reranker", adapter.path()).unwrap_err().to_string();
    assert!(
        error.contains("there is no update of model.layers.2.self_attn.v_proj.weight, though target_modules"),
        "{error}"
    );
    let empty = with_tensors("gemma_q_v", Weights::clear);
    assert!(open_with("tiny-gemma-reranker", empty.path()).is_err());
}

#[test]
fn an_adapter_that_is_written_again_is_read_again() {
    let (pairs, _) = variants();
    let cache = tempfile::tempdir().unwrap();
    let engine = EngineOptions::default().with_cache(cache.path());
    let reranker = Reranker::open(fixture("tiny-gemma-reranker"), &engine).unwrap();
    let folder = adapter("gemma_q_v", "revision", json!(null));
    let options = ScoreOptions::default().with_adapter(folder.path().display().to_string());
    let scores = || score(&reranker.with_options(&options).unwrap(), &pairs);
    let before = scores();
    // One number of one matrix.
    let file = folder.path().join("adapter_model.safetensors");
    let mut weights = read_weights(&file);
    weights.values_mut().last().unwrap().2[..4].copy_from_slice(&3.0_f32.to_le_bytes());
    write_weights(&weights, &file);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(difference(&scores(), &before) > 1e-3);
}

#[test]
fn both_tables_of_tied_embeddings_may_be_saved() {
    let (pairs, _) = variants();
    let base = read_weights(&fixture("tiny-gemma-reranker").join("model.safetensors"));
    let table = base["model.embed_tokens.weight"].clone();
    let adapter = with_tensors("gemma_lm_head", |weights| {
        weights.insert("base_model.model.model.embed_tokens.weight".to_owned(), table);
    });
    let scores = score(&open_with("tiny-gemma-reranker", adapter.path()).unwrap(), &pairs);
    assert!(difference(&scores, &expected(&variant("gemma_lm_head"))) <= TOLERANCE);
}

#[test]
fn other_files_of_an_adapter_are_accounted_for() {
    let folder = adapter("m3_query_value", "r", json!(2));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let account = open_with("tiny-xlmr-reranker", folder.path()).unwrap().model().account();
    let reason = "of the adapter; the base has the tokenizer and the rest";
    assert!(account.iter().any(|part| part.file == "tokenizer.json" && part.ignored.as_deref() == Some(reason)));
}

#[test]
fn an_adapter_says_whose_it_is() {
    let folder = fixture("adapters/gemma_q_v");
    let error = Reranker::open(&folder, &EngineOptions::default()).unwrap_err().to_string();
    let expected = format!(
        "this is a LoRA adapter of tiny-gemma-reranker; open tiny-gemma-reranker with the option adapter = {0} (on the command line: --adapter '{0}')",
        folder.display()
    );
    assert!(error.ends_with(&expected), "{error}");
}

#[test]
fn an_adapter_is_merged_once_and_kept_in_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let engine = EngineOptions::default().with_cache(cache.path());
    let (pairs, _) = variants();
    let variant = variant("gemma2_rslora");
    let open = || {
        let reranker = Reranker::open(fixture("tiny-gemma2-lightweight-reranker"), &engine).unwrap();
        reranker.with_options(&options(&variant)).unwrap()
    };
    let weights = || {
        let files = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "fp32"));
        files.map(|file| (file.path(), file.metadata().unwrap().modified().unwrap())).collect::<Vec<_>>()
    };
    let merged = score(&open(), &pairs);
    let first = weights();
    assert_eq!(first.len(), 1);
    assert_eq!(score(&open(), &pairs), merged);
    assert_eq!(weights(), first);

    let base = Reranker::open(fixture("tiny-gemma2-lightweight-reranker"), &engine).unwrap();
    assert_ne!(open().model().fingerprint().unwrap(), base.model().fingerprint().unwrap());
    assert_eq!(open().model().fingerprint().unwrap(), open().model().fingerprint().unwrap());
}

#[test]
fn everything_in_an_adapter_is_accounted_for() {
    let folder = fixture("adapters/m3_bias_all");
    let account = open_with("tiny-xlmr-reranker", &folder).unwrap().model().account();
    let fate = |file: &str, name: &str| {
        let mut parts = account.iter().filter(|part| part.file == file && part.name.as_deref() == Some(name));
        let part = parts.next().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(parts.next(), None, "{name}");
        part.ignored.as_deref()
    };
    for name in read_weights(&folder.join("adapter_model.safetensors")).keys() {
        let is_copy = name.contains(".original_module.") || name.contains(".modules_to_save.");
        assert_eq!(fate("adapter_model.safetensors", name).is_some(), is_copy, "{name}");
    }
    let config = std::fs::read(folder.join("adapter_config.json")).unwrap();
    for key in serde_json::from_slice::<Map<String, Value>>(&config).unwrap().keys() {
        fate("adapter_config.json", key);
    }
    let base = |name: &str| fate("model.safetensors", name);
    assert_eq!(base("classifier.out_proj.bias"), Some("replaced by the adapter"));
    assert_eq!(base("roberta.encoder.layer.0.attention.self.query.weight"), None);
}

#[test]
fn an_adapter_applies_in_every_precision_and_to_exports() {
    let cache = tempfile::tempdir().unwrap();
    let engine = EngineOptions::default().with_cache(cache.path());
    let (pairs, _) = variants();
    for (name, precision, tolerance) in [
        ("gemma_all_linear_patterns", "fp16", 0.05),
        ("gemma_embed_tokens_lora", "fp16", 0.05),
        ("m3_word_embeddings", "int8", 0.3),
        ("m3_dense_rslora", "int8", 0.3),
        ("minicpm_one_head", "fp16", 0.1),
    ] {
        let variant = variant(name);
        let reranker = Reranker::open(fixture(variant["checkpoint"].as_str().unwrap()), &engine).unwrap();
        let with = |options: ScoreOptions| {
            let mut options = options;
            options.set_text("precision", precision).unwrap();
            score(&reranker.with_options(&options).unwrap(), &pairs)
        };
        let options = options(&variant);
        let largest = difference(&with(options.clone()), &expected(&variant));
        assert!(largest <= tolerance, "{name}, {precision}: {largest}");
        let mut base = options;
        base.adapter = None;
        assert!(difference(&with(base), &expected(&variant)) > 2.0 * tolerance, "{name}");
    }

    let variant = variant("m3_query_value");
    let reranker = Reranker::open(fixture("tiny-xlmr-reranker"), &engine).unwrap();
    let export = cache.path().join("export");
    reranker.with_options(&options(&variant)).unwrap().model().export(&export).unwrap();
    let scores = score(&Reranker::open(&export, &engine).unwrap(), &pairs);
    assert!(difference(&scores, &expected(&variant)) <= TOLERANCE);
    let error = Reranker::open(&export, &engine).unwrap().with_options(&options(&variant)).unwrap_err().to_string();
    assert!(error.starts_with("option adapter: an ONNX export is run as it is"), "{error}");
}
