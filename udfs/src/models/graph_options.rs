//! The options that shape a graph.

use std::sync::Arc;

use super::exits::Exit;
use crate::checkpoint::Adapter;
use crate::graph::Target;
use crate::options::Precision;

/// What distinguishes two graphs of one checkpoint. Two calls with equal graph options share a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct GraphOptions {
    /// The precision of the layers.
    pub(crate) precision: Precision,
    /// What runs the graph.
    pub(crate) target: Target,
    /// The scores that come out, in the order of the output's columns; empty for families with one exit.
    pub(crate) exits: Vec<Exit>,
    /// Token compression, if any takes place.
    pub(crate) compression: Option<TokenCompression>,
    /// Whether attention is limited to the checkpoint's sliding window, if it has one. No pair of a call that does
    /// without can exceed it.
    pub(crate) windowed: bool,
    /// Whether the checkpoint's attention soft-capping is applied.
    pub(crate) attention_softcap: bool,
    /// The adapter that changes the weights, if there is one.
    pub(crate) adapter: Option<Arc<Adapter>>,
}

impl GraphOptions {
    /// Scores per pair.
    pub(crate) fn columns(&self) -> usize {
        self.exits.len().max(1)
    }
}

/// The token compression that a call asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenCompression {
    pub(crate) ratio: usize,
    /// Layers before which passages are compressed; ascending, none of them 0.
    pub(crate) layers: Vec<usize>,
}
