//! `rerank.toml`, `rerank config`, completions and manual pages.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, starts_with};
use tempfile::tempdir;

use crate::support::{MODEL, fixture, rerank};

fn within(folder: &Path) -> Command {
    let mut command = rerank();
    command.env("ORT_DYLIB_PATH", onnxruntime());
    command.current_dir(folder);
    command
}

/// The library, which is found relative to the working directory.
fn onnxruntime() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".onnxruntime");
    let mut files = fs::read_dir(&folder).into_iter().flatten().map(|file| file.unwrap().path());
    let library = files.find(|file| file.file_name().unwrap().to_string_lossy().starts_with("libonnxruntime"));
    library.or_else(|| std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from)).unwrap()
}

fn printed(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn the_nearest_file_counts_and_the_command_line_comes_first() {
    let folder = tempdir().unwrap();
    let user = folder.path().join("user");
    fs::create_dir_all(user.join("rerank")).unwrap();
    let model = fixture(MODEL).display().to_string();
    fs::write(user.join("rerank/rerank.toml"), format!("model = '{model}'\nnormalize = true")).unwrap();
    let score = |command: &mut Command| -> f32 {
        let line = printed(command.args(["score", "what is panda?", "hi"]).env("XDG_CONFIG_HOME", &user));
        line.split('\t').next().unwrap().parse().unwrap()
    };
    let sigmoid = |logit: f32| 1.0 / (1.0 + (-logit).exp());
    let normalized = score(&mut within(folder.path()));
    // The file in this folder replaces the user's.
    fs::write(folder.path().join("rerank.toml"), format!("[score]\nmodel = '{model}'")).unwrap();
    let logit = score(&mut within(folder.path()));
    assert!((sigmoid(logit) - normalized).abs() < 1e-5, "{logit} and {normalized}");
    assert_eq!(score(within(folder.path()).arg("--config").arg(user.join("rerank/rerank.toml"))), normalized);
    assert_eq!(score(within(folder.path()).env("RERANK_CONFIG", user.join("rerank/rerank.toml"))), normalized);
    let gemma = fixture("tiny-gemma-reranker");
    let other = printed(within(folder.path()).args(["score", "what is panda?", "hi", "--model"]).arg(gemma));
    assert!(!other.starts_with(&logit.to_string()), "{other}");
}

#[test]
fn a_flag_of_a_file_is_turned_off_by_its_negation() {
    let folder = tempdir().unwrap();
    let scores = |settings: &str, flags: &[&str]| {
        fs::write(folder.path().join("rerank.toml"), settings).unwrap();
        printed(within(folder.path()).args(["score", "what is panda?", "hi"]).args(flags))
    };
    let (logit, normalized) = (scores("", &[]), scores("", &["--normalize"]));
    assert_ne!(logit, normalized);
    assert_eq!(scores("normalize = true", &[]), normalized);
    assert_eq!(scores("normalize = true", &["--no-normalize"]), logit);
    assert_eq!(scores("normalize = true", &["--no-normalize", "--normalize"]), normalized);
    assert_eq!(scores("[score]\nnormalize = true", &["--normalize", "--no-normalize"]), logit);

    // Both are never ignored in silence.
    let contradiction = ["score", "a", "b", "--option", "normalize=true", "--no-normalize"];
    let message = "--no-normalize and --option normalize contradict each other";
    rerank().args(contradiction).assert().code(2).stderr(contains(message));

    // The short help includes the everyday flags.
    for command in ["run", "score", "sql"] {
        rerank().args([command, "--help"]).assert().success().stdout(contains("--no-normalize"));
        rerank().args([command, "-h"]).assert().success().stdout(contains("--no-normalize").not());
    }
    let config = printed(within(folder.path()).arg("config"));
    assert!(config.contains("normalize = \"true\" # settings") && !config.contains("no-normalize"), "{config}");
}

#[test]
fn what_is_wrong_in_a_file_is_one_line() {
    let folder = tempdir().unwrap();
    let error = |settings: &str, line: &str| {
        fs::write(folder.path().join("rerank.toml"), settings).unwrap();
        let expected = starts_with("error: settings rerank.toml").and(contains(line));
        let assert = within(folder.path()).args(["score", "a", "b"]).assert().code(1).stderr(expected);
        let text = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
    };
    error("devise = 'cpu'", "devise: no command has such a setting; settings are adapter, batch-tokens, ");
    error("threads = 0", "invalid value '0' for '--threads <THREADS>': expected a whole number of at least 1");
    error("threads = ", "are no TOML");
    within(folder.path()).args(["--config", "absent.toml", "config"]).assert().code(1).stderr(contains("absent.toml"));
}

#[test]
fn the_configuration_can_be_printed_and_read_again() {
    let folder = tempdir().unwrap();
    fs::write(
        folder.path().join("rerank.toml"),
        "device = 'cuda:1'\n[run]\nunit-rows = 7\ncutoff-layers = [8, 16]\n[sql]\nmax-delay = \"20ms\"",
    )
    .unwrap();
    let config = printed(within(folder.path()).arg("config").env("RERANK_MODEL", "m3"));
    assert!(config.starts_with("# settings: rerank.toml\n\n[run]\n"), "{config}");
    for line in [
        "unit-rows = \"7\" # settings",
        "device = \"cuda:1\" # settings",
        "model = \"m3\" # RERANK_MODEL",
        "window-rows = \"8192\" # default",
        "max-delay = \"50ms\" # default",
        "max-delay = \"20ms\" # settings",
        "# threads is not set",
        "cutoff-layers = [\"8\", \"16\"] # settings",
    ] {
        assert!(config.lines().any(|found| found == line), "{line} in {config}");
    }
    fs::write(folder.path().join("printed.toml"), &config).unwrap();
    let again = printed(within(folder.path()).args(["--config", "printed.toml", "config"]));
    let values = |text: &str| -> Vec<String> {
        text.lines().skip(1).map(|line| line.split(" # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&config));
}

#[test]
fn shells_and_man_are_served() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        rerank().args(["completions", shell]).assert().success().stdout(contains("batch-tokens"));
    }
    let folder = tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    rerank().arg("manual").arg(&pages).assert().success().stdout("");
    let page = fs::read_to_string(pages.join("rerank-run.1")).unwrap();
    assert!(page.contains("unit\\-rows") && page.contains(".TH rerank-run 1"), "{page}");
    assert!(pages.join("rerank.1").exists() && pages.join("rerank-model-inspect.1").exists());
}
