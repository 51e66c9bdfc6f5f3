//! Converts arguments to the library's options.

use anyhow::{Result, bail};
use datafusion_rerank::{EngineOptions, OptionDeclaration, ScoreOptions};

use crate::args::{EngineArgs, GraphOptionArgs, OptionFlags};

/// The scoring options that were given. Every value passes the library's own checks, whichever flag set it.
pub(super) fn score_options<const GRAPH_ONLY: bool>(args: &OptionFlags<GRAPH_ONLY>) -> Result<ScoreOptions> {
    let mut options = ScoreOptions::default();
    for (name, value) in &args.flags {
        options.set(name, value)?;
    }
    for (name, value) in &args.named {
        if ScoreOptions::declaration(name).is_some_and(|option| option.value(&options).is_some()) {
            bail!("option {name}: it was given twice");
        }
        options.set_text(name, value)?;
    }
    Ok(options)
}

/// Like [`score_options`], for work on the graph alone.
pub(super) fn graph_options(args: &GraphOptionArgs) -> Result<ScoreOptions> {
    let in_graph = |name: &str| ScoreOptions::declaration(name).is_some_and(|option| option.in_graph);
    if let Some((name, _)) = args.named.iter().find(|(name, _)| !in_graph(name)) {
        let graph = ScoreOptions::declarations().iter().filter(|option| option.in_graph);
        let names: Vec<&str> = graph.map(|option: &OptionDeclaration| option.name).collect();
        bail!(
            "option {name}: it changes the text, not the graph; give it when scoring (the graph has {})",
            names.join(", ")
        );
    }
    score_options(args)
}

/// Where and how models run.
pub(super) fn engine_options(args: &EngineArgs) -> EngineOptions {
    let mut options = EngineOptions::default();
    options.devices = args.device.clone();
    options.threads = args.threads;
    options.batch_tokens = args.batch_tokens;
    options.cache.clone_from(&args.cache);
    options
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};
    use datafusion_rerank::Cutoffs;
    use serde_json::json;

    use super::*;
    use crate::args::OptionArgs;

    fn parse(line: &[&str]) -> OptionArgs {
        let command = OptionArgs::augment_args(Command::new("rerank").no_binary_name(true));
        OptionArgs::from_arg_matches(&command.get_matches_from(line)).unwrap()
    }

    #[test]
    fn every_flag_reaches_the_options() {
        let args = parse(&[
            "--normalize",
            "--max-length=256",
            "--query-max-length=64",
            "--query-instruction=q",
            "--passage-instruction=p",
            "--prompt=?",
            "--precision=int8",
            "--cutoff-layers=8,16",
            "--compress-ratio=2",
            "--compress-layers=4",
            "--option=heads=by_layer",
        ]);
        assert_eq!(
            score_options(&args).unwrap().to_json(),
            json!({
                "precision": "int8", "normalize": true, "max_length": 256, "query_max_length": 64, "query_instruction": "q",
                "passage_instruction": "p", "prompt": "?", "cutoff_layers": [8, 16], "compress_ratio": 2,
                "compress_layers": [4], "heads": "by_layer",
            })
        );
    }

    #[test]
    fn one_cutoff_layer_is_not_a_list() {
        let options = score_options(&parse(&["--cutoff-layers=8"])).unwrap();
        assert_eq!(options.cutoff_layers, Some(Cutoffs::One(8)));
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        for (line, name) in [
            (["--max-length=4", "--option=max_length=8"], "max_length"),
            (["--option=compress_layers=4", "--option=compress_layer=8"], "compress_layer"),
        ] {
            let error = score_options(&parse(&line)).unwrap_err().to_string();
            assert_eq!(error, format!("option {name}: it was given twice"));
        }
    }

    #[test]
    fn an_export_refuses_what_it_cannot_keep() {
        let named = vec![("max_length".to_owned(), "8".to_owned())];
        let error = graph_options(&GraphOptionArgs { flags: Vec::new(), named }).unwrap_err().to_string();
        assert!(error.starts_with("option max_length: it changes the text, not the graph"), "{error}");
    }
}
