//! Requests to the hub, and messages for its errors.
//!
//! `hf-hub` implements the protocol: addresses, redirects, tokens, retries of requests. Its downloads are not used:
//! they restart a file after every broken connection, and save an error page as the content.

use std::error::Error;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hf_hub::repository::download::HFByteStream;
use hf_hub::repository::{HFRepository, RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFError, HFResult};

use super::HubModel;

/// The longest wait for a response, or for more bytes of a file.
const PATIENCE: Duration = Duration::from_mins(1);

/// Consecutive failed attempts after which a request is abandoned.
const MOST_FAILURES: u32 = 6;

/// Delay before the second attempt. It doubles with each further attempt.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// One model on the hub.
#[derive(Debug)]
pub(crate) struct HubClient {
    client: HFClient,
    repository: HFRepository<RepoTypeModel>,
    model: HubModel,
}

/// A file of a repository, as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    /// Git id of the content or, for a large file, of the pointer to it.
    pub(crate) id: String,
    /// Whether git holds a pointer in place of the content, as it does for large files.
    pub(crate) is_pointer: bool,
}

/// Why something could not be fetched.
#[derive(Debug)]
pub(super) struct DownloadFailure {
    error: anyhow::Error,
    /// Whether a retry may succeed.
    transient: bool,
}

/// Counts consecutive failed attempts.
#[derive(Debug, Default)]
pub(super) struct Retries(u32);

impl HubClient {
    /// A client of the hub at `HF_ENDPOINT`, with the token of the environment. Sends no request yet.
    pub(crate) fn new(model: &HubModel) -> Result<Self> {
        let agent = concat!("rerank/", env!("CARGO_PKG_VERSION"));
        let client = HFClient::builder().user_agent(agent).cache_enabled(false).build();
        let client = client.map_err(|error| anyhow!("cannot use the hub: {error}; check HF_ENDPOINT if it is set"))?;
        let repository = client.model(model.id().organisation(), model.id().name());
        Ok(Self { client, repository, model: model.clone() })
    }

    /// The commit that the model's revision points to.
    pub(crate) async fn commit(&self) -> Result<String> {
        let info = self.repository.info().revision(self.model.revision()).send();
        match self.answer(info).await?.sha {
            Some(commit) if is_commit(&commit) => Ok(commit),
            sha => bail!("{} says that {} is commit {sha:?}; check HF_ENDPOINT", self.client.endpoint(), self.model),
        }
    }

    /// The files in the top folder of the repository.
    pub(crate) async fn files(&self, commit: &str) -> Result<Vec<RemoteFile>> {
        let entries = async { self.repository.list_tree().revision(commit).send()?.try_collect::<Vec<_>>().await };
        let file = |entry| match entry {
            RepoTreeEntry::File { oid, size, path, lfs, .. } => {
                Some(RemoteFile { name: path, size_bytes: size, id: oid, is_pointer: lfs.is_some() })
            }
            RepoTreeEntry::Directory { .. } => None,
        };
        let files: Vec<RemoteFile> = self.answer(entries).await?.into_iter().filter_map(file).collect();
        // The names and ids become file names in the cache.
        match files.iter().find(|file| file.name.contains(['/', '\\']) || !is_commit(&file.id)) {
            Some(odd) => bail!("{} lists {odd:?}; check HF_ENDPOINT", self.client.endpoint()),
            None => Ok(files),
        }
    }

    /// The content of a small file.
    pub(crate) async fn read(&self, commit: &str, file: &RemoteFile) -> Result<Vec<u8>> {
        let mut retries = Retries::default();
        loop {
            match self.read_once(commit, file).await {
                Ok(content) => return Ok(content),
                Err(failure) => retries.wait(failure).await?,
            }
        }
    }

    async fn read_once(&self, commit: &str, file: &RemoteFile) -> Result<Vec<u8>, DownloadFailure> {
        let mut content = Vec::new();
        let mut stream = self.open(commit, file, 0).await?;
        while let Some(bytes) = self.next(&mut stream).await? {
            content.extend_from_slice(&bytes);
        }
        if content.len() as u64 == file.size_bytes { Ok(content) } else { Err(self.broken(file, "it ended too early")) }
    }

    /// The content of a file from byte `from` on.
    pub(super) async fn open(
        &self,
        commit: &str,
        file: &RemoteFile,
        from: u64,
    ) -> Result<HFByteStream, DownloadFailure> {
        let range = (from > 0).then_some(from..file.size_bytes);
        let request = self.repository.download_file_stream().filename(&file.name).revision(commit).maybe_range(range);
        match tokio::time::timeout(PATIENCE, request.send()).await {
            Ok(Ok((_, stream))) => Ok(stream),
            Ok(Err(error)) => {
                let transient = match &error {
                    HFError::Request { .. } | HFError::RateLimited { .. } => true,
                    HFError::Http { context } => context.status.is_server_error(),
                    _ => false,
                };
                Err(DownloadFailure { error: self.explain(error), transient })
            }
            Err(_) => Err(DownloadFailure { error: self.no_answer(), transient: true }),
        }
    }

    /// The next bytes of the content; `None` at its end.
    pub(super) async fn next(&self, stream: &mut HFByteStream) -> Result<Option<Bytes>, DownloadFailure> {
        let error = match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(bytes))) => return Ok(Some(bytes)),
            Ok(Some(Err(HFError::Request { source, .. }))) => self.cut(&root(&source)),
            Ok(Some(Err(error))) => self.cut(&error.to_string()),
            Err(_) => self.no_answer(),
        };
        Err(DownloadFailure { error, transient: true })
    }

    /// The failure of a download with wrong content.
    pub(super) fn broken(&self, file: &RemoteFile, reason: &str) -> DownloadFailure {
        DownloadFailure { error: self.cut(&format!("{}: {reason}", file.name)), transient: true }
    }

    fn cut(&self, reason: &str) -> anyhow::Error {
        anyhow!("the download from {} broke off: {reason}; the same command resumes it", self.client.endpoint())
    }

    fn no_answer(&self) -> anyhow::Error {
        let seconds = PATIENCE.as_secs();
        anyhow!("{} has not answered for {seconds} s; the same command resumes it", self.client.endpoint())
    }

    /// Waits for a response, up to [`PATIENCE`].
    async fn answer<T>(&self, answer: impl Future<Output = HFResult<T>>) -> Result<T> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| self.explain(error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// Explains an error: its meaning and its remedy.
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
                "cannot reach {endpoint}: {}; check the network, and HF_ENDPOINT if it is set; the same command resumes it",
                root(&source)
            ),
            error => anyhow!("{endpoint}: {id}: {error}"),
        }
    }
}

impl Retries {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// If the failure is permanent, or there were too many.
    pub(super) async fn wait(&mut self, failure: DownloadFailure) -> Result<()> {
        let delay = self.delay(failure)?;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    fn delay(&mut self, failure: DownloadFailure) -> Result<Duration> {
        self.0 += 1;
        if !failure.transient || self.0 >= MOST_FAILURES {
            return Err(failure.error);
        }
        tracing::info!(attempt = self.0, "trying again: {:#}", failure.error);
        Ok(FIRST_DELAY * 2_u32.pow(self.0 - 1))
    }
}

impl From<anyhow::Error> for DownloadFailure {
    /// A failure on this machine is permanent.
    fn from(error: anyhow::Error) -> Self {
        Self { error, transient: false }
    }
}

/// The message of the innermost cause.
fn root(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

/// Whether a text looks like a git id.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end() {
        let failure = |transient| DownloadFailure { error: anyhow!("odd"), transient };
        let mut retries = Retries::default();
        let delays: Vec<u128> = (1..MOST_FAILURES).map(|_| retries.delay(failure(true)).unwrap().as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000]);
        assert_eq!(retries.delay(failure(true)).unwrap_err().to_string(), "odd");
        assert!(Retries::default().delay(failure(false)).is_err(), "a permanent failure is not retried");
    }
}
