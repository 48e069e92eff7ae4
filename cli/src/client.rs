//! The daemon's API, from outside.

use std::time::Duration;

use bacnode_protocol::api::{ErrorBody, Page};
use futures::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Exit, Failure, Result};

/// Speaks to one node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// The client of the node at `address`: a URL, or HOST:PORT.
    pub(crate) fn new(address: &str) -> Result<Self> {
        let address = address.trim_end_matches('/');
        if address.starts_with("https://") || address.starts_with('/') || address.starts_with("unix:") {
            return Err(Failure::usage(format!("`{address}`: only http:// addresses of this machine are offered yet")));
        }
        let base = if address.starts_with("http://") { address.to_owned() } else { format!("http://{address}") };
        let valid = reqwest::Url::parse(&base).is_ok_and(|url| url.has_host());
        if !valid {
            return Err(Failure::usage(format!("`{address}` is not an address of an API"))
                .hint("write it like 127.0.0.1:1234 or http://127.0.0.1:1234"));
        }
        // The one provider of cryptography that is built in; another part of the process may have said so before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).build();
        let http = http.map_err(|error| Failure::failed(format!("cannot set up a client: {error}")))?;
        Ok(Self { base, http })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1/{path}", self.base))
    }

    /// Fetches from somewhere else than the node.
    pub(crate) async fn outside(url: &str) -> Result<Response> {
        let failed = |cause: String| Failure::failed(format!("cannot fetch the result: {cause}"));
        // Where it may lead is judged by its first host: it must not go on to another.
        let client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(10));
        let client = client.redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| failed(error.to_string()))?;
        let response = client.get(url).send().await.map_err(|error| failed(error.without_url().to_string()))?;
        if !response.status().is_success() {
            return Err(failed(format!("the store says {}", response.status())));
        }
        Ok(response)
    }

    /// Sends a request, and takes only a good answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) if !body.message.is_empty() => Failure::from_api(body),
            _ => Failure::new(Exit::Unreachable, format!("{} answers {status}, which no bacnode does", self.base))
                .hint("is something else listening there? --api or BACNODE_API names the node"),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Failure::new(
            Exit::Unreachable,
            format!("the node at {} cannot be reached: {}", self.base, lower(&cause.to_string())),
        )
        .hint("start one with `bacnode serve`, or name one with --api or BACNODE_API")
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        response.json().await.map_err(|error| Failure::failed(format!("the node's answer is not understood: {error}")))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    /// Every item of a list, page by page.
    pub(crate) async fn every_page<T: DeserializeOwned + Default>(&self, path: &str) -> Result<Vec<T>> {
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let page: Page<T> = self.get(&format!("{path}&limit=1000&next_token={token}")).await?;
            items.extend(page.items);
            if page.next_token.is_empty() {
                return Ok(items);
            }
            token = page.next_token;
        }
    }

    pub(crate) async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    /// Lines of JSON as they come.
    pub(crate) async fn lines<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>> {
        let response = self.send(self.request(Method::GET, path)).await?;
        Ok(Lines { body: Box::pin(response.bytes_stream()), buffer: Vec::new(), kind: std::marker::PhantomData })
    }
}

fn lower(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or(text);
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// One segment of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

type Body = std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>;

/// A stream of JSON lines.
pub(crate) struct Lines<T> {
    body: Body,
    buffer: Vec<u8>,
    kind: std::marker::PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next one; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let item = serde_json::from_slice(&line);
                return item
                    .map(Some)
                    .map_err(|error| Failure::failed(format!("the node's answer is not understood: {error}")));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
