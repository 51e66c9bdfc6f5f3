//! What goes wrong between a program and an object store, made to happen.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, HttpError};

/// A fault that a client is expected to get over by trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// 500 `InternalError` instead of an answer.
    InternalError,
    /// 503 `SlowDown` instead of an answer.
    SlowDown,
    /// The connection is reset when the request has arrived; nothing is done.
    ResetBefore,
    /// The request is done, and the connection reset in the middle of the answer or, if that has no body, before it.
    ResetWithin,
    /// The answer is late.
    Delay,
    /// There is no answer; the client must lose its patience.
    Silence,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::InternalError, Self::SlowDown, Self::ResetBefore, Self::ResetWithin, Self::Delay, Self::Silence];
}

/// How late an answer is.
const DELAY: Duration = Duration::from_millis(200);

/// Faults strike at random, but a request that is repeated often enough gets through.
pub(crate) struct Faults {
    kinds: Vec<Fault>,
    probability: f64,
    /// How often a request fails before it is spared.
    most_in_a_row: usize,
    /// Whether a request that was spared may fail again when it is repeated.
    again: bool,
    /// Silence costs the client its whole patience, so there is only so much of it.
    most_silences: usize,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    injected: BTreeMap<Fault, usize>,
    in_a_row: HashMap<String, usize>,
}

impl Faults {
    /// Faults of these kinds, each as likely as the other.
    pub(crate) fn new(seed: u64, probability: f64, kinds: &[Fault]) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let state = State { random, injected: BTreeMap::new(), in_a_row: HashMap::new() };
        Self {
            kinds: kinds.to_vec(),
            probability,
            most_in_a_row: 3,
            again: true,
            most_silences: 3,
            state: Mutex::new(state),
        }
    }

    /// Every request suffers this fault when it is made for the first time.
    pub(crate) fn at_first(kind: Fault) -> Self {
        Self { most_in_a_row: 1, again: false, ..Self::new(0, 1.0, &[kind]) }
    }

    /// How often each fault was injected.
    pub(crate) fn injected(&self) -> BTreeMap<Fault, usize> {
        self.state.lock().unwrap().injected.clone()
    }

    /// What happens to this request.
    fn choose(&self, request: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let State { random, injected, in_a_row } = &mut *state;
        let failures = in_a_row.entry(request.to_owned()).or_default();
        if *failures == self.most_in_a_row || random.f64() >= self.probability {
            if self.again {
                *failures = 0;
            }
            return None;
        }
        let mut fault = *random.choice(&self.kinds)?;
        if fault == Fault::Silence && injected.get(&fault) == Some(&self.most_silences) {
            fault = Fault::ResetBefore;
        }
        *injected.entry(fault).or_default() += 1;
        *failures += 1;
        Some(fault)
    }

    /// Answers a request, or fails to.
    pub(crate) async fn answer(
        &self,
        service: &S3Service,
        request: Request<Body>,
    ) -> Result<Response<Body>, HttpError> {
        match self.choose(&format!("{} {}", request.method(), request.uri())) {
            None => service.call(request).await,
            Some(Fault::InternalError) => Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            Some(Fault::SlowDown) => Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
            Some(Fault::ResetBefore) => Err(reset()),
            Some(Fault::ResetWithin) => cut(service.call(request).await?).await,
            Some(Fault::Delay) => {
                tokio::time::sleep(DELAY).await;
                service.call(request).await
            }
            Some(Fault::Silence) => std::future::pending().await,
        }
    }
}

/// A server gives up the connection of a request that has this outcome.
fn reset() -> HttpError {
    HttpError::new(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)))
}

/// An answer of S3 that something is wrong.
pub(crate) fn error(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>");
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

/// The first half of an answer.
async fn cut(answer: Response<Body>) -> Result<Response<Body>, HttpError> {
    let (head, body) = answer.into_parts();
    let body = BodyExt::collect(body).await.map_err(HttpError::new)?.to_bytes();
    if body.is_empty() {
        return Err(reset());
    }
    let half = body.slice(..body.len() / 2);
    let rest = futures::stream::once(async {
        // So that the first half is on its way.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let frames = futures::stream::once(async { Ok::<Frame<Bytes>, io::Error>(Frame::data(half)) }).chain(rest);
    Ok(Response::from_parts(head, Body::http_body_unsync(StreamBody::new(frames))))
}
