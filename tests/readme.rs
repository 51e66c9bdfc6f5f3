//! Follows the README and the pages of `examples/` literally: their `sh` blocks run as they are, and the output is
//! compared with the `text` block after each.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use tempfile::TempDir;

use crate::support::fixture;
use crate::support::hub::{HubServer, Repository};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tables::write;

/// Matches anything: any lines if it is alone on a line, otherwise any part of a line.
const GAP: &str = "...";

/// The allowed difference between a printed number and the shown one: processors sum in different orders.
const TOLERANCE: f64 = 0.01;

/// The pages to follow, each from top to bottom on a fresh machine.
const PAGES: &[&str] = &[
    "README.md",
    "examples/job.md",
    "examples/models.md",
    "examples/settings.md",
    "examples/sql.md",
    "examples/etl.md",
];

/// Followed by a test of its own, because of its ports.
const CLUSTER_PAGE: &str = "examples/cluster.md";

/// The picture at the top of the README.
const PICTURE: &str = "examples/demo.svg";
const DEMONSTRATION: &str = "make demo";

/// A fenced block.
struct Block<'a> {
    line: usize,
    language: &'a str,
    /// What it needs that a test does not provide.
    needs: Option<&'a str>,
    text: String,
}

impl Block<'_> {
    /// Whether it contains commands that a test can run.
    fn runs(&self) -> bool {
        self.language == "sh" && self.needs.is_none()
    }
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut inside = false;
    for (index, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(info) => {
                inside = true;
                let language = info.split(' ').next().unwrap_or_default();
                let needs = info.split_once("needs=").map(|(_, what)| what);
                blocks.push(Block { line: index + 1, language, needs, text: String::new() });
            }
            None if inside => writeln!(blocks.last_mut().unwrap().text, "{line}").unwrap(),
            None => {}
        }
    }
    blocks
}

// Expected and actual output.

/// Whether `actual` matches `expected`: the same lines in the same order, except for gaps.
fn matches<T>(expected: &[T], actual: &[T], is_gap: &impl Fn(&T) -> bool, same: &impl Fn(&T, &T) -> bool) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if is_gap(first) => {
            (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..], is_gap, same))
        }
        Some((first, rest)) => {
            actual.split_first().is_some_and(|(found, left)| same(first, found) && matches(rest, left, is_gap, same))
        }
    }
}

fn same_text(expected: &str, actual: &str) -> bool {
    let lines = |text: &str| -> Vec<String> { text.trim_end().lines().map(str::to_owned).collect() };
    matches(&lines(expected), &lines(actual), &|line| line == GAP, &|a, b| same_line(a, b))
}

/// Compares two lines. Columns are as wide as their longest value, so spaces and rules may vary with the last digits of
/// a score.
fn same_line(expected: &str, actual: &str) -> bool {
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    matches(&words(expected), &words(actual), &|word| word == GAP, &|a, b| same_word(a, b))
}

fn same_word(expected: &str, actual: &str) -> bool {
    let number = |word: &str| word.contains('.').then(|| word.parse::<f64>().ok())?;
    let rule = |word: &str| {
        let is_rule = word.len() > 1 && word.chars().all(|c| matches!(c, '+' | '-'));
        is_rule.then(|| word.matches('+').count())
    };
    if let (Some(a), Some(b)) = (number(expected), number(actual)) {
        return (a - b).abs() <= TOLERANCE;
    }
    if let (Some(a), Some(b)) = (rule(expected), rule(actual)) {
        return a == b;
    }
    let characters = |word: &str| -> Vec<char> { word.replace(GAP, "\0").chars().collect() };
    matches(&characters(expected), &characters(actual), &|c| *c == '\0', &|a, b| a == b)
}

// The environment.

/// A machine as the commands see it: a fresh clone after `cargo build`, with the test's own hub and buckets.
struct Machine {
    folder: TempDir,
    hub: HubServer,
    s3: S3Server,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), hub: HubServer::start(), s3: S3Server::start() };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["Makefile", ".ci", ".onnxruntime", "examples", "models", "tests"] {
            std::os::unix::fs::symlink(root.join(name), machine.at(name)).unwrap();
        }
        for profile in ["debug", "release"] {
            let folder = machine.at("target").join(profile);
            fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rerank"), folder.join("rerank")).unwrap();
        }
        // Small models instead of the published ones.
        machine.hub.put("BAAI/bge-reranker-v2-m3", "main", &Repository::of(&root.join("udfs/models/tiny")));
        machine.hub.put("BAAI/bge-reranker-v2-gemma", "main", &Repository::of(&fixture("tiny-gemma-reranker")));
        // Files that the reader is assumed to have.
        let pairs = pairs();
        for name in ["pairs.parquet", "pairs/1.parquet", "pairs/2.parquet"] {
            write(&machine.at(name), &pairs);
        }
        for name in ["1.parquet", "2.parquet"] {
            let key = format!("pairs/{name}");
            machine.s3.put(&key, fs::read(machine.at(&key)).unwrap());
        }
        let languages: [(&str, ArrayRef); 2] = [
            ("lang", Arc::new(StringArray::from(vec!["en", "zh"]))),
            ("name", Arc::new(StringArray::from(vec!["English", "Chinese"]))),
        ];
        write(&machine.at("languages.parquet"), &RecordBatch::try_from_iter(languages).unwrap());
        assert_eq!(BUCKET, "bucket", "the pages call it so");
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The output of commands, in order.
    #[track_caller]
    fn run(&self, commands: &str, place: &str) -> String {
        let mut path = std::ffi::OsString::from(self.at("target/release"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{commands}")]).current_dir(self.folder.path());
        let of_the_caller = [
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "MAKEFLAGS",
            "MAKELEVEL",
            "MFLAGS",
            "RERANK_CONFIG",
            "RERANK_MODEL",
            "RUST_LOG",
        ];
        for variable in of_the_caller {
            command.env_remove(variable);
        }
        // Built already.
        command.env("CARGO", "true").env("PATH", path).env("NO_PROXY", "127.0.0.1");
        command.env("RERANK_CACHE", self.at("cache")).env("XDG_CONFIG_HOME", self.at("config"));
        command.env("HF_HOME", self.at("huggingface")).env("HF_ENDPOINT", self.hub.endpoint());
        let output = command.envs(self.s3.environment()).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{place}:\n{commands}\n{printed}");
        printed
    }
}

/// A table with the columns that the pages' queries name.
fn pairs() -> RecordBatch {
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..3))),
        ("lang", Arc::new(StringArray::from(vec!["en", "en", "zh"]))),
        ("query", Arc::new(StringArray::from(vec!["what is a panda?"; 3]))),
        ("passage", Arc::new(StringArray::from(vec!["The giant panda is a bear.", "hi", "a panda"]))),
        ("relevant", Arc::new(BooleanArray::from(vec![true, false, false]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn root(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The results of following a page.
#[derive(Default)]
struct Followed {
    ran: usize,
    compared: usize,
    pictured: bool,
}

/// Follows a page from top to bottom.
#[track_caller]
fn follow(name: &str) -> Followed {
    let (page, machine) = (root(name), Machine::new());
    let mut followed = Followed::default();
    // The output of the previous block, if it contained commands that ran.
    let mut printed: Option<String> = None;
    for Block { line, language, needs, text } in blocks(&page) {
        let place = format!("{name}, line {line}");
        match (language, needs, printed.take()) {
            ("sh", None, _) => {
                let output = machine.run(&text, &place);
                if text.trim() == DEMONSTRATION {
                    assert_pictured(&output);
                    followed.pictured = true;
                }
                printed = Some(output);
                followed.ran += 1;
            }
            ("sh", Some(needs), _) => println!("{place}: not run, needs {needs}"),
            ("text", None, Some(printed)) => {
                assert!(same_text(&text, &printed), "{place} shows\n{text}\nbut what is printed is\n{printed}");
                followed.compared += 1;
            }
            // Saves settings to the file that the program looks for.
            ("toml", None, _) => fs::write(machine.at("rerank.toml"), text).unwrap(),
            _ => {}
        }
    }
    followed
}

#[test]
#[cfg(unix)]
fn every_block_runs_and_prints_what_is_shown() {
    let (mut ran, mut compared, mut pictured) = (0, 0, false);
    for name in PAGES {
        let followed = follow(name);
        assert!(followed.ran > 0, "no block of {name} runs");
        ran += followed.ran;
        compared += followed.compared;
        pictured |= followed.pictured;
    }
    assert!(ran >= 16 && compared >= 8, "{ran} blocks ran, {compared} were compared");
    assert!(pictured, "no block runs {DEMONSTRATION} alone");
}

#[test]
fn no_page_is_left_out() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap() {
        let name = format!("examples/{}", entry.unwrap().file_name().to_str().unwrap());
        let is_page = Path::new(&name).extension().is_some_and(|extension| extension == "md");
        if is_page && name != CLUSTER_PAGE && !PAGES.contains(&name.as_str()) {
            let runs = blocks(&root(&name)).iter().any(Block::runs);
            assert!(!runs, "{name} has commands that no test runs: add it to PAGES, or say what they need");
        }
    }
}

/// Replaces the ports of the page, which may not be free.
#[test]
#[cfg(all(unix, feature = "cluster"))]
fn every_block_of_the_page_on_clusters_runs() {
    let ports = (2..6).map(|tens| format!("2{:02}{tens}", std::process::id() % 100)).find(|ports| {
        (0..10).all(|port| {
            let port: u16 = format!("{ports}{port}").parse().unwrap();
            std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
        })
    });
    let (page, ports, machine) = (root(CLUSTER_PAGE), ports.unwrap(), Machine::new());
    let mut ran = 0;
    for Block { line, text, .. } in blocks(&page).into_iter().filter(Block::runs) {
        // Commands without the option use the default port.
        let commands = text.replace("cluster scheduler &", "cluster scheduler --port 50050 &");
        let executor = "cluster executor --port";
        let commands =
            commands.replace(executor, &format!("{} --scheduler df://127.0.0.1:50050 --port", &executor[..16]));
        let commands = format!("trap 'kill $(jobs -p)' EXIT\n{}", commands.replace("5005", &ports));
        machine.run(&commands, &format!("{CLUSTER_PAGE}, line {line}"));
        ran += 1;
    }
    assert!(ran > 0);
}

/// Asserts that the picture shows the lines that the demonstration printed, except for timings.
#[track_caller]
fn assert_pictured(printed: &str) {
    let shown = lines_of(&root(PICTURE));
    let is_measured = |line: &str| line.contains(" pairs/s, ") || line.contains("; model loaded in ");
    for line in printed.lines().filter(|line| !line.is_empty() && !is_measured(line)) {
        assert!(shown.iter().any(|shown| same_line(shown, line)), "{PICTURE} lacks\n{line}\nit shows\n{shown:#?}");
    }
}

/// The lines of text in a picture: its text elements, grouped by height.
fn lines_of(picture: &str) -> Vec<String> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for element in picture.split("<text ").skip(1) {
        let height = element.split_once(" y=\"").unwrap().1.split('"').next().unwrap();
        let (_, content) = element.split("</text>").next().unwrap().split_once('>').unwrap();
        let mut content = content.to_owned();
        for (entity, character) in
            [("&#160;", " "), ("&#x27;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
        {
            content = content.replace(entity, character);
        }
        match lines.last_mut().filter(|(last, _)| last == height) {
            Some((_, line)) => line.push_str(&content),
            None => lines.push((height.to_owned(), content)),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

#[test]
fn output_is_the_same_up_to_rounding_and_gaps() {
    let printed = "a note\n+---+--------+\n| a | 3.0144 |\n+---+--------+\n1,200 rows in 3.1 s\n/tmp/x/y\n";
    for shown in [
        printed,
        "a note\n+---+-----------+\n| a | 3.0144057 |\n+---+-----------+\n1,200 rows ... s\n.../y",
        "...\n| a | 3.02 |\n...",
        "a note\n...\n1,200 rows in ...\n...\n",
    ] {
        assert!(same_text(shown, printed), "{shown}");
    }
    for shown in ["a note", "...\n| a | 3.03 |\n...", "...\n| b | 3.0144 |\n...", "a ...\n/tmp/x/y", "...\n.../z", ""] {
        assert!(!same_text(shown, printed), "{shown}");
    }
    assert!(!same_line("+---+", "+---+---+") && !same_line("1", "2"));
}

/// Paths in the order in which the contributors' page names them are relative to the folder that its section names.
#[test]
fn every_file_that_contributing_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let mut named = 0;
    for section in page.split("\n## ") {
        let base =
            ["udfs/src/", "src/"].into_iter().find(|base| section.contains(&format!("Paths are below `{base}`")));
        let Some(base) = base else { continue };
        for path in section
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.ends_with('/') || Path::new(name).extension().is_some_and(|end| end == "rs"))
        {
            if path == base || path.starts_with("tests/") {
                continue;
            }
            assert!(root.join(base).join(path).exists(), "{base}{path}");
            named += 1;
        }
    }
    assert!(named > 80, "{named}");
}
