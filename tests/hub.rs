//! Downloads from the hub, and the cache: the program as a process, against the test's own hub.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use indicatif::HumanBytes;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::hub::{Access, HubFaults, HubServer, Repository, TOKEN, git_id, is_large, sha256};
use crate::support::{MODEL, files, fixture, lines};

/// The id of `m3` on the hub.
const M3: &str = "BAAI/bge-reranker-v2-m3";

/// The files that the tiny checkpoint needs.
const NEEDED: [&str; 5] =
    ["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"];

/// An address where nothing listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A machine with an empty home, and a hub.
struct Machine {
    hub: HubServer,
    home: TempDir,
}

impl Machine {
    /// The hub has the tiny checkpoint as `m3`, among files in other formats.
    fn new() -> (Self, String) {
        let machine = Self { hub: HubServer::start(), home: tempfile::tempdir().unwrap() };
        let commit = machine.hub.put(M3, "main", &tiny());
        (machine, commit)
    }

    /// The program, run on this machine.
    fn rerank(&self, args: &[&str]) -> Command {
        let mut command = Command::from_std(self.process(args));
        command.timeout(Duration::from_mins(2));
        command
    }

    /// The same, as a process that runs beside the test.
    fn process(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rerank"));
        command.env_remove("RERANK_MODEL").env_remove("RUST_LOG");
        let user_variables = [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN",
            "HF_HUB_OFFLINE",
            "XDG_CACHE_HOME",
        ];
        for variable in user_variables {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HOME", self.at("huggingface"));
        command.env("RERANK_CACHE", self.at("cache")).env("NO_PROXY", "127.0.0.1").args(args);
        command
    }

    fn pull(&self, model: &str) -> Command {
        self.rerank(&["model", "pull", model])
    }

    /// The same, offline: no hub can be reached.
    fn offline(&self, args: &[&str]) -> Command {
        let mut command = self.rerank(args);
        command.env("HF_ENDPOINT", NOWHERE).env("HF_HUB_OFFLINE", "1");
        command
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// The cache folder of `m3`.
    fn cached(&self) -> PathBuf {
        self.at("huggingface/hub/models--BAAI--bge-reranker-v2-m3")
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.cached().join("snapshots").join(commit)
    }
}

/// Asserts that the program fails with exactly this line.
#[track_caller]
fn assert_fails(mut command: Command, line: &str) {
    let output = command.assert().code(1).stdout("").get_output().stderr.clone();
    assert_eq!(String::from_utf8(output).unwrap(), format!("error: {line}\n"));
}

/// The tiny checkpoint, along with other files that are usual in repositories.
fn tiny() -> Repository {
    Repository::of(&fixture(MODEL))
        .with("README.md", "# A model")
        .with(".gitattributes", "*.safetensors filter=lfs")
        .with("pytorch_model.bin", "the same weights once more")
        .with("model.onnx", "and once more")
        .with("sentencepiece.bpe.model", "the tokenizer once more")
}

/// The program's standard output, and its progress lines.
#[track_caller]
fn run(command: &mut Command) -> (String, Vec<String>) {
    let assert = command.assert().success();
    let [data, notes] =
        [&assert.get_output().stdout, &assert.get_output().stderr].map(|bytes| String::from_utf8_lossy(bytes));
    (data.into_owned(), notes.lines().map(str::to_owned).collect())
}

/// The requests for large files as SHA-256 and range, except those that only ask for their size.
fn downloads(requests: &[String]) -> Vec<&str> {
    requests.iter().filter_map(|request| request.strip_prefix("GET /cdn/")).collect()
}

/// The names of all requested files.
fn asked_for(requests: &[String]) -> BTreeSet<&str> {
    let resolved = requests.iter().filter(|request| request.contains("/resolve/"));
    resolved.map(|request| request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap()).collect()
}

fn content(name: &str) -> Vec<u8> {
    std::fs::read(fixture(MODEL).join(name)).unwrap()
}

/// Asserts that a snapshot has the needed files of the tiny checkpoint, linked as Python links them, and no others.
#[track_caller]
fn assert_is_tiny(snapshot: &Path) {
    assert_eq!(files(snapshot), NEEDED);
    for name in NEEDED {
        let content = content(name);
        assert!(std::fs::read(snapshot.join(name)).unwrap() == content, "{name} has other content");
        if cfg!(unix) {
            let blob = if is_large(name) { sha256(&content) } else { git_id(&content, false) };
            assert_eq!(std::fs::read_link(snapshot.join(name)).unwrap(), Path::new("../../blobs").join(blob));
        }
    }
}

// Downloads.

#[test]
fn a_model_that_was_pulled_is_scored_with_offline() {
    let (machine, commit) = Machine::new();
    let (printed, notes) = run(&mut machine.pull("m3"));
    let snapshot = machine.snapshot(&commit);
    assert_eq!(printed, format!("{}\n", snapshot.display()));
    let size = HumanBytes(NEEDED.iter().map(|name| content(name).len() as u64).sum());
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(notes[0], format!("fetching 5 files of {M3}, family m3, commit {}: {size}", &commit[..7]));
    assert!(notes[1].starts_with(&format!("fetched {size} in ")), "{notes:?}");
    assert_eq!(
        notes[2],
        "score with it: rerank score --model m3 \"what is a panda?\" \"hi\" \"The giant panda is a bear.\""
    );
    assert_is_tiny(&snapshot);
    assert_eq!(std::fs::read_to_string(machine.cached().join("refs/main")).unwrap(), commit);
    let requests = machine.hub.take_requests();
    assert_eq!(asked_for(&requests), NEEDED.into(), "{requests:#?}");
    assert_eq!(downloads(&requests).len(), 2, "{requests:#?}");

    let texts = ["score", "--json", "what is panda?", "hi", "The giant panda is a bear.", "--model"];
    let score = |model: &str| lines(machine.offline(&texts).arg(model));
    assert_eq!(score("m3"), score(fixture(MODEL).to_str().unwrap()));
    assert_eq!(score(M3), score("m3"));
    assert_eq!(machine.hub.take_requests(), Vec::<String>::new());
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let (machine, commit) = Machine::new();
    run(&mut machine.pull("m3"));
    machine.hub.take_requests();
    let (printed, notes) = run(&mut machine.pull(M3));
    assert_eq!(printed, format!("{}\n", machine.snapshot(&commit).display()));
    assert_eq!(notes[0], format!("nothing to fetch of {M3}, family m3, commit {}: the cache has it", &commit[..7]));
    let api = format!("GET /api/models/{M3}");
    assert_eq!(machine.hub.take_requests(), [format!("{api}/revision/main"), format!("{api}/tree/{commit}")]);
    let (printed, _) = run(&mut machine.offline(&["model", "pull", "m3"]));
    assert_eq!(printed, format!("{}\n", machine.snapshot(&commit).display()));

    // A missing file, and a broken link.
    std::fs::remove_file(machine.snapshot(&commit).join("config.json")).unwrap();
    std::fs::remove_file(machine.cached().join("blobs").join(sha256(&content("model.safetensors")))).unwrap();
    let (_, notes) = run(&mut machine.pull("m3"));
    assert!(notes[0].starts_with("fetching 2 files of "), "{notes:?}");
    assert_is_tiny(&machine.snapshot(&commit));
    assert_eq!(downloads(&machine.hub.take_requests()), [sha256(&content("model.safetensors"))]);
}

#[cfg(unix)]
#[test]
fn what_python_fetched_is_not_fetched_again() {
    let (machine, commit) = Machine::new();
    // The cache as huggingface_hub 2.4 leaves it, with an additional file that this program does not use and without
    // weights.
    let (blobs, snapshot) = (machine.cached().join("blobs"), machine.snapshot(&commit));
    for folder in [&blobs, &snapshot, &machine.cached().join("refs"), &machine.cached().join("trees")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let put = |name: &str| {
        let content = content(name);
        let blob = if is_large(name) { sha256(&content) } else { git_id(&content, false) };
        std::fs::write(blobs.join(&blob), content).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), snapshot.join(name)).unwrap();
    };
    for name in ["config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"] {
        put(name);
    }
    std::fs::write(machine.cached().join("refs/main"), &commit).unwrap();
    std::fs::write(machine.cached().join("trees").join(format!("{commit}.json")), "[]").unwrap();
    std::fs::write(machine.at("huggingface/hub/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    let (_, notes) = run(&mut machine.pull("m3"));
    assert!(notes[0].starts_with("fetching 1 file of "), "{notes:?}");
    assert_eq!(downloads(&machine.hub.take_requests()), [sha256(&content("model.safetensors"))]);

    // The same with the weights.
    for folder in [&blobs, &snapshot] {
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::create_dir(folder).unwrap();
    }
    NEEDED.into_iter().for_each(put);
    let (printed, notes) = run(&mut machine.pull("m3"));
    assert_eq!(printed, format!("{}\n", snapshot.display()));
    assert!(notes[0].starts_with("nothing to fetch of "), "{notes:?}");
    let requests = machine.hub.take_requests();
    assert!(requests.iter().all(|request| request.starts_with("GET /api/models/")), "{requests:#?}");
    assert_is_tiny(&snapshot);
}

#[test]
fn revisions_share_what_they_have_in_common() {
    let (machine, main) = Machine::new();
    let mut config: Value = serde_json::from_slice(&content("config.json")).unwrap();
    config["transformers_version"] = json!("another");
    let other = machine.hub.put(M3, "refs/pr/7", &tiny().with("config.json", config.to_string()));
    run(&mut machine.pull("m3"));
    machine.hub.take_requests();
    let (printed, notes) = run(&mut machine.pull("m3@refs/pr/7"));
    let snapshot = machine.snapshot(&other);
    assert_eq!(printed, format!("{}\n", snapshot.display()));
    // The name does not resolve to it.
    assert!(
        notes[2].starts_with(&format!("score with it: rerank score --model '{}' ", snapshot.display())),
        "{notes:?}"
    );
    assert_eq!(downloads(&machine.hub.take_requests()), Vec::<&str>::new());
    for (reference, commit) in [("main", &main), ("refs/pr/7", &other)] {
        assert_eq!(std::fs::read_to_string(machine.cached().join("refs").join(reference)).unwrap(), *commit);
    }
    // A commit by its id needs no reference.
    run(&mut machine.pull(&format!("{M3}@{main}")));
    assert_eq!(files(&machine.cached().join("refs")), ["main", "refs/pr/7"]);
}

#[test]
fn of_weights_in_several_files_the_index_decides() {
    let weights = content("model.safetensors");
    let tensors = SafeTensors::deserialize(&weights).unwrap();
    let mut repository =
        tiny().without("model.safetensors").with("model-00003-of-00003.safetensors", "of another model");
    let mut index = serde_json::Map::new();
    for (shard, name) in
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].into_iter().enumerate()
    {
        let part = tensors.iter().filter(|(tensor, _)| tensor.len() % 2 == shard);
        let part: Vec<_> = part.inspect(|(tensor, _)| drop(index.insert((*tensor).to_owned(), json!(name)))).collect();
        repository = repository.with(name, safetensors::serialize(part, None).unwrap());
    }
    let index = json!({"metadata": {}, "weight_map": index}).to_string();
    let repository = repository.with("model.safetensors.index.json", index);
    let (machine, _) = Machine::new();
    let commit = machine.hub.put("org/sharded", "main", &repository);
    let (printed, _) = run(&mut machine.pull("org/sharded"));
    let snapshot = machine.at("huggingface/hub/models--org--sharded/snapshots").join(commit);
    assert_eq!(printed, format!("{}\n", snapshot.display()));
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files(&snapshot), expected);
    let texts = ["score", "what is panda?", "hi", "The giant panda is a bear.", "--model"];
    let score = |model: &str| lines(machine.offline(&texts).arg(model));
    assert_eq!(score("org/sharded"), score(fixture(MODEL).to_str().unwrap()));
}

#[test]
fn quiet_means_the_folder_and_nothing_else() {
    let (machine, commit) = Machine::new();
    let (printed, notes) = run(machine.pull("m3").arg("--quiet"));
    assert_eq!((printed, notes), (format!("{}\n", machine.snapshot(&commit).display()), Vec::new()));
}

// Failures during downloads.

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { cuts: 3, ..HubFaults::default() });
    run(&mut machine.pull("m3"));
    assert_is_tiny(&machine.snapshot(&commit));
    let requests = machine.hub.take_requests();
    let [weights, tokenizer] =
        ["model.safetensors", "tokenizer.json"].map(|name| (sha256(&content(name)), content(name).len()));
    let mut expected: Vec<String> = Vec::new();
    let mut fetched = downloads(&requests);
    assert_eq!(fetched.len(), 5, "{fetched:?}");
    for (hash, length) in [weights, tokenizer] {
        // The first requests ask for whole files. The later ones resume after half of the range.
        let ranges: Vec<&str> = fetched.iter().filter_map(|request| request.strip_prefix(hash.as_str())).collect();
        let mut from = 0;
        for range in ranges {
            expected.push(if from == 0 { hash.clone() } else { format!("{hash} bytes={from}-{}", length - 1) });
            assert_eq!(format!("{hash}{range}"), *expected.last().unwrap());
            from += (length - from) / 2;
        }
    }
    fetched.sort_unstable();
    expected.sort_unstable();
    assert_eq!(fetched, expected);
    assert_eq!(files(&machine.cached().join("blobs")).len(), NEEDED.len(), "nothing unfinished is left");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { busy: 2, ..HubFaults::default() });
    let (_, notes) = run(&mut machine.pull("m3"));
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_is_tiny(&machine.snapshot(&commit));
}

#[test]
fn a_hub_that_knows_no_ranges_sends_it_all_again() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { cuts: 1, ignores_ranges: true, ..HubFaults::default() });
    run(&mut machine.pull("m3"));
    assert_is_tiny(&machine.snapshot(&commit));
}

#[test]
fn what_keeps_breaking_off_is_an_error_and_kept() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { cuts: 1000, ..HubFaults::default() });
    let output = machine.pull("m3").assert().code(1).stdout("").get_output().stderr.clone();
    let output = String::from_utf8(output).unwrap();
    let error = output.lines().last().unwrap();
    assert!(error.starts_with("error: cannot fetch ") && error.ends_with("; the same command resumes it"), "{error}");
    assert!(error.contains(&format!("the download from {} broke off: ", machine.hub.endpoint())), "{error}");
    assert!(!machine.cached().join("refs/main").exists(), "the name stands for nothing yet");
    let kept = files(&machine.cached().join("blobs"));
    assert!(kept.iter().any(|name| name.ends_with(".incomplete")), "{kept:?}");
    machine.hub.set_faults(HubFaults::default());
    machine.hub.take_requests();
    run(&mut machine.pull("m3"));
    assert_is_tiny(&machine.snapshot(&commit));
    assert!(downloads(&machine.hub.take_requests()).iter().all(|request| request.contains(" bytes=")));
}

#[cfg(unix)]
#[test]
fn a_pull_that_was_stopped_goes_on_where_it_was() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { stalls: 2, ..HubFaults::default() });
    let mut command = machine.process(&["model", "pull", "m3"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let halves: u64 = ["model.safetensors", "tokenizer.json"].iter().map(|name| content(name).len() as u64 / 2).sum();
    let start = Instant::now();
    let unfinished = || {
        let blobs = machine.cached().join("blobs");
        let unfinished = files(&blobs).into_iter().filter(|name| name.ends_with(".incomplete"));
        unfinished.map(|name| std::fs::metadata(blobs.join(name)).map_or(0, |meta| meta.len())).sum::<u64>()
    };
    while unfinished() < halves {
        assert!(start.elapsed() < Duration::from_mins(1), "{} bytes have come in a minute", unfinished());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{said}");
    let last = "error: terminated; what was fetched is kept; the same command resumes it";
    assert_eq!(said.lines().last(), Some(last));
    assert_eq!(output.stdout, b"");

    machine.hub.set_faults(HubFaults::default());
    machine.hub.take_requests();
    let (_, notes) = run(&mut machine.pull("m3"));
    let fetched = notes.iter().find(|note| note.starts_with("fetched ")).unwrap();
    assert_is_tiny(&machine.snapshot(&commit));
    let requests = machine.hub.take_requests();
    let ranges = downloads(&requests);
    assert!(ranges.len() == 2 && ranges.iter().all(|range| range.contains(" bytes=")), "{ranges:?}");
    // Any of the small files may have been downloaded the first time.
    let sizes =
        |large: bool| NEEDED.iter().filter(move |name| is_large(name) == large).map(|name| content(name).len() as u64);
    let mut left = vec![sizes(true).sum::<u64>() - halves];
    for size in sizes(false) {
        left.extend(left.clone().iter().map(|left| left + size));
    }
    let is_one = |left: &u64| fetched.starts_with(&format!("fetched {} in ", HumanBytes(*left)));
    assert!(left.iter().any(is_one), "{fetched}, {left:?}");
}

#[test]
fn contents_are_checked() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { damages: 1000, ..HubFaults::default() });
    let output = machine.pull("m3").assert().code(1).stdout("").get_output().stderr.clone();
    let output = String::from_utf8(output).unwrap();
    let error = output.lines().last().unwrap();
    let expected = ["model.safetensors", "tokenizer.json"].map(|name| {
        let id = git_id(&content(name), true);
        format!("error: cannot fetch {name}: what was fetched is not what the hub lists (git id {id}); try again")
    });
    assert!(expected.iter().any(|expected| error == expected), "{error}");
    let kept = files(&machine.cached());
    assert!(!kept.iter().any(|name| is_large(name)), "{kept:?}");

    // The part left by an earlier run is damaged, so the file is downloaded again.
    machine.hub.set_faults(HubFaults::default());
    let part =
        machine.cached().join("blobs").join(format!("{}.incomplete", git_id(&content("model.safetensors"), true)));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, vec![7; 1000]).unwrap();
    run(&mut machine.pull("m3"));
    assert_is_tiny(&machine.snapshot(&commit));
}

#[test]
fn two_at_once_fetch_it_once() {
    let (machine, commit) = Machine::new();
    machine.hub.set_faults(HubFaults { delay: Duration::from_millis(500), ..HubFaults::default() });
    let pulls = [(); 2]
        .map(|()| machine.process(&["model", "pull", "m3"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn());
    for pull in pulls {
        let output = pull.unwrap().wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", machine.snapshot(&commit).display()));
    }
    assert_is_tiny(&machine.snapshot(&commit));
    let requests = machine.hub.take_requests();
    assert_eq!(requests.iter().filter(|request| request.contains("/revision/")).count(), 2);
    assert_eq!(downloads(&requests).len(), 2, "{requests:#?}");
}

// Models that cannot be downloaded.

#[test]
fn a_hub_that_refuses_is_understood() {
    let (machine, _) = Machine::new();
    let endpoint = machine.hub.endpoint();
    machine.hub.put("org/private", "main", &tiny().with_access(Access::Private));
    machine.hub.put("org/gated", "main", &tiny().with_access(Access::Gated));
    let unseen = |id: &str| {
        format!(
            "{id} cannot be read (401): there is no such repository, or it is private; check the name, or set HF_TOKEN to a token that may read it ({endpoint}/settings/tokens)"
        )
    };
    let with_token = |model: &str| {
        let mut command = machine.pull(model);
        command.env("HF_TOKEN", TOKEN);
        command
    };
    assert_fails(machine.pull("org/private"), &unseen("org/private"));
    assert_fails(machine.pull("org/nothing"), &unseen("org/nothing"));
    let mut wrong = machine.pull("m3");
    wrong.env("HF_TOKEN", "hf_of_yesterday");
    assert_fails(wrong, &unseen(M3));
    let line = format!(
        "org/gated is gated (401): accept its licence at {endpoint}/org/gated, and set HF_TOKEN to a token of the account that did ({endpoint}/settings/tokens)"
    );
    assert_fails(machine.pull("org/gated"), &line);
    let line = format!("{endpoint} has no org/nothing, or no revision 'main' of it (404): check the name");
    assert_fails(with_token("org/nothing"), &line);
    let line = format!("{M3} has no revision 'v9' (404): name a branch, a tag or a commit of {endpoint}/{M3}/commits");
    assert_fails(machine.pull("m3@v9"), &line);
    assert_eq!(downloads(&machine.hub.take_requests()), Vec::<&str>::new());
    assert_eq!(files(&machine.at("huggingface")), Vec::<String>::new(), "nothing is left of it");
    for model in ["org/private", "org/gated"] {
        run(&mut with_token(model));
    }
}

#[test]
fn without_a_hub_there_is_what_the_cache_has() {
    let (machine, _) = Machine::new();
    let cache = machine.at("huggingface/hub");
    let line = format!(
        "HF_HUB_OFFLINE is set, and {M3} is not in the Hugging Face cache ({}): unset it to fetch the model",
        cache.display()
    );
    assert_fails(machine.offline(&["model", "pull", "m3"]), &line);
    let mut nowhere = machine.pull("m3");
    nowhere.env("HF_ENDPOINT", NOWHERE);
    let output = nowhere.assert().code(1).stdout("").get_output().stderr.clone();
    let line = format!(
        "error: cannot reach {NOWHERE}: Connection refused (os error 111); check the network, and HF_ENDPOINT if it is set; the same command resumes it\n"
    );
    let said = String::from_utf8(output).unwrap();
    // The error number depends on the system.
    assert_eq!(said.replace("(os error 61)", "(os error 111)"), line);
    let line = format!(
        "cannot open model m3: model 'm3': no location is registered for it, and {M3} is not in the Hugging Face cache; run `rerank model pull m3` or `hf download {M3}`, or name its directory"
    );
    assert_fails(machine.offline(&["score", "--model", "m3", "a", "b"]), &line);
}

#[test]
fn what_cannot_be_scored_with_is_not_fetched() {
    let (machine, _) = Machine::new();
    let config = r#"{"architectures": ["BertModel"], "hidden_size": 8}"#;
    let cases = [
        (
            tiny().with("config.json", config),
            "checkpoint file config.json: architectures is [BertModel], expected one of XLMRobertaForSequenceClassification, GemmaForCausalLM, LayerWiseMiniCPMForCausalLM, CostWiseGemmaForCausalLM",
        ),
        (tiny().without("config.json"), "it has no config.json"),
        (
            tiny().with("adapter_config.json", "{}"),
            "it holds an adapter; download it with `hf download`, and score its base model with --adapter DIR",
        ),
        (
            tiny().without("tokenizer.json"),
            "it has no tokenizer.json; save the checkpoint with its fast tokenizer (`tokenizer.save_pretrained`)",
        ),
        (
            tiny().without("model.safetensors"),
            "it has no model.safetensors; a checkpoint with pytorch_model.bin must be saved as safetensors; download it with `hf download`, and open its folder for a command that converts it",
        ),
        (
            tiny().without("model.safetensors").with("model.safetensors.index.json", "[]"),
            "its model.safetensors.index.json is no index of safetensors files",
        ),
    ];
    for (repository, reason) in cases {
        machine.hub.put("org/odd", "main", &repository);
        assert_fails(machine.pull("org/odd"), &format!("org/odd cannot be scored with: {reason}"));
        assert_eq!(downloads(&machine.hub.take_requests()), Vec::<&str>::new());
        assert_eq!(files(&machine.at("huggingface")), Vec::<String>::new());
    }
}

#[test]
fn what_is_no_name_is_wrong_usage() {
    let (machine, _) = Machine::new();
    for (model, reason) in
        [("m4", "expected m3, gemma, minicpm, gemma2, or an id ORG/REPO"), ("m3@", "'' is no revision")]
    {
        let output = machine.pull(model).assert().code(2).get_output().stderr.clone();
        let output = String::from_utf8(output).unwrap();
        assert!(output.contains(reason), "{output}");
    }
    assert_eq!(machine.hub.take_requests(), Vec::<String>::new());
}

// The cache.

/// Scores in 8 bits, which leaves weights in the cache.
fn score_in_8_bits(machine: &Machine, model: &str) {
    lines(&mut machine.offline(&["score", "--precision", "int8", "a", "b", "--model", model]));
}

#[test]
fn models_and_their_weights_are_listed() {
    let (machine, commit) = Machine::new();
    let hub_cache = machine.at("huggingface/hub");
    let (printed, notes) = run(&mut machine.offline(&["model", "list"]));
    assert_eq!(printed, "");
    let nothing = format!(
        "there are no rerankers in the Hugging Face cache {}; fetch one: rerank model pull m3",
        hub_cache.display()
    );
    assert_eq!(notes, [nothing]);

    run(&mut machine.pull("m3"));
    machine.hub.put("org/mine", "v1", &tiny());
    run(&mut machine.pull("org/mine@v1"));
    let not_complete = hub_cache.join("models--org--partial/snapshots/0123456789");
    std::fs::create_dir_all(&not_complete).unwrap();
    std::fs::write(not_complete.join("config.json"), content("config.json")).unwrap();
    let other = hub_cache.join("models--org--bert/snapshots/0123456789");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("config.json"), r#"{"architectures": ["BertModel"]}"#).unwrap();
    let gemma = fixture("tiny-gemma-reranker");
    score_in_8_bits(&machine, "m3");
    score_in_8_bits(&machine, gemma.to_str().unwrap());
    std::fs::write(machine.at("cache/00000000000000000000000000000000-00000000.int8"), "older").unwrap();

    let (printed, notes) = run(&mut machine.offline(&["model", "list"]));
    assert_eq!(notes, Vec::<String>::new());
    let size = HumanBytes(NEEDED.iter().map(|name| content(name).len() as u64).sum()).to_string();
    let part = HumanBytes(content("config.json").len() as u64).to_string();
    let weights = |family: &str| {
        let json = machine.list_json();
        let all = json["models"].as_array().unwrap().iter().flat_map(|model| model["weights"].as_array().unwrap());
        let mut all = all.chain(json["other_weights"].as_array().unwrap());
        let weights = all.find(|weights| weights["family"] == family).unwrap();
        format!("int8 {}", HumanBytes(weights["size_bytes"].as_u64().unwrap()))
    };
    let rows: Vec<Vec<&str>> =
        printed.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    let short = &commit[..7];
    let expected: Vec<Vec<String>> = [
        ["name", "id", "revision", "family", "size", "converted"].map(str::to_owned),
        ["m3", M3, &format!("{short} (main)"), "m3", &size, &weights("m3")].map(str::to_owned),
        // The same content has the same weights.
        ["-", "org/mine", &format!("{short} (v1)"), "m3", &size, &weights("m3")].map(str::to_owned),
        ["-", "org/partial", "0123456", "m3", &format!("{part}, not complete"), "-"].map(str::to_owned),
        ["-", "unknown", "-", "-", "-", "int8 5 B"].map(str::to_owned),
        ["-", gemma.to_str().unwrap(), "-", "gemma", "-", &weights("gemma")].map(str::to_owned),
    ]
    .map(Vec::from)
    .into();
    assert_eq!(rows, expected, "{printed}");

    let json = machine.list_json();
    assert_eq!((&json["hub_cache"], &json["cache"]), (&json!(hub_cache), &json!(machine.at("cache"))));
    let m3 = &json["models"][0];
    assert_eq!(
        [&m3["name"], &m3["id"], &m3["commit"], &m3["refs"], &m3["family"], &m3["folder"], &m3["complete"]],
        [
            &json!("m3"),
            &json!(M3),
            &json!(commit),
            &json!(["main"]),
            &json!("m3"),
            &json!(machine.snapshot(&commit)),
            &json!(true)
        ]
    );
    assert_eq!(m3["weights"][0]["checkpoint"], json!(machine.snapshot(&commit).canonicalize().unwrap()));
    assert_eq!(m3["weights"][0]["precision"], "int8");
    assert_eq!(json["models"][1]["name"], Value::Null);
    assert_eq!(json["other_weights"].as_array().unwrap().len(), 2);
}

#[test]
fn weights_are_pruned_and_models_are_not() {
    let (machine, commit) = Machine::new();
    run(&mut machine.pull("m3"));
    let gemma = fixture("tiny-gemma-reranker");
    let gemma = gemma.to_str().unwrap();
    let prune = |args: &[&str]| run(machine.offline(&["model", "prune"]).args(args));
    let nothing = format!("nothing to remove in {}", machine.at("cache").display());
    assert_eq!(prune(&[]), (String::new(), vec![nothing.clone()]));
    score_in_8_bits(&machine, "m3");
    let of_m3 = machine.weights();
    score_in_8_bits(&machine, gemma);
    let of_gemma: Vec<(PathBuf, u64)> =
        machine.weights().into_iter().filter(|weights| !of_m3.contains(weights)).collect();
    assert_eq!((of_m3.len(), of_gemma.len()), (1, 1));
    let line = |weights: &[(PathBuf, u64)], of: &Path| {
        let (file, size) = &weights[0];
        format!("{}\tint8 of {}\t{}\n", file.display(), of.display(), HumanBytes(*size))
    };
    let snapshot = machine.snapshot(&commit).canonicalize().unwrap();
    let (m3_line, gemma_line) = (line(&of_m3, &snapshot), line(&of_gemma, Path::new(gemma)));

    let (printed, notes) = prune(&["m3", "--dry-run"]);
    assert_eq!(printed, m3_line);
    assert_eq!(notes, [format!("would free {} in 1 file; without --dry-run they are removed", HumanBytes(of_m3[0].1))]);
    assert_eq!(machine.weights().len(), 2);
    let (printed, notes) = prune(&["m3"]);
    assert_eq!(printed, m3_line);
    assert_eq!(
        notes,
        [format!("freed {} in 1 file; weights are made again when they are needed", HumanBytes(of_m3[0].1))]
    );
    assert_eq!(machine.weights(), of_gemma);
    assert_eq!(prune(&["m3"]), (String::new(), vec![nothing.clone()]));
    assert_is_tiny(&machine.snapshot(&commit));

    // Weights of a model that is no longer in the Hugging Face cache.
    score_in_8_bits(&machine, "m3");
    std::fs::remove_dir_all(machine.cached()).unwrap();
    assert_eq!(prune(&[M3]).0, m3_line);
    let line = format!(
        "model 'org/other': it is neither a known name (gemma, gemma2, m3, minicpm, tiny), nor a directory, nor in the Hugging Face cache; if it is a hub id, run `rerank model pull org/other` or `hf download org/other`; and there are no weights of it in {}",
        machine.at("cache").display()
    );
    assert_fails(machine.offline(&["model", "prune", "org/other"]), &line);

    // A file that another process is writing stays. An old unfinished file is removed, and so are weights of unknown
    // origin.
    for (name, hours) in [("unfinished-fresh", 0), ("unfinished-old", 2)] {
        let file = std::fs::File::create(machine.at("cache").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_hours(hours)).unwrap();
    }
    let held = std::fs::File::open(&of_gemma[0].0).unwrap();
    held.lock_shared().unwrap();
    let (printed, notes) = prune(&[]);
    assert_eq!(printed, format!("{}\tnever finished\t0 B\n", machine.at("cache/unfinished-old").display()));
    assert_eq!(notes[0], format!("{} stays: a process is about to load it", of_gemma[0].0.display()));
    drop(held);
    assert_eq!(prune(&[]).0, gemma_line);
    assert_eq!(files(&machine.at("cache")), ["unfinished-fresh"]);
}

impl Machine {
    /// The output of `rerank model list --json`.
    fn list_json(&self) -> Value {
        serde_json::from_str(&run(&mut self.offline(&["model", "list", "--json"])).0).unwrap()
    }

    /// The weights in other precisions and their sizes.
    fn weights(&self) -> Vec<(PathBuf, u64)> {
        let names = files(&self.at("cache")).into_iter().filter(|name| !name.ends_with("json"));
        names
            .map(|name| self.at("cache").join(name))
            .map(|file| (file.clone(), file.metadata().unwrap().len()))
            .collect()
    }
}
