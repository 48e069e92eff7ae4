//! The library's way to the network: this node's own client, whose answers are bounded.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::{Client, Method};

/// The longest answer but for an object's bytes, which the library reads whole: a store may be anybody's.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Connector(pub(super) Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Bounded(self.0.clone())))
    }
}

#[derive(Debug)]
struct Bounded(Client);

#[async_trait::async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let lists = request.uri().query().is_some_and(|query| query.contains("list-type"));
        let object = request.method() == Method::GET && !lists;
        let response = self.0.call(request).await?;
        if object && response.status().is_success() {
            // It is written as it comes, and not beyond the length that was listed.
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let whole = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let whole: Bytes = whole
            .map_err(|error| match error.downcast::<HttpError>() {
                Ok(error) => *error,
                Err(error) if error.is::<LengthLimitError>() => {
                    HttpError::new(HttpErrorKind::Decode, std::io::Error::other("the store's answer is too long"))
                }
                Err(error) => HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(error)),
            })?
            .to_bytes();
        Ok(HttpResponse::from_parts(parts, whole.into()))
    }
}
