//! What every family answers.

use std::fmt::Debug;

use super::exits::Exit;
use super::family::Family;
use super::graph_options::GraphOptions;
use super::shape::ModelShape;
use crate::checkpoint::{Tensors, Tied};
use crate::error::Result;
use crate::graph::OnnxGraph;
use crate::options::ScoreOptions;
use crate::text::{Recipe, Tokenizer};

/// What a family knows about one checkpoint.
pub(crate) trait Architecture: Debug + Send + Sync {
    fn family(&self) -> Family;

    /// The transformer's dimensions; `None` if only the graph knows.
    fn shape(&self) -> Option<ModelShape>;

    /// Size of the embedding table, which bounds the token ids; `None` if only the graph knows.
    fn vocabulary(&self) -> Option<usize>;

    /// The id that pads short sequences.
    fn pad_id(&self) -> u32;

    /// How many tokens a token attends to at most, itself included; `None` for all.
    fn sliding_window(&self) -> Option<usize> {
        None
    }

    /// A tensor that every checkpoint of the class has, by which its names are recognised: its name, and others under
    /// which it may have been saved. None if only the graph knows.
    fn anchors(&self) -> &'static [&'static str];

    /// The embeddings that are the output layer too, if they are.
    fn tied(&self) -> Option<Tied> {
        None
    }

    /// Every score that the checkpoint has a head for; none for families with one exit.
    fn all_exits(&self) -> Vec<Exit> {
        Vec::new()
    }

    /// How query and passage are joined.
    fn recipe(&self, tokenizer: &Tokenizer) -> Result<Recipe>;

    /// The options that change the graph, checked against the checkpoint.
    fn graph_options(&self, options: &ScoreOptions) -> Result<GraphOptions>;

    /// The graph from `input_ids` and `attention_mask` to `logits` `[batch, exits]`.
    fn graph(&self, tensors: &Tensors, tokenizer: &Tokenizer, options: &GraphOptions) -> Result<OnnxGraph>;
}
