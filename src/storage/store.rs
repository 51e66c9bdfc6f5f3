//! Opens stores by URL. The HTTP client of remote stores retries requests that `object_store` would not retry.
//!
//! `object_store` retries a request whose connection breaks before the response begins, and resumes the download of an
//! object that breaks off. Two cases are left:
//!
//! - Another response breaks off (a page of a listing, the beginning or end of an upload, an error). Such a response is
//!   small. This client reads it completely before returning it, so a response that breaks off counts as a connection
//!   that broke before the response.
//! - The connection breaks while creating an object that must not exist yet. The store may have created it, and would
//!   refuse the repeated request. This client retries anyway: whoever creates an object must check whether an existing
//!   one is its own.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, parse_url};
use url::Url;

/// Prefixes of the variables that configure stores. Others (`REGION`, `TOKEN`) would be read as settings too.
const VARIABLES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// Headers that let a write succeed only if the object does not exist yet.
const CREATION_HEADERS: [&str; 2] = ["if-none-match", "x-goog-if-generation-match"];

/// The store of a URL, configured from the environment, and the path in it.
///
/// # Errors
/// If there is no such store, or its settings are wrong. No request is sent yet.
pub(crate) fn open(url: &Url) -> object_store::Result<(Arc<dyn ObjectStore>, Path)> {
    let settings = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| VARIABLES.iter().any(|prefix| name.starts_with(prefix)));
    macro_rules! build {
        ($builder:ty) => {{
            let builder = <$builder>::new().with_url(url.as_str()).with_http_connector(StoreConnector);
            let builder = settings.fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
                Ok(key) => builder.with_config(key, value),
                // The variable is meant for other programs.
                Err(_) => builder,
            });
            Arc::new(builder.build()?)
        }};
    }
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder),
        _ => parse_url(url)?.0.into(),
    };
    Ok((store, path))
}

/// Creates the clients of remote stores.
#[derive(Debug)]
struct StoreConnector;

impl HttpConnector for StoreConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(StoreClient(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct StoreClient(HttpClient);

#[async_trait]
impl HttpService for StoreClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let creates = CREATION_HEADERS.iter().any(|header| request.headers().contains_key(*header));
        self.answer(request).await.map_err(|error| match error.kind() {
            // `Request` means that the request was not sent, so it is retried.
            HttpErrorKind::Interrupted | HttpErrorKind::Timeout if creates => {
                HttpError::new(HttpErrorKind::Request, error)
            }
            _ => error,
        })
    }
}

impl StoreClient {
    /// Returns a response: read completely, unless it is the content of an object.
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asks_for_an_object = asks_for_an_object(&request);
        let answer = self.0.execute(request).await?;
        if asks_for_an_object && answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.bytes().await.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// Whether the response is the content of an object, which may be large.
fn asks_for_an_object(request: &HttpRequest) -> bool {
    let is_listing =
        request.uri().query().is_some_and(|query| query.contains("list-type=") || query.contains("comp=list"));
    *request.method() == "GET" && !is_listing
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use object_store::client::{HttpRequestBody, HttpResponseBody};

    use super::*;

    /// Answers with this status, and breaks off every response.
    #[derive(Debug)]
    struct Broken(u16);

    #[async_trait]
    impl HttpService for Broken {
        async fn call(&self, _request: HttpRequest) -> Result<HttpResponse, HttpError> {
            let frames = [
                Ok(Frame::data(Bytes::from("the first half"))),
                Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other("broken"))),
            ];
            let mut answer = HttpResponse::new(HttpResponseBody::new(StreamBody::new(stream::iter(frames))));
            *answer.status_mut() = self.0.try_into().unwrap();
            Ok(answer)
        }
    }

    async fn error(status: u16, method: &str, uri: &str, header: Option<&'static str>) -> Option<HttpErrorKind> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = uri.parse().unwrap();
        if let Some(header) = header {
            request.headers_mut().insert(header, "*".parse().unwrap());
        }
        StoreClient(HttpClient::new(Broken(status))).call(request).await.err().map(|error| error.kind())
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error_unless_it_is_an_object() {
        for (status, method, uri) in [
            (200, "GET", "http://host/bucket?list-type=2&prefix=a"),
            (200, "GET", "http://host/container?restype=container&comp=list&prefix=a"),
            (200, "POST", "http://host/bucket/a?uploads="),
            (200, "PUT", "http://host/bucket/a"),
            (404, "GET", "http://host/bucket/a"),
        ] {
            let kind = error(status, method, uri, None).await;
            assert_eq!(kind, Some(HttpErrorKind::Interrupted), "{status} {method} {uri}");
        }
        assert_eq!(error(200, "GET", "http://host/bucket/a", None).await, None);
        assert_eq!(error(206, "GET", "http://host/bucket/a", None).await, None);
    }

    #[tokio::test]
    async fn a_creation_that_may_have_been_done_is_tried_again() {
        let kind = error(200, "PUT", "http://host/bucket/a", Some("if-none-match")).await;
        assert_eq!(kind, Some(HttpErrorKind::Request));
    }
}
