//! What may be in a checkpoint without changing a score, and why. [`CheckpointPart`](super::CheckpointPart) shows the
//! lists.

/// Declares a list once: as a constant, and as a table for documentation.
macro_rules! ignored {
    ($(#[$doc:meta])* $name:ident, $table:ident { $($reason:literal: [$($item:literal),* $(,)?],)* }) => {
        $(#[$doc])*
        pub(crate) const $name: Ignored = Ignored(&[$(($reason, &[$($item),*])),*]);

        macro_rules! $table {
            () => { concat!("\n| reason | ignored |\n|---|---|\n", $("| ", $reason, " |", $(" `", $item, "`",)* " |\n",)*) };
        }
    };
}

/// Names by the reason for which they are ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ignored(&'static [(&'static str, &'static [&'static str])]);

impl Ignored {
    /// Why this name is ignored; `None` if it is not in the list.
    pub(crate) fn reason(self, name: &str) -> Option<&'static str> {
        self.find(|listed| listed == name)
    }

    /// Why a name is ignored that ends with one in the list.
    pub(crate) fn reason_by_end(self, name: &str) -> Option<&'static str> {
        self.find(|listed| name.ends_with(listed))
    }

    /// Why a dotted name is ignored that is in the list, or ends with one there.
    pub(crate) fn reason_by_path(self, name: &str) -> Option<&'static str> {
        self.find(|listed| ends_path(name, listed))
    }

    fn find(self, matches: impl Fn(&str) -> bool) -> Option<&'static str> {
        self.0.iter().find(|(_, names)| names.iter().any(|name| matches(name))).map(|(reason, _)| *reason)
    }
}

/// Whether a dotted name is `end`, or ends with it as a whole part.
pub(super) fn ends_path(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|parent| parent.is_empty() || parent.ends_with('.'))
}

ignored! {
    /// Keys of `config.json`. Keys that matter only if they are set (`is_decoder`,
    /// `quantization_config`, `pruned_heads`) are not here: they are read, and refused if they are set.
    CONFIG_KEYS, config_keys_table {
        "training only": [
            "attention_dropout", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "embd_pdrop",
            "finetuning_task", "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "initializer_factor",
            "initializer_range", "mlp_dropout", "problem_type", "resid_pdrop", "task_specific_params", "tf_legacy_loss",
        ],
        "how the reference stores and computes, not what": [
            "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
            "_experts_implementation", "_flash_attn_2_enabled", "attn_implementation", "cache_implementation", "chunk_size_feed_forward", "dtype",
            "output_past", "pretraining_tp", "torch_dtype", "torchscript", "use_bfloat16", "use_cache", "xla_device",
        ],
        "generation of text only": [
            "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
            "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
            "forced_eos_token_id", "length_penalty", "max_length", "max_new_tokens", "min_length", "no_repeat_ngram_size",
            "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "prefix", "remove_invalid_values",
            "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p",
            "typical_p",
        ],
        "the tokenizer names the special tokens": [
            "bos_token_id", "cls_token_id", "decoder_start_token_id", "eos_token_id", "mask_token_id", "sep_token_id",
            "unk_token_id",
        ],
        "what the reference returns beside the score": [
            "output_attentions", "output_hidden_states", "return_dict", "use_return_dict",
        ],
        "names and versions": [
            "_commit_hash", "_name_or_path", "auto_map", "custom_pipelines", "label2id", "model_type",
            "name_or_path", "num_labels", "tokenizer_class", "transformers_version", "unsloth_fixed", "unsloth_version",
        ],
        "there is no cross-attention": ["cross_attention_hidden_size", "tie_encoder_decoder"],
        "rotary positions need no table": ["max_position_embeddings"],
        "heads that score are not tied to the embeddings": ["tie_word_embeddings"],
        "of a vocabulary head, which scores no pairs": ["dim_model_base"],
        "an older name of sliding_window that no class reads": ["sliding_window_size"],
        "each call sets the length": ["max_seq_length"],
        "the head's shape tells": ["id2label"],
        "the activation of CrossEncoder.predict; here the option normalize applies the sigmoid": [
            "sbert_ce_default_activation_function", "sentence_transformers",
        ],
    }
}

ignored! {
    /// Keys of `tokenizer_config.json` and `special_tokens_map.json`.
    TOKENIZER_KEYS, tokenizer_keys_table {
        "the family's recipe puts special tokens in, as the reference does": [
            "add_bos_token", "add_eos_token",
        ],
        "each call sets lengths and padding": [
            "max_len", "max_length", "model_input_names", "model_max_length", "pad_to_multiple_of", "pad_token_type_id",
            "padding", "padding_side", "stride", "truncation", "truncation_strategy",
        ],
        "decoding only": ["clean_up_tokenization_spaces", "spaces_between_special_tokens"],
        "conversation only": ["chat_template", "response_schema", "use_default_system_prompt"],
        "names and versions": [
            "__type", "auto_map", "backend", "device_map", "fast_tokenizer_files", "is_local", "local_files_only",
            "name_or_path", "processor_class", "special_tokens_map_file", "tokenizer_file",
            "transformers_version", "trust_remote_code", "unsloth_version", "use_fast",
        ],
        "of the slow tokenizer, from which tokenizer.json was made": [
            "do_basic_tokenize", "do_lower_case", "errors", "fix_mistral_regex", "keep_accents", "legacy", "merges_file",
            "never_split", "remove_space", "sp_model_kwargs", "strip_accents", "tokenize_chinese_chars", "trim_offsets",
            "use_legacy", "vocab_file",
        ],
    }
}

ignored! {
    /// Keys of `adapter_config.json`.
    ADAPTER_KEYS, adapter_keys_table {
        "training only": [
            "eva_config", "inference_mode", "loftq_config", "lora_dropout", "runtime_config",
        ],
        "names and versions": [
            "auto_mapping", "base_model_name_or_path", "revision", "task_type", "unsloth_version",
        ],
        "how the reference distributes and computes": ["megatron_config", "megatron_core", "qalora_group_size"],
    }
}

ignored! {
    /// Tensors, by the ends of their names.
    TENSORS, tensors_table {
        "a table of constants that old versions of transformers saved": [
            "position_ids", "token_type_ids", "rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "masked_bias",
        ],
        "a head for other tasks, which the reference class does not have": [
            "roberta.pooler.dense.bias", "roberta.pooler.dense.weight", "lm_head.bias", "lm_head.decoder.bias",
            "lm_head.decoder.weight", "lm_head.dense.bias", "lm_head.dense.weight", "lm_head.layer_norm.bias",
            "lm_head.layer_norm.weight", "lm_head.weight",
        ],
    }
}

ignored! {
    /// Files, by the ends of their names.
    FILES, files_table {
        "tokenizer.json is read instead": [
            ".bpe.model", ".spm", "merges.txt", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt",
        ],
        "generation of text only": ["chat_template.json", "chat_template.jinja", "generation_config.json"],
        "code of the reference class": [".py"],
        "training only": [
            "optimizer.pt", "rng_state.pth", "scaler.pt", "scheduler.pt", "trainer_state.json", "training_args.bin",
        ],
        "of sentence-transformers": [
            "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json",
        ],
        "weights in another format": [
            ".bin", ".bin.index.json", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx.data", ".onnx_data", ".pt", ".pth",
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_has_one_reason() {
        for Ignored(list) in [CONFIG_KEYS, TOKENIZER_KEYS, ADAPTER_KEYS, TENSORS, FILES] {
            let names: Vec<&str> = list.iter().flat_map(|(_, names)| *names).copied().collect();
            assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{names:?}");
        }
        assert_eq!(CONFIG_KEYS.reason("use_cache"), Some("how the reference stores and computes, not what"));
        assert_eq!(CONFIG_KEYS.reason("rope_theta"), None);
        assert!(TENSORS.reason_by_path("lm_head.weight").is_some());
        assert!(TENSORS.reason_by_path("model.layers.3.self_attn.rotary_emb.inv_freq").is_some());
        assert_eq!(TENSORS.reason_by_path("my_lm_head.weight"), None);
        assert_eq!(FILES.reason_by_end("sentencepiece.bpe.model"), Some("tokenizer.json is read instead"));
    }
}
