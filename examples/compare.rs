//! All four families over one table, in SQL. See `compare.md`.

use datafusion::error::Result;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use datafusion_rerank::{ModelRegistry, RerankFunctions};

/// The bundled tiny checkpoints, by the names of their families.
const CHECKPOINTS: [(&str, &str); 4] = [
    ("m3", "tiny-xlmr-reranker"),
    ("gemma", "tiny-gemma-reranker"),
    ("minicpm", "tiny-minicpm-layerwise-reranker"),
    ("gemma2", "tiny-gemma2-lightweight-reranker"),
];

const COMPARISON: &str = "
    SELECT
        left(query, 40) AS query,
        left(passage, 40) AS passage,
        rerank_m3(query, passage) AS m3,
        rerank_gemma(query, passage) AS gemma,
        rerank_minicpm(query, passage, {'cutoff_layers': [4, 8]}) AS minicpm_4_8,
        rerank_gemma2(query, passage, {'cutoff_layers': 6, 'compress_ratio': 2, 'compress_layers': [3]}) AS gemma2_light
    FROM xquad
    WHERE lang = 'en'
    LIMIT 8";

#[tokio::main]
async fn main() -> Result<()> {
    // Examples run in the working tree, where `make onnxruntime` puts the library.
    datafusion_rerank::allow_onnxruntime_search();
    // With `gemma=DIR` arguments, the directories of real checkpoints; the layers above are those of the tiny ones.
    let models = ModelRegistry::default();
    for (name, folder) in CHECKPOINTS {
        models.register(name, format!("{}/tests/fixtures/{folder}", env!("CARGO_MANIFEST_DIR")));
    }
    for argument in std::env::args().skip(1) {
        if let Some((name, location)) = argument.split_once('=') {
            models.register(name, location);
        }
    }
    let ctx = SessionContext::new();
    RerankFunctions::new(models).register(&ctx)?;
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/xquad.parquet");
    ctx.register_parquet("xquad", table, ParquetReadOptions::default()).await?;
    ctx.sql(COMPARISON).await?.show().await
}
