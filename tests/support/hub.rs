//! A hub in the test's own process. It speaks the protocol of the Hugging Face Hub, and serves large files from a
//! second server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, LOCATION, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

#[path = "../../src/hub/git.rs"]
mod git;

use git::{BlobId, pointer_id, sha256_hex};

/// The token that may read everything.
pub(crate) const TOKEN: &str = "hf_the_token";

/// The hub. Dropping it stops it.
pub(crate) struct HubServer {
    // Keeps the servers running.
    _runtime: Runtime,
    endpoint: String,
    hub: Arc<Hub>,
}

/// A commit of a repository.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(crate) files: BTreeMap<String, Bytes>,
    pub(crate) access: Access,
}

/// Who may read a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Public,
    /// Users without access are told that it does not exist.
    Private,
    /// Everybody sees its listing; only users who accepted its licence get its files.
    Gated,
}

/// The faults to inject, and how often.
#[derive(Default)]
pub(crate) struct HubFaults {
    /// Requests of any kind to answer with 503.
    pub(crate) busy: usize,
    /// Large files whose connection breaks after half of the requested range.
    pub(crate) cuts: usize,
    /// Large files that stall after half of the requested range.
    pub(crate) stalls: usize,
    /// Large files with a flipped bit.
    pub(crate) damages: usize,
    /// Whether to ignore ranges and always send large files as a whole.
    pub(crate) ignores_ranges: bool,
    /// The delay of large files.
    pub(crate) delay: Duration,
}

struct Hub {
    /// Commit and content, by id and revision.
    repositories: Mutex<BTreeMap<(String, String), (String, Repository)>>,
    /// The URL of the server with the large files.
    cdn: String,
    requests: Mutex<Vec<String>>,
    faults: Mutex<HubFaults>,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl Repository {
    /// A repository with the files of a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let files = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap().into()));
        Self { files: files.collect(), access: Access::Public }
    }

    /// Adds or replaces a file.
    pub(crate) fn with(mut self, name: &str, content: impl Into<Bytes>) -> Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.files.remove(name).unwrap();
        self
    }

    pub(crate) fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }
}

impl HubServer {
    /// Starts a hub without repositories, on a free port of this machine.
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let [listener, cdn] = [(); 2].map(|()| runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let endpoint = url(&listener);
        let hub = Hub {
            repositories: Mutex::default(),
            cdn: url(&cdn),
            requests: Mutex::default(),
            faults: Mutex::default(),
        };
        let hub = Arc::new(hub);
        for listener in [listener, cdn] {
            runtime.spawn(serve(listener, Arc::clone(&hub)));
        }
        Self { _runtime: runtime, endpoint, hub }
    }

    /// Its address, for `HF_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Adds a commit, or moves a branch or tag to it. Returns the commit's id.
    pub(crate) fn put(&self, id: &str, revision: &str, repository: &Repository) -> String {
        let mut commit = BlobId::new(0);
        for (name, content) in &repository.files {
            commit.update(name.as_bytes());
            commit.update(git_id(content, false).as_bytes());
        }
        let commit = commit.finish();
        let mut repositories = self.hub.repositories.lock().unwrap();
        for revision in [revision, &commit] {
            repositories.insert((id.to_owned(), revision.to_owned()), (commit.clone(), repository.clone()));
        }
        commit
    }

    /// Sets the faults from now on.
    pub(crate) fn set_faults(&self, faults: HubFaults) {
        *self.hub.faults.lock().unwrap() = faults;
    }

    /// Method, path and range of every request since the last call. Large files are `/cdn/<SHA-256>`.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.hub.requests.lock().unwrap())
    }
}

/// The SHA-256 of a content.
pub(crate) fn sha256(content: &[u8]) -> String {
    sha256_hex(Sha256::new().chain_update(content))
}

/// Whether the hub stores a file of this name as a large one.
pub(crate) fn is_large(name: &str) -> bool {
    name == "tokenizer.json" || [".safetensors", ".bin", ".onnx", ".model"].iter().any(|end| name.ends_with(end))
}

/// The git id of a file.
pub(crate) fn git_id(content: &[u8], large: bool) -> String {
    if large {
        return pointer_id(&sha256(content), content.len() as u64);
    }
    let mut id = BlobId::new(content.len() as u64);
    id.update(content);
    id.finish()
}

async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let hub = Arc::clone(&hub);
        let service = service_fn(move |request| {
            let hub = Arc::clone(&hub);
            async move { Ok::<_, Infallible>(hub.answer(request).await) }
        });
        // The client sees connection errors too.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

impl Hub {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let range = header(RANGE);
        let shown = range.as_ref().map_or_else(String::new, |range| format!(" {range}"));
        self.requests.lock().unwrap().push(format!("{} {path}{shown}", request.method()));
        if take(&mut self.faults.lock().unwrap().busy) {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "", "Service Unavailable");
        }
        let has_token = match header(AUTHORIZATION) {
            None => false,
            // The token must not be sent to other servers, which also refuse doubly signed requests.
            Some(_) if path.starts_with("/cdn/") => return refusal(StatusCode::BAD_REQUEST, "", "InvalidArgument"),
            Some(value) if value == format!("Bearer {TOKEN}") => true,
            Some(_) => return refusal(StatusCode::UNAUTHORIZED, "", "Invalid credentials in Authorization header"),
        };
        let is_head = request.method() == Method::HEAD;
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["api", "models", organisation, name, kind @ ("revision" | "tree"), revision] => {
                let id = format!("{organisation}/{name}");
                self.find(&id, revision, has_token).map_or_else(
                    |refusal| *refusal,
                    |(commit, repository)| {
                        let answer = if kind == "tree" {
                            tree(&repository)
                        } else {
                            json!({"_id": "1", "id": id, "sha": commit})
                        };
                        full(Response::builder(), answer.to_string().into(), false)
                    },
                )
            }
            [organisation, name, "resolve", revision, file] => {
                match self.find(&format!("{organisation}/{name}"), revision, has_token) {
                    Err(refusal) => *refusal,
                    Ok((_, repository)) if repository.access == Access::Gated && !has_token => {
                        refusal(StatusCode::UNAUTHORIZED, "GatedRepo", "Access to this model is restricted.")
                    }
                    Ok((commit, repository)) => self.resolve(&commit, &repository, &[organisation, name, file]),
                }
            }
            // Serves small files.
            ["api", "resolve-cache", "models", organisation, name, commit, file] => {
                match self.find(&format!("{organisation}/{name}"), commit, true) {
                    Err(refusal) => *refusal,
                    Ok((commit, repository)) => {
                        let content = repository.files[file].clone();
                        // Python reads these headers, and follows the redirect that leads here.
                        let answer = Response::builder().header("X-Repo-Commit", commit);
                        full(answer.header("ETag", format!("\"{}\"", git_id(&content, false))), content, is_head)
                    }
                }
            }
            ["cdn", hash] => self.large_file(hash, range.as_deref(), is_head).await,
            _ => refusal(StatusCode::NOT_FOUND, "", "Not Found"),
        }
    }

    /// Returns a commit if the user may see it, else an error response.
    fn find(&self, id: &str, revision: &str, has_token: bool) -> Result<(String, Repository), Box<Answer>> {
        let repositories = self.repositories.lock().unwrap();
        let is_visible = |repository: &Repository| has_token || repository.access != Access::Private;
        if !repositories.iter().any(|((other, _), (_, repository))| other == id && is_visible(repository)) {
            // Users without a token are not told what exists.
            let (status, message) = if has_token {
                (StatusCode::NOT_FOUND, "Repository not found")
            } else {
                (StatusCode::UNAUTHORIZED, "Invalid username or password.")
            };
            return Err(Box::new(refusal(status, "RepoNotFound", message)));
        }
        let revision = revision.replace("%2F", "/");
        let found = repositories.get(&(id.to_owned(), revision)).cloned();
        found.ok_or_else(|| Box::new(refusal(StatusCode::NOT_FOUND, "RevisionNotFound", "Invalid rev id")))
    }

    /// The location of a file's content.
    fn resolve(&self, commit: &str, repository: &Repository, [organisation, name, file]: &[&str; 3]) -> Answer {
        let Some(content) = repository.files.get(*file) else {
            return refusal(StatusCode::NOT_FOUND, "EntryNotFound", "Entry not found");
        };
        let answer = Response::builder().header("X-Repo-Commit", commit).header("X-Linked-Size", content.len());
        let answer = if is_large(file) {
            let hash = sha256(content);
            let answer = answer.status(StatusCode::FOUND).header("X-Linked-Etag", format!("\"{hash}\""));
            // Announces another protocol for the file.
            answer.header("X-Xet-Hash", hash.clone()).header(LOCATION, format!("{}/cdn/{hash}?Signature=s", self.cdn))
        } else {
            let answer = answer.status(StatusCode::TEMPORARY_REDIRECT);
            let answer = answer.header("ETag", format!("\"{}\"", git_id(content, false)));
            answer.header(LOCATION, format!("/api/resolve-cache/models/{organisation}/{name}/{commit}/{file}"))
        };
        full(answer, Bytes::new(), false)
    }

    async fn large_file(&self, hash: &str, range: Option<&str>, is_head: bool) -> Answer {
        let content = {
            let repositories = self.repositories.lock().unwrap();
            let contents = repositories.values().flat_map(|(_, repository)| repository.files.values());
            contents.into_iter().find(|content| sha256(content) == hash).cloned()
        };
        let Some(mut content) = content else { return refusal(StatusCode::FORBIDDEN, "", "AccessDenied") };
        let answer = Response::builder().header("ETag", format!("\"{hash}\"")).header("Accept-Ranges", "bytes");
        if is_head {
            return full(answer, content, true);
        }
        let (damaged, cut, stalled, ignores_ranges, delay) = {
            let mut faults = self.faults.lock().unwrap();
            let (damaged, cut, stalled) = (take(&mut faults.damages), take(&mut faults.cuts), take(&mut faults.stalls));
            (damaged, cut, stalled, faults.ignores_ranges, faults.delay)
        };
        tokio::time::sleep(delay).await;
        if damaged {
            let mut changed = content.to_vec();
            changed[content.len() / 2] ^= 1;
            content = changed.into();
        }
        let answer = match range.filter(|_| !ignores_ranges) {
            None => answer,
            Some(range) => {
                let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
                let place = format!("bytes {start}-{last}/{}", content.len());
                content = content.slice(start..=last);
                answer.status(StatusCode::PARTIAL_CONTENT).header("Content-Range", place)
            }
        };
        if !cut && !stalled {
            return full(answer, content, false);
        }
        let answer = answer.header("Content-Length", content.len());
        let half = futures::stream::iter([Ok(Frame::data(content.slice(..content.len() / 2)))]);
        let rest = futures::stream::once(async move {
            // Give the first half time to be sent.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if stalled {
                std::future::pending::<()>().await;
            }
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        });
        answer.body(StreamBody::new(half.chain(rest)).boxed_unsync()).unwrap()
    }
}

/// Takes one from the count. Returns whether there was one left.
fn take(count: &mut usize) -> bool {
    let due = *count > 0;
    *count = count.saturating_sub(1);
    due
}

/// The listing of a repository.
fn tree(repository: &Repository) -> Value {
    let entry = |(path, content): (&String, &Bytes)| {
        let (large, size) = (is_large(path), content.len());
        let mut entry = json!({"type": "file", "oid": git_id(content, large), "size": size, "path": path});
        if large {
            let hash = sha256(content);
            entry["lfs"] = json!({"oid": hash, "size": size, "pointerSize": 130});
            entry["xetHash"] = json!(hash);
        }
        entry
    };
    let folder = json!({"type": "directory", "oid": "0".repeat(40), "size": 0, "path": "onnx"});
    repository.files.iter().map(entry).chain([folder]).collect()
}

/// A complete response. For a HEAD request, only its length.
fn full(answer: hyper::http::response::Builder, content: Bytes, is_head: bool) -> Answer {
    let answer = if is_head { answer.header("Content-Length", content.len()) } else { answer };
    let content = if is_head { Bytes::new() } else { content };
    answer.body(Full::new(content).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let answer = Response::builder().status(status).header("X-Error-Message", message);
    let answer = if code.is_empty() { answer } else { answer.header("X-Error-Code", code) };
    full(answer, json!({"error": message}).to_string().into(), false)
}
