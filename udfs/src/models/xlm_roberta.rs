//! XLM-RoBERTa cross-encoders: bge-reranker-base, -large and -v2-m3.
//!
//! Reference: `XLMRobertaForSequenceClassification` of transformers 4.46.3 with one label, as called by
//! FlagEmbedding's `FlagReranker`.

use super::architecture::Architecture;
use super::family::Family;
use super::graph_options::GraphOptions;
use super::shape::ModelShape;
use crate::checkpoint::{Config, Tensors};
use crate::error::Result;
use crate::graph::{
    Attr, DataType, GraphBuilder, LayerNorm, OnnxGraph, Sequences, Value, bias_after_constant, declare_inputs,
    full_attention, gelu_of_linear, linear, linear_f32, per_token, unsqueeze,
};
use crate::options::ScoreOptions;
use crate::text::{Recipe, Tokenizer};

/// The table of word embeddings.
const WORDS: &str = "roberta.embeddings.word_embeddings.weight";

/// The dimensions of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct XlmRoberta {
    layers: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    vocabulary: usize,
    positions: usize,
    token_types: usize,
    layer_norm_eps: f64,
    pad_id: u32,
    /// The class of the tokenizer, if its own settings name none.
    tokenizer_class: Option<String>,
}

impl XlmRoberta {
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for a missing key or a variant of the architecture that is not
    /// implemented.
    pub(super) fn read(config: &Config) -> Result<Self> {
        config.require("model_type", &["xlm-roberta"])?;
        for key in ["hidden_act", "hidden_activation"] {
            config.require(key, &["gelu"])?;
        }
        config.require("position_embedding_type", &["absolute"])?;
        let labels = config.object("id2label")?.map(|labels| labels.keys().count());
        if let Some(labels) = labels.filter(|labels| *labels != 1) {
            return Err(config.error(format!("id2label has {labels} labels; a reranker has exactly one label")));
        }
        let model = Self {
            layers: config.count("num_hidden_layers")?,
            hidden: config.count("hidden_size")?,
            intermediate: config.count("intermediate_size")?,
            heads: config.count("num_attention_heads")?,
            vocabulary: config.count("vocab_size")?,
            positions: config.count("max_position_embeddings")?,
            token_types: config.count("type_vocab_size")?,
            layer_norm_eps: config.positive("layer_norm_eps")?,
            // The default of the reference's class.
            pad_id: config.optional_id("pad_token_id")?.unwrap_or(1),
            tokenizer_class: config.optional_text("tokenizer_class")?.map(str::to_owned),
        };
        if !model.hidden.is_multiple_of(model.heads) {
            return Err(config.error(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                model.hidden, model.heads
            )));
        }
        if model.positions <= model.pad_id as usize + 1 {
            return Err(config.error(format!("max_position_embeddings {} leaves no room for tokens", model.positions)));
        }
        Ok(model)
    }

    /// Longest sequence. Positions start after the padding id.
    fn max_tokens(&self) -> usize {
        self.positions - self.pad_id as usize - 1
    }

    /// Word, position and token type embeddings, normalised: `[tokens, hidden]`.
    fn embeddings(&self, g: &mut GraphBuilder, ids: &Value, tensors: &Tensors) -> Result<Value> {
        let name = |part: &str| format!("roberta.embeddings.{part}");
        let words = tensors.get(WORDS, &[self.vocabulary, self.hidden])?;
        let positions = tensors.get(&name("position_embeddings.weight"), &[self.positions, self.hidden])?;
        let types = tensors.get(&name("token_type_embeddings.weight"), &[self.token_types, self.hidden])?;
        let norm = LayerNorm::named(tensors, &name("LayerNorm"), self.hidden, self.layer_norm_eps)?;

        let words = g.rows(words, ids);
        let position_ids = self.position_ids(g, ids);
        let positions = g.rows(positions, &position_ids);
        // Every token has type 0, so the type embedding is a bias.
        let types = g.weight(&types.row(0));
        let x = norm.of_sum(g, &words, &positions, &types);
        Ok(per_token(g, &x, self.hidden))
    }

    /// Positions count the tokens that are not `<pad>` by id, not by mask: a literal `<pad>` in the text is attended
    /// to, but takes position `pad_id` and does not advance the count.
    /// (`create_position_ids_from_input_ids`, transformers 4.46.3, `modeling_xlm_roberta.py`)
    fn position_ids(&self, g: &mut GraphBuilder, ids: &Value) -> Value {
        let pad = g.int(i64::from(self.pad_id));
        let is_pad = g.op("Equal", &[ids, &pad], &[]);
        let is_token = g.op("Not", &[&is_pad], &[]);
        let is_token = g.cast(&is_token, DataType::Int64);
        let axis = g.int(1);
        let count = g.op("CumSum", &[&is_token, &axis], &[]);
        let count = g.op("Mul", &[&count, &is_token], &[]);
        g.op("Add", &[&count, &pad], &[])
    }

    /// One post-norm BERT layer. The score reads the first token only, so the last layer computes keys and values for
    /// all tokens, and everything else for the first: `[batch, hidden]`.
    fn layer(
        &self,
        g: &mut GraphBuilder,
        sequences: &Sequences,
        tensors: &Tensors,
        layer: usize,
        x: &Value,
        only_first_token: bool,
    ) -> Result<Value> {
        let prefix = format!("roberta.encoder.layer.{layer}");
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let weight =
            |part: &str, out: usize, r#in: usize| tensors.get(&format!("{prefix}.{part}.weight"), &[out, r#in]);
        let bias = |part: &str, out: usize| tensors.get(&format!("{prefix}.{part}.bias"), &[out]);
        let norm = |part: &str| LayerNorm::named(tensors, &format!("{prefix}.{part}"), hidden, self.layer_norm_eps);

        let value = "attention.self.value";
        // On a GPU, a product with a bias writes its output twice. Only the queries' bias is needed. The keys' changes
        // all logits of a query alike, which softmax ignores. The values' passes through attention, whose weights sum
        // to one, and becomes part of the output's.
        let folds_biases = g.on_gpu();
        let projection = |g: &mut GraphBuilder, x: &Value, part: &str, has_bias: bool| -> Result<Value> {
            let bias = if has_bias { Some(bias(part, hidden)?) } else { None };
            Ok(linear(g, x, weight(part, hidden, hidden)?, bias))
        };
        let keys = projection(g, x, "attention.self.key", !folds_biases)?;
        let keys = sequences.per_batch(g, &keys);
        let values = projection(g, x, value, !folds_biases)?;
        let values = sequences.per_batch(g, &values);
        let (residual, queries) = if only_first_token {
            let batch = sequences.per_batch(g, x);
            let first = g.int(0);
            let first = g.op("Gather", &[&batch, &first], &[("axis", Attr::Int(1))]);
            let queries = projection(g, &first, "attention.self.query", true)?;
            (first, unsqueeze(g, &queries, &[1]))
        } else {
            let queries = projection(g, x, "attention.self.query", true)?;
            (x.clone(), sequences.per_batch(g, &queries))
        };
        let attended = full_attention(g, sequences, self.heads, [&queries, &keys, &values]);
        let attended = per_token(g, &attended, hidden);

        let part = "attention.output.dense";
        let (output, output_bias) = (weight(part, hidden, hidden)?, bias(part, hidden)?);
        let output_norm = norm("attention.output.LayerNorm")?;
        let x = if folds_biases {
            let product = linear(g, &attended, output, None);
            let bias = bias_after_constant(g, output, output_bias, bias(value, hidden)?);
            output_norm.of_sum(g, &product, &residual, &bias)
        } else {
            output_norm.of_linear(g, &attended, output, output_bias, &residual)
        };
        let part = "intermediate.dense";
        let inner = gelu_of_linear(g, &x, weight(part, intermediate, hidden)?, bias(part, intermediate)?);
        let part = "output.dense";
        Ok(norm("output.LayerNorm")?.of_linear(g, &inner, weight(part, hidden, intermediate)?, bias(part, hidden)?, &x))
    }

    /// `out_proj(tanh(dense(x)))` on the first tokens.
    /// (`XLMRobertaClassificationHead`, transformers 4.46.3, `modeling_xlm_roberta.py`)
    fn classifier(&self, g: &mut GraphBuilder, tensors: &Tensors, x: &Value) -> Result<Value> {
        let dense = tensors.get("classifier.dense.weight", &[self.hidden, self.hidden])?;
        let dense_bias = tensors.get("classifier.dense.bias", &[self.hidden])?;
        let out = tensors
            .get("classifier.out_proj.weight", &[1, self.hidden])
            .map_err(|error| error.with_remark("a reranker has exactly one label"))?;
        let out_bias = tensors.get("classifier.out_proj.bias", &[1])?;
        let x = linear_f32(g, x, dense, Some(dense_bias));
        let x = g.op("Tanh", &[&x], &[]);
        Ok(linear_f32(g, &x, out, Some(out_bias)))
    }
}

impl Architecture for XlmRoberta {
    fn family(&self) -> Family {
        Family::M3
    }

    fn shape(&self) -> Option<ModelShape> {
        Some(ModelShape {
            layers: self.layers,
            hidden: self.hidden,
            intermediate: self.intermediate,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.hidden / self.heads,
            vocabulary: self.vocabulary,
            max_tokens: Some(self.max_tokens()),
            mlp_matrices: 2,
            exits: None,
        })
    }

    fn vocabulary(&self) -> Option<usize> {
        Some(self.vocabulary)
    }

    fn pad_id(&self) -> u32 {
        self.pad_id
    }

    fn anchors(&self) -> &'static [&'static str] {
        &[WORDS]
    }

    fn recipe(&self, tokenizer: &Tokenizer) -> Result<Recipe> {
        Recipe::encoder(tokenizer, self.tokenizer_class.as_deref(), Some(self.max_tokens()))
    }

    fn graph_options(&self, _options: &ScoreOptions) -> Result<GraphOptions> {
        Ok(GraphOptions::default())
    }

    fn graph(&self, tensors: &Tensors, _tokenizer: &Tokenizer, options: &GraphOptions) -> Result<OnnxGraph> {
        let mut g = GraphBuilder::new(options.precision, options.target);
        let (ids, sequences) = declare_inputs(&mut g);
        let mut x = self.embeddings(&mut g, &ids, tensors)?;
        for layer in 0..self.layers {
            let only_first_token = layer + 1 == self.layers;
            x = self.layer(&mut g, &sequences, tensors, layer, &x, only_first_token)?;
        }
        let logits = self.classifier(&mut g, tensors, &x)?;
        g.output("logits", &logits, 1);
        Ok(g.build("xlm-roberta"))
    }
}
