//! `rerank model pull`: downloads a model from the Hugging Face Hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;

use anyhow::{Context, Result, anyhow};
use datafusion_rerank::{ADAPTER_CONFIG_FILE, CONFIG_FILE, Family, HubCache, INDEX_FILE, WEIGHTS_FILE, shard_files};
use futures::{StreamExt, TryStreamExt};
use indicatif::HumanBytes;

use crate::args::PullArgs;
use crate::hub::{Download, HubClient, HubModel, RemoteFile, Repository, Transfer, find_cache, needed, short_commit};
use crate::terminal::{LINE_INTERVAL, Printer, human_count, stop};

/// Concurrent downloads.
const FILES_AT_ONCE: usize = 4;

/// The variable that forbids requests to the hub, and the values that do so, in any case. (`huggingface_hub.constants`)
const OFFLINE: (&str, [&str; 4]) = ("HF_HUB_OFFLINE", ["1", "ON", "YES", "TRUE"]);

/// Runs the subcommand.
pub(crate) fn run(args: &PullArgs, printer: Printer) -> Result<()> {
    let cache = find_cache()?;
    let snapshot = if is_offline() {
        find_offline(&cache, &args.model)?
    } else {
        let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
        let outcome = runtime.block_on(execute(&cache, &args.model, printer));
        // After a failure a thread may still be hashing a file or resolving an address.
        runtime.shutdown_background();
        outcome?
    };
    printer.data(&snapshot.display().to_string())?;
    let name = match args.model.published_name() {
        Some(name) if args.model.is_main() => name.to_owned(),
        None if args.model.is_main() => args.model.id().to_string(),
        _ => format!("'{}'", snapshot.display()),
    };
    printer.note(&format!(
        "score with it: rerank score --model {name} \"what is a panda?\" \"hi\" \"The giant panda is a bear.\""
    ));
    Ok(())
}

fn is_offline() -> bool {
    let (name, values) = OFFLINE;
    std::env::var(name).is_ok_and(|value| values.contains(&value.to_ascii_uppercase().as_str()))
}

fn find_offline(cache: &HubCache, model: &HubModel) -> Result<PathBuf> {
    let snapshot = Repository::new(cache, model).complete_snapshot(model.revision());
    snapshot.with_context(|| {
        let folder = cache.folder().display();
        format!("HF_HUB_OFFLINE is set, and {model} is not in the Hugging Face cache ({folder}): unset it to fetch the model")
    })
}

/// Downloads the model until done or stopped.
async fn execute(cache: &HubCache, model: &HubModel, printer: Printer) -> Result<PathBuf> {
    let stop = pin!(stop::requested());
    tokio::select! {
        stopped = stop => {
            let advice = "what was fetched is kept; the same command resumes it".to_owned();
            Err(stopped.with_advice(advice).into())
        }
        snapshot = pull(cache, model, printer) => snapshot,
    }
}

async fn pull(cache: &HubCache, model: &HubModel, printer: Printer) -> Result<PathBuf> {
    let client = HubClient::new(model)?;
    let repository = Repository::new(cache, model);
    let commit = client.commit().await?;
    let needed = NeededFiles::new(&client, &repository, model, &commit).await?;
    let missing: Vec<&RemoteFile> = needed.files.iter().filter(|file| !repository.has(&commit, file)).collect();
    let what = format!("{model}, family {}, commit {}", needed.family, short_commit(&commit));
    if missing.is_empty() {
        printer.note(&format!("nothing to fetch of {what}: the cache has it"));
    } else {
        let all_bytes = missing.iter().map(|file| file.size_bytes).sum();
        let files = human_count(missing.len() as u64, "file");
        printer.note(&format!("fetching {files} of {what}: {}", HumanBytes(all_bytes)));
        let transfer = Transfer::start(printer, all_bytes);
        let download = Download { client: &client, repository: &repository, commit: &commit, transfer: &transfer };
        fetch(&download, missing).await?;
        let summary = transfer.summary();
        drop(transfer);
        printer.note(&format!("fetched {summary}"));
    }
    // Last, so that the name never resolves to an incomplete model.
    repository.set_ref(model.revision(), &commit)?;
    Ok(repository.snapshot(&commit))
}

/// Downloads files and shows progress.
async fn fetch(download: &Download<'_>, files: Vec<&RemoteFile>) -> Result<()> {
    let fetched = futures::stream::iter(files).map(Ok);
    let fetched = fetched.try_for_each_concurrent(FILES_AT_ONCE, |file| async move {
        download.fetch(file).await.with_context(|| format!("cannot fetch {}", file.name))
    });
    let mut fetched = pin!(fetched);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
    loop {
        tokio::select! {
            outcome = &mut fetched => return outcome,
            _ = ticks.tick() => download.transfer.line(),
        }
    }
}

/// The files to download.
struct NeededFiles {
    family: Family,
    files: Vec<RemoteFile>,
}

impl NeededFiles {
    /// Reads the configuration and the index before gigabytes are downloaded. They show whether the model can score and
    /// which files it needs.
    async fn new(client: &HubClient, repository: &Repository, model: &HubModel, commit: &str) -> Result<Self> {
        let mut listed: BTreeMap<String, RemoteFile> =
            client.files(commit).await?.into_iter().map(|file| (file.name.clone(), file)).collect();
        let read = async |file: &RemoteFile| {
            if repository.has(commit, file) {
                let path = repository.snapshot(commit).join(&file.name);
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
            } else {
                client.read(commit, file).await
            }
        };
        let refuse = |error: anyhow::Error| error.context(format!("{model} cannot be scored with"));
        if listed.contains_key(ADAPTER_CONFIG_FILE) {
            let advice =
                "it holds an adapter; download it with `hf download`, and score its base model with --adapter DIR";
            return Err(refuse(anyhow!(advice)));
        }
        let Some(config) = listed.get(CONFIG_FILE) else {
            return Err(refuse(anyhow!("it has no {CONFIG_FILE}")));
        };
        let family =
            Family::of_config(Path::new(CONFIG_FILE), &read(config).await?).map_err(|error| refuse(error.into()))?;
        // An index beside the weights in one file is not read.
        let shards = match listed.get(INDEX_FILE).filter(|_| !listed.contains_key(WEIGHTS_FILE)) {
            None => None,
            Some(index) => {
                let shards = shard_files(&read(index).await?);
                Some(shards.ok_or_else(|| refuse(anyhow!("its {INDEX_FILE} is no index of safetensors files")))?)
            }
        };
        let names: BTreeSet<String> = listed.keys().cloned().collect();
        let needed = needed(&names, shards.as_ref()).map_err(refuse)?;
        let files = needed.iter().filter_map(|name| listed.remove(name)).collect();
        Ok(Self { family, files })
    }
}
