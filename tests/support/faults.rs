//! Injects faults between a program and an object store.

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

/// A fault that a client is expected to overcome by retrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// 500 `InternalError` instead of a response.
    InternalError,
    /// 503 `SlowDown` instead of a response.
    SlowDown,
    /// The connection is reset after the request has arrived; the request is not executed.
    ResetBefore,
    /// The request is executed. The connection is reset in the middle of the response or, if that has no body, before
    /// it.
    ResetWithin,
    /// The response is delayed.
    Delay,
    /// There is no response; the client must time out.
    Silence,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::InternalError, Self::SlowDown, Self::ResetBefore, Self::ResetWithin, Self::Delay, Self::Silence];
}

/// The delay of a response.
const DELAY: Duration = Duration::from_millis(200);

/// Injects faults at random, but a request that is repeated often enough succeeds.
pub(crate) struct Faults {
    kinds: Vec<Fault>,
    probability: f64,
    /// Failures in a row after which a request is spared.
    most_in_a_row: usize,
    /// Whether a request that was spared may fail again when it is repeated.
    again: bool,
    /// Silence costs the client a whole timeout, so the number is limited.
    most_silences: usize,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    injected: BTreeMap<Fault, usize>,
    in_a_row: HashMap<String, usize>,
}

impl Faults {
    /// Faults of these kinds, all equally likely.
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

    /// Every request fails with this fault the first time it is made.
    pub(crate) fn at_first(kind: Fault) -> Self {
        Self { most_in_a_row: 1, again: false, ..Self::new(0, 1.0, &[kind]) }
    }

    /// The number of injected faults of each kind.
    pub(crate) fn injected(&self) -> BTreeMap<Fault, usize> {
        self.state.lock().unwrap().injected.clone()
    }

    /// Chooses the fault of this request.
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

    /// Answers a request, or injects a fault.
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

/// The error on which the server resets the connection.
fn reset() -> HttpError {
    HttpError::new(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)))
}

/// An S3 error response.
pub(crate) fn error(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>");
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

/// The first half of a response.
async fn cut(answer: Response<Body>) -> Result<Response<Body>, HttpError> {
    let (head, body) = answer.into_parts();
    let body = BodyExt::collect(body).await.map_err(HttpError::new)?.to_bytes();
    if body.is_empty() {
        return Err(reset());
    }
    let half = body.slice(..body.len() / 2);
    let rest = futures::stream::once(async {
        // Give the first half time to be sent.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let frames = futures::stream::once(async { Ok::<Frame<Bytes>, io::Error>(Frame::data(half)) }).chain(rest);
    Ok(Response::from_parts(head, Body::http_body_unsync(StreamBody::new(frames))))
}
