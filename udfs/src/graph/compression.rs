//! Token compression in the graph: averages neighbouring passage tokens into one.

use super::builder::{Attr, GraphBuilder, Value};
use super::layers::{Sequences, per_token, unsqueeze};
use super::proto::DataType;

/// Graph input: how many leading tokens of each row are not passage.
pub(crate) const HEAD_TOKENS: &str = "head_tokens";
/// Graph input: how many trailing tokens of each row are not passage.
pub(crate) const TAIL_TOKENS: &str = "tail_tokens";

/// The parts of each row that are not compressed; the passage lies between them.
#[derive(Debug, Clone)]
pub(crate) struct Uncompressed {
    /// Leading tokens (bos, query, separator), i64 `[batch]`.
    head: Value,
    /// Trailing tokens (separator, prompt), i64 `[batch]`.
    tail: Value,
}

impl Uncompressed {
    /// Declares the graph inputs `head_tokens` and `tail_tokens`.
    pub(crate) fn declare(g: &mut GraphBuilder) -> Self {
        Self {
            head: g.input(HEAD_TOKENS, DataType::Int64, &["batch"]),
            tail: g.input(TAIL_TOKENS, DataType::Int64, &["batch"]),
        }
    }
}

/// Averages every `ratio` consecutive passage tokens of `x`, `[tokens, hidden]`; the last group of a passage may have
/// fewer. Returns the shortened activations and sequences.
///
/// The average is a product with a `[batch, new sequence, sequence]` matrix that holds `1 / group size` where a token
/// belongs to a group. It costs less than a hundredth of a layer's work, whatever the ratio.
/// (`CostWiseGemmaModel.forward` and `token_compress`, FlagEmbedding 1.4.2, `decoder_only/models/gemma_model.py`)
pub(crate) fn compress(
    g: &mut GraphBuilder,
    x: &Value,
    sequences: &Sequences,
    uncompressed: &Uncompressed,
    ratio: usize,
    hidden: usize,
) -> (Value, Sequences) {
    let ratio = g.int(ratio as i64);
    let one = g.int(1);
    let Uncompressed { head, tail } = uncompressed;

    // Passage tokens per row, before and after.
    let fixed = g.op("Add", &[head, tail], &[]);
    let passage = g.op("Sub", &[&sequences.lengths, &fixed], &[]);
    let last_of_group = g.op("Sub", &[&ratio, &one], &[]);
    let groups = g.op("Add", &[&passage, &last_of_group], &[]);
    let groups = g.op("Div", &[&groups, &ratio], &[]);
    let lengths = g.op("Add", &[&fixed, &groups], &[]);

    let longest = g.op("ReduceMax", &[&lengths], &[("keepdims", Attr::Int(0))]);
    let start = g.int(0);
    let new_positions = g.op("Range", &[&start, &longest, &one], &[]);

    // First and one-past-last old token of each new one, [batch, new sequence]. A token before the passage keeps its
    // position; one after it moves down by the number of tokens that the passage lost.
    let column = |g: &mut GraphBuilder, value: &Value| unsqueeze(g, value, &[1]);
    let (head, passage, groups) = (column(g, head), column(g, &passage), column(g, &groups));
    let group = g.op("Sub", &[&new_positions, &head], &[]);
    let in_head = g.op("Less", &[&new_positions, &head], &[]);
    let in_passage_or_head = g.op("Less", &[&group, &groups], &[]);
    let lost = g.op("Sub", &[&passage, &groups], &[]);
    let group_start = g.op("Mul", &[&group, &ratio], &[]);
    let group_start = g.op("Add", &[&head, &group_start], &[]);
    let tail_start = g.op("Add", &[&new_positions, &lost], &[]);
    let first = g.op("Where", &[&in_passage_or_head, &group_start, &tail_start], &[]);
    let first = g.op("Where", &[&in_head, &new_positions, &first], &[]);
    let passage_end = g.op("Add", &[&head, &passage], &[]);
    let group_end = g.op("Add", &[&group_start, &ratio], &[]);
    let group_end = g.op("Min", &[&group_end, &passage_end], &[]);
    let next = g.op("Add", &[&first, &one], &[]);
    let end = g.op("Where", &[&in_passage_or_head, &group_end, &next], &[]);
    let end = g.op("Where", &[&in_head, &next, &end], &[]);

    // 1 / group size where an old token belongs to a new one, 0 elsewhere.
    let (first, end) = (unsqueeze(g, &first, &[2]), unsqueeze(g, &end, &[2]));
    let positions = sequences.positions(g);
    let from_first = g.op("GreaterOrEqual", &[&positions, &first], &[]);
    let before_end = g.op("Less", &[&positions, &end], &[]);
    let member = g.op("And", &[&from_first, &before_end], &[]);
    let member = g.cast(&member, DataType::Float);
    let size = g.op("Sub", &[&end, &first], &[]);
    let size = g.cast(&size, DataType::Float);
    let average = g.op("Div", &[&member, &size], &[]);

    // In f32: 16 bits are too few for, say, a third.
    let batch = sequences.per_batch(g, x);
    let batch = g.cast_to_f32(&batch);
    let compressed = g.op("MatMul", &[&average, &batch], &[]);
    let shape = g.op("Shape", &[&compressed], &[("end", Attr::Int(2))]);
    let rest = g.ints(&[-1]);
    let shape = g.op("Concat", &[&shape, &rest], &[("axis", Attr::Int(0))]);
    let compressed = g.cast_to_activation(&compressed);
    (per_token(g, &compressed, hidden), Sequences { lengths, shape })
}
