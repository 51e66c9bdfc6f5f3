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

/// What a model takes on a GPU, in bytes: an estimate. On an H100, runs of the four families took 6 % less to 13 %
/// more, and one of gemma two thirds more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuBytes {
    /// Weights of the layers that run and of the embeddings.
    pub weights: u64,
    /// Activations of batches, which reuse each other's memory.
    pub batch: u64,
    /// Tokens of a batch.
    pub batch_tokens: usize,
}

impl GpuBytes {
    /// What CUDA, cuBLAS and their kernels take in a process.
    const CUDA: u64 = 600_000_000;

    /// All of it, and what CUDA takes.
    pub fn total(&self) -> u64 {
        self.weights + self.batch + Self::CUDA
    }
}

impl ModelShape {
    /// Floating point operations of one layer's multiply-adds on `tokens` tokens of one sequence.
    fn layer_flops(&self, tokens: f64) -> f64 {
        let (hidden, inner) = (self.hidden as f64, self.intermediate as f64);
        let (queries, keys) = ((self.heads * self.head_dim) as f64, (self.kv_heads * self.head_dim) as f64);
        let weights = hidden * (2.0 * queries + 2.0 * keys) + self.mlp_matrices as f64 * hidden * inner;
        2.0 * tokens * weights + 4.0 * tokens * tokens * queries
    }

    /// Weights of the layers that run and of the embeddings, in elements. Leaves out norms, biases and heads (less than
    /// 1 %).
    fn weights(&self, options: &GraphOptions) -> usize {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let layer = self.hidden * (2 * queries + 2 * keys + self.mlp_matrices * self.intermediate);
        self.depth(options) * layer + self.vocabulary * self.hidden
    }

    /// Elements of the activations that are alive at once, per token of a batch: the inner ones of an MLP, each of its
    /// matrices' and, if it is gated, their product; the residual stream and its copies.
    fn activations(&self) -> usize {
        self.mlp_matrices * self.intermediate + 4 * self.hidden
    }

    /// The layers that run.
    fn depth(&self, options: &GraphOptions) -> usize {
        options.exits.iter().map(|exit| exit.layer).max().unwrap_or(self.layers)
    }

    /// Bytes that the model takes on a GPU, `width` bytes to a weight, with batches of `batch_tokens` tokens: an
    /// estimate.
    pub(crate) fn gpu_bytes(&self, options: &GraphOptions, width: usize, batch_tokens: usize) -> GpuBytes {
        GpuBytes {
            weights: (width * self.weights(options)) as u64,
            // ONNX Runtime's arena keeps as much again for batches of other shapes.
            batch: (2 * width * batch_tokens * self.activations()) as u64,
            batch_tokens,
        }
    }

    /// Floating point operations to score one pair of `tokens` tokens under graph options. Leaves out embeddings and
    /// heads (less than 1 %). Counts compression as if all tokens were passage. The last layer computes keys and values
    /// for all tokens, and the rest for one.
    pub(crate) fn pair_flops(&self, options: &GraphOptions, tokens: usize) -> f64 {
        let depth = self.depth(options);
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
    fn weights_and_activations_are_counted() {
        // 9.24B parameters, of which a cutoff leaves out 14 layers of 198.2M.
        let whole = GEMMA2.gpu_bytes(&options(42, None), 2, 65_536);
        assert!((whole.weights as f64 / 18.48e9 - 1.0).abs() < 0.01, "{whole:?}");
        assert_eq!(whole.batch, 65_536 * 2 * 2 * (3 * 14_336 + 4 * 3584));
        let cut = GEMMA2.gpu_bytes(&options(28, None), 2, 65_536);
        assert_eq!(whole.weights - cut.weights, 14 * 2 * 3584 * (2 * 4096 + 2 * 2048 + 3 * 14_336));
    }

    #[test]
    fn work_grows_with_depth_and_length() {
        let at = |cutoff, tokens| GEMMA2.pair_flops(&options(cutoff, None), tokens);
        // Two operations for each of 198.2M weights a layer; 42 layers, of which the last runs for one token of 512.
        assert!((at(42, 512) / 512.0 / 2.0 / (41.0 * 198.2e6) - 1.0).abs() < 0.03);
        assert!(at(8, 512) < at(9, 512) && at(8, 512) < at(8, 513));
    }
}
