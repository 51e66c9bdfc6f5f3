//! A checkpoint's dimensions and what it costs to run: the numbers behind `rerank model inspect`.

use super::graph_options::GraphOptions;

/// Dimensions of a checkpoint's transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelShape {
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Longest sequence that can be scored; `None` if only memory bounds it.
    pub max_tokens: Option<usize>,
    /// Matrices of an MLP: 2, or 3 if it is gated.
    pub mlp_matrices: usize,
    /// First and last layer with a scoring head, and the step between them; `None` for families with one exit.
    pub exits: Option<(usize, usize, usize)>,
}

impl ModelShape {
    /// Floating point operations of one layer's multiply-adds on `tokens` tokens of one sequence.
    fn layer_flops(&self, tokens: f64) -> f64 {
        let (hidden, inner) = (self.hidden as f64, self.intermediate as f64);
        let (queries, keys) = ((self.heads * self.head_dim) as f64, (self.kv_heads * self.head_dim) as f64);
        let weights = hidden * (2.0 * queries + 2.0 * keys) + self.mlp_matrices as f64 * hidden * inner;
        2.0 * tokens * weights + 4.0 * tokens * tokens * queries
    }

    /// Floating point operations to score one pair of `tokens` tokens under graph options. Leaves out embeddings and
    /// heads (less than 1 %). Counts compression as if all tokens were passage. The last layer computes keys and values
    /// for all tokens, and the rest for one.
    pub(crate) fn pair_flops(&self, options: &GraphOptions, tokens: usize) -> f64 {
        let depth = options.exits.iter().map(|exit| exit.layer).max().unwrap_or(self.layers);
        let mut length = tokens as f64;
        let mut flops = 0.0;
        for layer in 0..depth {
            if let Some(compression) = &options.compression
                && compression.layers.contains(&layer)
            {
                length = (length / compression.ratio as f64).ceil();
            }
            flops += if layer + 1 == depth {
                let keys = (self.kv_heads * self.head_dim) as f64;
                4.0 * length * self.hidden as f64 * keys + self.layer_flops(1.0)
            } else {
                self.layer_flops(length)
            };
        }
        flops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::exits::Exit;
    use crate::models::graph_options::TokenCompression;

    /// bge-reranker-v2.5-gemma2-lightweight
    const GEMMA2: ModelShape = ModelShape {
        layers: 42,
        hidden: 3584,
        intermediate: 14_336,
        heads: 16,
        kv_heads: 8,
        head_dim: 256,
        vocabulary: 256_000,
        max_tokens: None,
        mlp_matrices: 3,
        exits: Some((8, 42, 1)),
    };

    fn options(cutoff: usize, compression: Option<TokenCompression>) -> GraphOptions {
        GraphOptions { exits: vec![Exit { layer: cutoff, head: 0 }], compression, ..GraphOptions::default() }
    }

    #[test]
    fn the_published_saving_of_cutoff_and_compression_comes_out() {
        // The model card: 60 % of the FLOPs saved by cutoff 25 and ratio 2 at layer 8.
        let whole = GEMMA2.pair_flops(&options(42, None), 512);
        let light = GEMMA2.pair_flops(&options(25, Some(TokenCompression { ratio: 2, layers: vec![8] })), 512);
        assert!((0.58..0.63).contains(&(1.0 - light / whole)), "{}", 1.0 - light / whole);
    }

    #[test]
    fn work_grows_with_depth_and_length() {
        let at = |cutoff, tokens| GEMMA2.pair_flops(&options(cutoff, None), tokens);
        // Two operations for each of 198.2M weights a layer; 42 layers, of which the last runs for one token of 512.
        assert!((at(42, 512) / 512.0 / 2.0 / (41.0 * 198.2e6) - 1.0).abs() < 0.03);
        assert!(at(8, 512) < at(9, 512) && at(8, 512) < at(8, 513));
    }
}
