//! The hub itself: what it has of a model, and why it does not give it.
//!
//! `hf-hub` speaks the protocol: addresses, redirects, tokens, requests that are tried again. Its own downloads are not
//! used: they begin a file anew after every cut, and keep an error page for its content.

use std::error::Error;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hf_hub::repository::download::HFByteStream;
use hf_hub::repository::{HFRepository, RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFError, HFResult};

use super::HubModel;

/// How long the hub may take to answer, and to send more of a file.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often something is tried in a row without success.
const MOST_FAILURES: u32 = 6;

/// How long is waited before the second attempt; before each further one twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// One model on the hub.
#[derive(Debug)]
pub(crate) struct HubClient {
    client: HFClient,
    repository: HFRepository<RepoTypeModel>,
    model: HubModel,
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    /// Its id in git: that of its content or, if it is large, of the pointer to it.
    pub(crate) id: String,
    /// Whether it is large.
    pub(crate) is_pointer: bool,
}

/// Why something could not be fetched.
#[derive(Debug)]
pub(super) struct Failure {
    error: anyhow::Error,
    /// Whether it may succeed if it is tried again.
    passing: bool,
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Failures(u32);

impl HubClient {
    /// The hub that `HF_ENDPOINT` names, with the token of the environment. Nothing is asked of it yet.
    pub(crate) fn new(model: &HubModel) -> Result<Self> {
        let agent = concat!("rerank/", env!("CARGO_PKG_VERSION"));
        let client = HFClient::builder().user_agent(agent).cache_enabled(false).build();
        let client = client.map_err(|error| anyhow!("cannot use the hub: {error}; check HF_ENDPOINT if it is set"))?;
        let repository = client.model(model.organisation(), model.name());
        Ok(Self { client, repository, model: model.clone() })
    }

    /// The commit that the model's revision is.
    pub(crate) async fn commit(&self) -> Result<String> {
        let info = self.repository.info().revision(self.model.revision()).send();
        match self.answer(info).await?.sha {
            Some(commit) if is_commit(&commit) => Ok(commit),
            sha => bail!("{} says that {} is commit {sha:?}; check HF_ENDPOINT", self.client.endpoint(), self.model),
        }
    }

    /// The files in the repository's main folder.
    pub(crate) async fn files(&self, commit: &str) -> Result<Vec<RemoteFile>> {
        let entries = async { self.repository.list_tree().revision(commit).send()?.try_collect::<Vec<_>>().await };
        let file = |entry| match entry {
            RepoTreeEntry::File { oid, size, path, lfs, .. } => {
                Some(RemoteFile { name: path, size_bytes: size, id: oid, is_pointer: lfs.is_some() })
            }
            RepoTreeEntry::Directory { .. } => None,
        };
        let files: Vec<RemoteFile> = self.answer(entries).await?.into_iter().filter_map(file).collect();
        // They become names of files here.
        match files.iter().find(|file| file.name.contains(['/', '\\']) || !is_commit(&file.id)) {
            Some(odd) => bail!("{} lists {odd:?}; check HF_ENDPOINT", self.client.endpoint()),
            None => Ok(files),
        }
    }

    /// The content of a small file.
    pub(crate) async fn read(&self, commit: &str, file: &RemoteFile) -> Result<Vec<u8>> {
        let mut failures = Failures::default();
        loop {
            match self.read_once(commit, file).await {
                Ok(content) => return Ok(content),
                Err(failure) => failures.wait(failure).await?,
            }
        }
    }

    async fn read_once(&self, commit: &str, file: &RemoteFile) -> Result<Vec<u8>, Failure> {
        let mut content = Vec::new();
        let mut stream = self.open(commit, file, 0).await?;
        while let Some(bytes) = self.next(&mut stream).await? {
            content.extend_from_slice(&bytes);
        }
        if content.len() as u64 == file.size_bytes { Ok(content) } else { Err(self.broken(file, "it ended too early")) }
    }

    /// The content of a file, from a byte of it on.
    pub(super) async fn open(&self, commit: &str, file: &RemoteFile, from: u64) -> Result<HFByteStream, Failure> {
        let range = (from > 0).then_some(from..file.size_bytes);
        let request = self.repository.download_file_stream().filename(&file.name).revision(commit).maybe_range(range);
        match tokio::time::timeout(PATIENCE, request.send()).await {
            Ok(Ok((_, stream))) => Ok(stream),
            Ok(Err(error)) => {
                let passing = match &error {
                    HFError::Request { .. } | HFError::RateLimited { .. } => true,
                    HFError::Http { context } => context.status.is_server_error(),
                    _ => false,
                };
                Err(Failure { error: self.explain(error), passing })
            }
            Err(_) => Err(Failure { error: self.silent(), passing: true }),
        }
    }

    /// The next piece of a content.
    pub(super) async fn next(&self, stream: &mut HFByteStream) -> Result<Option<Bytes>, Failure> {
        let error = match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(bytes))) => return Ok(Some(bytes)),
            Ok(Some(Err(HFError::Request { source, .. }))) => self.cut(&root(&source)),
            Ok(Some(Err(error))) => self.cut(&error.to_string()),
            Err(_) => self.silent(),
        };
        Err(Failure { error, passing: true })
    }

    /// A content that is not what was asked for.
    pub(super) fn broken(&self, file: &RemoteFile, reason: &str) -> Failure {
        Failure { error: self.cut(&format!("{}: {reason}", file.name)), passing: true }
    }

    fn cut(&self, reason: &str) -> anyhow::Error {
        anyhow!(
            "the download from {} broke off: {reason}; the same command goes on where it was",
            self.client.endpoint()
        )
    }

    fn silent(&self) -> anyhow::Error {
        let seconds = PATIENCE.as_secs();
        anyhow!("{} has not answered for {seconds} s; the same command goes on where it was", self.client.endpoint())
    }

    /// Waits for an answer.
    async fn answer<T>(&self, answer: impl Future<Output = HFResult<T>>) -> Result<T> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| self.explain(error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// Says what an error means for whoever wants the model, and what to do.
    fn explain(&self, error: HFError) -> anyhow::Error {
        let (endpoint, id) = (self.client.endpoint(), self.model.id());
        match error {
            HFError::AuthRequired { context } | HFError::Forbidden { context } => {
                let status = context.status.as_u16();
                if context.error_code.as_deref() == Some("GatedRepo") {
                    anyhow!(
                        "{id} is gated ({status}): accept its licence at {endpoint}/{id}, and set HF_TOKEN to a token of the account that did ({endpoint}/settings/tokens)"
                    )
                } else {
                    anyhow!(
                        "{id} cannot be read ({status}): there is no such repository, or it is private; check the name, or set HF_TOKEN to a token that may read it ({endpoint}/settings/tokens)"
                    )
                }
            }
            HFError::RevisionNotFound { revision, context, .. }
                if context
                    .as_ref()
                    .is_some_and(|context| context.error_code.as_deref() == Some("RevisionNotFound")) =>
            {
                anyhow!(
                    "{id} has no revision '{revision}' (404): name a branch, a tag or a commit of {endpoint}/{id}/commits"
                )
            }
            HFError::RevisionNotFound { revision, .. } => {
                anyhow!("{endpoint} has no {id}, or no revision '{revision}' of it (404): check the name")
            }
            HFError::EntryNotFound { path, .. } => {
                anyhow!("{endpoint} lists {path} of {id}, but does not have it (404)")
            }
            HFError::RateLimited { retry_after, .. } => {
                let wait = retry_after.map_or_else(String::new, |wait| format!(" in {} s", wait.as_secs()));
                anyhow!(
                    "{endpoint} has had too many requests (429): try again{wait}; with HF_TOKEN it takes more of them"
                )
            }
            HFError::Http { context } => {
                anyhow!(
                    "{endpoint} answers {} to a request for {id}: try again later, or check HF_ENDPOINT if it is set",
                    context.status.as_u16()
                )
            }
            HFError::Request { source, .. } => anyhow!(
                "cannot reach {endpoint}: {}; check the network, and HF_ENDPOINT if it is set; the same command goes on where it was",
                root(&source)
            ),
            error => anyhow!("{endpoint}: {id}: {error}"),
        }
    }
}

impl Failures {
    /// Waits before the next attempt. What lasts, and what has failed too often, is an error.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<()> {
        let delay = self.delay(failure)?;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn delay(&mut self, failure: Failure) -> Result<Duration> {
        self.0 += 1;
        if !failure.passing || self.0 >= MOST_FAILURES {
            return Err(failure.error);
        }
        tracing::info!(attempt = self.0, "trying again: {:#}", failure.error);
        Ok(FIRST_DELAY * 2_u32.pow(self.0 - 1))
    }
}

impl From<anyhow::Error> for Failure {
    /// What goes wrong on this machine does not pass.
    fn from(error: anyhow::Error) -> Self {
        Self { error, passing: false }
    }
}

/// The cause of all others.
fn root(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

/// Whether it looks like a git id.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends() {
        let failure = |passing| Failure { error: anyhow!("odd"), passing };
        let mut failures = Failures::default();
        let delays: Vec<u128> =
            (1..MOST_FAILURES).map(|_| failures.delay(failure(true)).unwrap().as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000]);
        assert_eq!(failures.delay(failure(true)).unwrap_err().to_string(), "odd");
        assert!(Failures::default().delay(failure(false)).is_err(), "what lasts is not tried again");
    }
}
