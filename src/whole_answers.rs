//! Answers of an object store that break off are asked for again.
//!
//! `object_store` repeats a request whose connection breaks before the answer begins, and goes on where the content of
//! an object breaks off. But if the answer to another request breaks off (a page of a listing, the beginning or the end
//! of an upload) the request fails. Here such answers, which are small, are read to their end before they are handed
//! on, so that one of them that breaks off counts as a connection broken before the answer.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// Makes the clients of S3 stores.
#[derive(Debug)]
pub(crate) struct WholeAnswers;

impl HttpConnector for WholeAnswers {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(WholeAnswersClient(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct WholeAnswersClient(HttpClient);

#[async_trait]
impl HttpService for WholeAnswersClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let large = asks_for_an_object(&request);
        let answer = self.0.execute(request).await?;
        if large {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        // Of this kind are requests tried again that may be done twice.
        let body = body.bytes().await.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// Whether the answer is the content of an object, which may be large.
fn asks_for_an_object(request: &HttpRequest) -> bool {
    let is_listing = request.uri().query().is_some_and(|query| query.contains("list-type="));
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

    /// Breaks off all its answers.
    #[derive(Debug)]
    struct Broken;

    #[async_trait]
    impl HttpService for Broken {
        async fn call(&self, _request: HttpRequest) -> Result<HttpResponse, HttpError> {
            let frames = [
                Ok(Frame::data(Bytes::from("the first half"))),
                Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other("broken"))),
            ];
            Ok(HttpResponse::new(HttpResponseBody::new(StreamBody::new(stream::iter(frames)))))
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error_unless_it_is_an_object() {
        let client = WholeAnswersClient(HttpClient::new(Broken));
        for (method, uri, fails) in [
            ("GET", "http://host/bucket?list-type=2&prefix=a", true),
            ("POST", "http://host/bucket/a?uploads=", true),
            ("PUT", "http://host/bucket/a", true),
            ("GET", "http://host/bucket/a", false),
        ] {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method.parse().unwrap();
            *request.uri_mut() = uri.parse().unwrap();
            let kind = client.call(request).await.err().map(|error| error.kind());
            assert_eq!(kind, fails.then_some(HttpErrorKind::Interrupted), "{method} {uri}");
        }
    }
}
