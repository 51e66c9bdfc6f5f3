//! Every command of the README and of the page on clusters, run as it stands.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

/// A block of a page that a shell can run.
struct Block {
    line: usize,
    commands: String,
    /// What it needs that a test does not have.
    needs: Option<String>,
}

/// The blocks marked `sh`. One marked `sh needs=..` is not run.
fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in readme.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) if language == "sh" || language.starts_with("sh ") => {
                inside = true;
                let needs = language.split_once("needs=").map(|(_, what)| what.to_owned());
                blocks.push(Block { line: index + 1, commands: String::new(), needs });
            }
            _ if inside => {
                let block = blocks.last_mut().unwrap();
                block.commands.push_str(line);
                block.commands.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// A folder like a fresh clone after `cargo build`, as far as the commands look.
fn clone(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["tests", "models", "examples", ".onnxruntime"] {
        std::os::unix::fs::symlink(root.join(name), folder.join(name)).unwrap();
    }
    fs::create_dir_all(folder.join("target/release")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rerank"), folder.join("target/release/rerank")).unwrap();
}

#[test]
#[cfg(unix)]
fn every_block_runs() {
    run_blocks("README.md", 4, |commands| commands);
}

/// With other ports than those of the page, which may not be free.
#[test]
#[cfg(all(unix, feature = "cluster"))]
fn every_block_of_the_page_on_clusters_runs() {
    let ports = (2..6).map(|tens| format!("2{:02}{tens}", std::process::id() % 100)).find(|ports| {
        (0..10).all(|port| {
            let port: u16 = format!("{ports}{port}").parse().unwrap();
            std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
        })
    });
    let ports = ports.unwrap();
    run_blocks("examples/cluster.md", 1, |commands| {
        // Without the option the default port is meant.
        let commands = commands.replace("cluster scheduler &", "cluster scheduler --port 50050 &");
        let executor = "cluster executor --port";
        let commands =
            commands.replace(executor, &format!("{} --scheduler df://127.0.0.1:50050 --port", &executor[..16]));
        format!("trap 'kill $(jobs -p)' EXIT\n{}", commands.replace("5005", &ports))
    });
}

fn run_blocks(page: &str, at_least: usize, prepare: impl Fn(String) -> String) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let folder = tempdir().unwrap();
    clone(folder.path());
    let path = format!("{}:{}", folder.path().join("target/release").display(), std::env::var("PATH").unwrap());
    let blocks = blocks(&text);
    let (run, left): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.needs.is_none());
    assert!(run.len() >= at_least, "{} blocks", run.len());
    for block in left {
        println!("line {}: not run, needs {}", block.line, block.needs.as_deref().unwrap());
    }
    for Block { line, commands, .. } in run {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &prepare(commands.clone())])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("RERANK_CACHE", folder.path().join("cache"))
            .env("XDG_CONFIG_HOME", folder.path().join("config"))
            .env_remove("RERANK_MODEL")
            .env_remove("RERANK_CONFIG")
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{page}, line {line}:\n{commands}\n{out}\n{err}");
    }
}
