//! Ranks passages by query in SQL. See `sql.md`.

use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_rerank::{ModelRegistry, RerankFunctions};

/// The checkpoint used for `m3` if none is given: the bundled demonstration.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/udfs/models/tiny");

const TABLE: &str = "
    CREATE TABLE pairs AS SELECT * FROM (VALUES
        ('what is a panda?', 'hi'),
        ('what is a panda?', 'The giant panda is a bear species endemic to China.'),
        ('what is a panda?', 'Paris is the capital and most populous city of France.'),
        ('what is the capital of France?', 'The giant panda is a bear species endemic to China.'),
        ('what is the capital of France?', 'Paris is the capital and most populous city of France.')
    ) AS rows(query, passage)";

const RANKED: &str = "
    SELECT query, rank() OVER (PARTITION BY query ORDER BY score DESC) AS place, score, passage
    FROM (SELECT query, passage, rerank(query, passage, 'm3', {'normalize': true}) AS score FROM pairs)
    ORDER BY query, place";

const DETAILS: &str = "
    SELECT passage, details['score'] AS score, details['passage_tokens'] AS tokens, details['truncated'] AS cut
    FROM (SELECT passage, rerank_details(query, passage) AS details FROM pairs WHERE query LIKE '%panda%')";

#[tokio::main]
async fn main() -> Result<()> {
    // Examples run in the working tree, where `make onnxruntime` puts the library.
    datafusion_rerank::allow_onnxruntime_search();
    let models = ModelRegistry::default();
    models.register("m3", std::env::args().nth(1).unwrap_or_else(|| TINY.to_owned()));
    let ctx = SessionContext::new();
    RerankFunctions::new(models).register(&ctx)?;

    ctx.sql(TABLE).await?.collect().await?;
    ctx.sql(RANKED).await?.show().await?;

    // Defaults for calls that do not set them.
    ctx.sql("SET rerank.max_length = 12").await?.collect().await?;
    ctx.sql(DETAILS).await?.show().await
}
