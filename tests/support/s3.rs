//! A real S3-compatible server in the test's own process. It verifies signatures, and stores objects as files in a
//! folder.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::faults::{Faults, error};

/// The only bucket.
pub(crate) const BUCKET: &str = "bucket";

const ACCESS_KEY: &str = "the-access-key";
const SECRET_KEY: &str = "the-secret-key";
const REGION: &str = "us-east-1";

/// Environment variables for a program.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// The server. Dropping it stops it.
pub(crate) struct S3Server {
    runtime: Runtime,
    root: TempDir,
    answers: Answers,
    endpoint: String,
    client: AmazonS3,
}

impl S3Server {
    /// Starts a server with an empty bucket, on a free port of this machine.
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let answers =
            Answers { service: builder.build(), root: root.path().into(), requests: Arc::default(), faults: None };
        let endpoint = listen(&runtime, answers.clone());
        let client = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(&endpoint)
            .with_allow_http(true)
            .with_region(REGION)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()
            .unwrap();
        Self { runtime, root, answers, endpoint, client }
    }

    /// The environment with which a program uses the server.
    pub(crate) fn environment(&self) -> Environment {
        environment(&self.endpoint)
    }

    /// The same, for an endpoint of the server that injects these faults.
    pub(crate) fn disturbed_by(&self, faults: Arc<Faults>) -> Environment {
        environment(&listen(&self.runtime, Answers { faults: Some(faults), ..self.answers.clone() }))
    }

    pub(crate) fn put(&self, key: &str, content: impl Into<Bytes>) {
        let content: Bytes = content.into();
        self.runtime.block_on(self.client.put(&Path::parse(key).unwrap(), content.into())).unwrap();
    }

    pub(crate) fn get(&self, key: &str) -> object_store::Result<Bytes> {
        self.runtime.block_on(async { self.client.get(&Path::parse(key).unwrap()).await?.bytes().await })
    }

    /// The keys below this directory, sorted.
    pub(crate) fn list(&self, directory: &str) -> Vec<String> {
        let listed = self.client.list(Some(&Path::from(directory)));
        let mut keys: Vec<String> =
            self.runtime.block_on(listed.map_ok(|meta| meta.location.to_string()).try_collect()).unwrap();
        keys.sort();
        keys
    }

    /// The file of an object, for tests that need many or damaged ones.
    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    /// Method and URI of every request since the last call, including the test's own.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.answers.requests.lock().unwrap())
    }
}

fn environment(endpoint: &str) -> Environment {
    vec![
        ("AWS_ENDPOINT", endpoint.to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}

/// Starts answering requests, and returns the URL.
fn listen(runtime: &Runtime, answers: Answers) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            if answers.faults.is_some() {
                // A failed connection is reset, not closed cleanly.
                socket.set_zero_linger().unwrap();
            }
            let answers = answers.clone();
            let service = service_fn(move |request| answers.clone().answer(request));
            // The client sees connection errors too.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    endpoint
}

/// How an endpoint answers a request.
#[derive(Clone)]
struct Answers {
    service: S3Service,
    root: Arc<std::path::Path>,
    requests: Arc<Mutex<Vec<String>>>,
    faults: Option<Arc<Faults>>,
}

impl Answers {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
        self.requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        // Differences of the server from S3: it creates the buckets it is asked to write to, and it has directories,
        // which it fails to read like objects.
        let key = request.uri().path().trim_start_matches('/');
        let (bucket, name) = key.split_once('/').unwrap_or((key, ""));
        if !self.root.join(bucket).is_dir() {
            return Ok(error(StatusCode::NOT_FOUND, "NoSuchBucket"));
        }
        if request.method() == Method::HEAD && !name.is_empty() && self.root.join(key).is_dir() {
            return Ok(error(StatusCode::NOT_FOUND, "NoSuchKey"));
        }
        let request = request.map(Body::from);
        match self.faults {
            None => self.service.call(request).await,
            Some(faults) => faults.answer(&self.service, request).await,
        }
    }
}
