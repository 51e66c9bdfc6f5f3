//! Opens a checkpoint of your own and inspects it. See `custom_model.md`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;

use arrow::array::StringArray;
use datafusion_rerank::{EngineOptions, Reranker, ScoreOptions};

/// The checkpoint used if none is given: a tiny one with random weights, for a quick look.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-minicpm-layerwise-reranker");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Examples run in the working tree, where `make onnxruntime` puts the library.
    datafusion_rerank::allow_onnxruntime_search();
    let checkpoint = std::env::args().nth(1).unwrap_or_else(|| TINY.to_owned());

    // The family comes from config.json, so fine-tuned checkpoints and other sizes open alike.
    let reranker = Reranker::open(Path::new(&checkpoint), &EngineOptions::default())?;
    println!("{checkpoint} is of the family {}", reranker.family());
    println!("its options: {}", reranker.family().options().join(", "));

    // The model's exact input tokens.
    println!("token ids of a pair: {:?}", reranker.token_ids("what is a panda?", "a bear")?);

    let queries = StringArray::from(vec!["what is a panda?"; 2]);
    let passages = StringArray::from(vec!["hi", "The giant panda is a bear species endemic to China."]);
    println!("logits: {:?}", reranker.score(&queries, &passages)?.values());

    // Options create another view of the same model. An option that the family does not have is refused here, not
    // later.
    let options = ScoreOptions::default().with_normalize(true).with_max_length(128);
    println!("normalized: {:?}", reranker.with_options(&options)?.score(&queries, &passages)?.values());
    if let Some((first, last, _)) = reranker.model().shape().and_then(|shape| shape.exits) {
        let options = ScoreOptions::default().with_cutoff_layers([first, last]);
        let scores = reranker.with_options(&options)?.score_rows(&queries, &passages)?;
        println!("at layers {first} and {last}, in one pass: {:?}", scores.to_array());
    }

    // A standard ONNX model for other tools.
    let folder = std::env::temp_dir().join("exported-reranker");
    reranker.model().export(&folder)?;
    println!("exported to {}", folder.display());
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
