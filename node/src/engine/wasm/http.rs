//! Web requests of a component (`wasi:http`), through the door that the daemon keeps for its run.
//!
//! A worker reaches no network. What it reaches is a socket behind which the daemon's egress proxy listens, which knows the
//! domains that the job may speak to; a request asks there for a connection (`CONNECT`, RFC 9110 §9.3.6) and speaks for
//! itself from then on, TLS included.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::super::egress::Wire;

/// How long a server may take, unless the request says otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The longest answer of the proxy.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// The way to the web of one run.
#[derive(Debug, Clone)]
pub(super) struct WayOut {
    /// The proxy's socket; there is none if the job may speak to nobody.
    door: Option<String>,
}

/// What a request comes to: its answer, and what goes on after that.
type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WayOut {
    pub(super) fn new(door: Option<String>) -> Self {
        Self { door }
    }
}

impl WasiHttpHooks for WayOut {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let door = self.door.clone();
        Box::new(async move { send(&door.ok_or(Error::HttpRequestDenied)?, request, options).await })
    }
}

async fn send(
    door: &str,
    mut request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Sent, Error> {
    let within = |asked: Option<Duration>| asked.unwrap_or(TIMEOUT);
    let connect_timeout = within(options.as_ref().and_then(|options| options.connect_timeout));
    let answer_timeout = within(options.as_ref().and_then(|options| options.first_byte_timeout));
    let connected = tokio::time::timeout(connect_timeout, connect(door, request.uri())).await;
    let wire = connected.map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    // A server, unlike a proxy, is told the path only.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let slash = if path.starts_with('/') { "" } else { "/" };
    *request.uri_mut() = format!("{slash}{path}").parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let answered = tokio::time::timeout(answer_timeout, sender.send_request(request)).await;
    let answer = answered.map_err(|_| Error::HttpResponseTimeout)??;
    let rest = async move {
        // The task was not called off by anybody while this waits for it.
        connection.await.map_err(|_| Error::ConnectionTerminated)?.map_err(Error::from)
    };
    Ok((answer.map(|body| body.map_err(Error::from).boxed_unsync()), Box::new(rest)))
}

/// Has the proxy connect to the server that `uri` names.
async fn connect(door: &str, uri: &http::Uri) -> Result<Box<dyn Wire>, Error> {
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
    let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut wire = UnixStream::connect(door).await.map_err(Error::Connect)?;
    let asked = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    wire.write_all(asked.as_bytes()).await.map_err(Error::Connect)?;
    match status(&mut wire).await.map_err(Error::Connect)? {
        200 => {}
        403 => return Err(Error::HttpRequestDenied),
        502 => return Err(Error::DestinationUnavailable),
        _ => return Err(Error::ConnectionTerminated),
    }
    if !secure {
        return Ok(Box::new(wire));
    }
    let config = trust().ok_or(Error::TlsCertificateError)?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| Error::HttpRequestUriInvalid)?;
    let wire = TlsConnector::from(config).connect(name, wire).await.map_err(Error::Tls)?;
    Ok(Box::new(wire))
}

/// Whom the machine trusts. To find that out takes a while.
fn trust() -> Option<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    // More than one provider of cryptography is built in, and a worker has not said yet which it takes.
    let _ = rustls::crypto::ring::default_provider().install_default();
    CONFIG.get_or_init(|| ClientConfig::with_platform_verifier().ok().map(Arc::new)).clone()
}

/// The status of the proxy's answer. It says no more than that before the connection is the server's.
async fn status(wire: &mut UnixStream) -> std::io::Result<u16> {
    let mut head = Vec::with_capacity(128);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > ANSWER_BYTES_MAX {
            return Err(std::io::Error::other("the proxy answers at too great a length"));
        }
        head.push(wire.read_u8().await?);
    }
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    answer.parse(&head).map_err(std::io::Error::other)?;
    Ok(answer.code.unwrap_or(0))
}
