//! The daemon's API, from outside.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::api::{ErrorBody, Page};
use futures::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_rustls::TlsConnector;

use crate::error::{Exit, Failure, Result};
use crate::socket::Way;

/// Where a node's API is.
#[derive(Debug, Clone)]
enum At {
    /// At a host's port, over TLS or not.
    Port { host: String, port: u16, tls: bool },
    /// At a socket of this machine.
    Socket(PathBuf),
}

/// Speaks to one node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    at: At,
    http: reqwest::Client,
    token: Option<String>,
    roots: Vec<CertificateDer<'static>>,
    /// Those to ask when this one is gone.
    others: Vec<Self>,
}

/// How long a node may take to say that it is there, where there are others.
const THERE_TIMEOUT: Duration = Duration::from_secs(2);

impl Client {
    /// The client of the first node of these that is there, or of the first; with commas between their addresses.
    pub(crate) fn of(addresses: &str) -> Result<Self> {
        let mut clients = addresses.split(',').map(|address| Self::new(address.trim()));
        let first = clients.next().unwrap_or_else(|| Self::new(addresses))?;
        let mut others = clients.collect::<Result<Vec<_>>>()?;
        if others.is_empty() {
            return Ok(first);
        }
        others.insert(0, first);
        let there = others.iter().position(Self::is_there).unwrap_or(0);
        let chosen = others.remove(there);
        Ok(Self { others, ..chosen })
    }

    /// Another of the nodes that were named, if one is there.
    pub(crate) fn another(&self) -> Option<&Self> {
        self.others.iter().find(|client| client.is_there())
    }

    fn is_there(&self) -> bool {
        match &self.at {
            At::Socket(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
            At::Port { host, port, .. } => {
                let addresses = (host.as_str(), *port).to_socket_addrs();
                let reached = |address| TcpStream::connect_timeout(&address, THERE_TIMEOUT).is_ok();
                addresses.is_ok_and(|mut addresses| addresses.any(reached))
            }
        }
    }

    /// The client of the node at `address`: a URL, HOST:PORT, or the path of a socket. BACNODE_TOKEN says what it bears,
    /// BACNODE_API_CA which certificate it trusts beside those that the system does.
    pub(crate) fn new(address: &str) -> Result<Self> {
        let wrong = || {
            Failure::usage(format!("`{address}` is not an address of an API"))
                .hint("write it like 127.0.0.1:1234, https://node.example:1234 or unix:/path/to/api.sock")
        };
        let trimmed = address.trim_end_matches('/');
        let socket = trimmed.strip_prefix("unix://").or_else(|| trimmed.strip_prefix("unix:"));
        let socket = socket.or_else(|| trimmed.starts_with('/').then_some(trimmed));
        let (base, at) = if let Some(path) = socket {
            ("http://localhost".to_owned(), At::Socket(PathBuf::from(path)))
        } else {
            let base = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
            let url = reqwest::Url::parse(&base).map_err(|_| wrong())?;
            let tls = match url.scheme() {
                "http" => false,
                "https" => true,
                _ => return Err(wrong()),
            };
            let host = url.host_str().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
            let port = url.port_or_known_default().ok_or_else(wrong)?;
            (base, At::Port { host, port, tls })
        };
        let token =
            std::env::var("BACNODE_TOKEN").ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if token.is_some() && matches!(&at, At::Port { host, tls: false, .. } if !is_loopback(host)) {
            return Err(Failure::usage("a token is not sent over http:// to another machine").hint("use https://"));
        }
        let roots = match std::env::var_os("BACNODE_API_CA") {
            Some(path) => trusted(Path::new(&path))?,
            None => Vec::new(),
        };
        // The one provider of cryptography that is built in; another part of the process may have said so before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5));
        if let At::Socket(path) = &at {
            http = http.unix_socket(path.clone());
        }
        if let Some(token) = &token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::usage("BACNODE_TOKEN: this is no token"))?;
            bearer.set_sensitive(true);
            http = http.default_headers([(AUTHORIZATION, bearer)].into_iter().collect());
        }
        http = if matches!(&at, At::Port { tls: true, .. }) {
            http.tls_certs_merge(roots.iter().filter_map(|root| reqwest::Certificate::from_der(root).ok()))
        } else {
            // The system's certificates take a moment to read, and not every system has some.
            http.tls_certs_only([])
        };
        let http = http.build().map_err(|error| {
            Failure::failed(format!("https is not possible here: {}", root_cause(&error)))
                .hint("are the system's root certificates installed (ca-certificates)?")
        })?;
        Ok(Self { base, at, http, token, roots, others: Vec::new() })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Where it speaks to, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.at {
            At::Port { .. } => self.base.clone(),
            At::Socket(path) => path.display().to_string(),
        }
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A connection of its own, for what is no request.
    pub(crate) async fn connect(&self) -> std::io::Result<Box<dyn Way>> {
        let (host, port, tls) = match &self.at {
            At::Socket(path) => return Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            At::Port { host, port, tls } => (host, *port, *tls),
        };
        let stream = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
        if !tls {
            return Ok(Box::new(stream));
        }
        let config = ClientConfig::builder().dangerous();
        let verifier = Verifier::new_with_extra_roots(self.roots.iter().cloned(), provider());
        let verifier = verifier.map_err(std::io::Error::other)?;
        let config = config.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1/{path}", self.base))
    }

    /// Fetches from somewhere else than the node.
    pub(crate) async fn outside(url: &str) -> Result<Response> {
        let failed = |cause: String| Failure::failed(format!("cannot fetch the result: {cause}"));
        // Where it may lead is judged by its first host: it must not go on to another.
        let client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(10));
        let client = if url.starts_with("https:") { client } else { client.tls_certs_only([]) };
        let client = client.redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| failed(root_cause(&error)))?;
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
            _ => Failure::new(Exit::Unreachable, format!("{} answers {status}, which no bacnode does", self.shown()))
                .hint("is something else listening there? --api or BACNODE_API names the node"),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = root_cause(error);
        Failure::new(Exit::Unreachable, format!("the node at {} cannot be reached: {cause}", self.shown()))
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

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Certificates in a file.
fn trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    certificates.map_err(|error| Failure::usage(format!("BACNODE_API_CA {}: {error}", path.display())))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The cause of all causes, for people.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    lower(&cause.to_string())
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
