//! The way out for tasks that may speak to some web servers: a proxy that knows their names.
//!
//! The task's network has nothing in it but this proxy's door. `CONNECT` (RFC 9110, section 9.3.6) opens a pipe to a server
//! of the job's list, other requests name a URL there in full (RFC 9112, section 3.2.2) and are passed on with a new `Host`.
//! Names are resolved here, and only to addresses that inputs may be fetched from, too.

use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::compute::Web;
use bacnode_protocol::wire::bounded::TextMax;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::web::addresses_of;

/// Connections of one task at once.
const CONNECTIONS_MAX: usize = 64;
/// Connections of all tasks at once, and how long each may last.
const ALL_CONNECTIONS_MAX: usize = 192;
const CONNECTION_LASTS: Duration = Duration::from_secs(3600);
/// The longest head of a request, and its headers.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How long a task may take to say what it wants, and a server to answer at all.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Ports below 1024 that are the web's.
const WEB_PORTS: [u16; 2] = [80, 443];

/// Where a task may go.
#[derive(Debug, Clone)]
pub(super) struct Egress {
    /// Domains; one that begins with a dot stands for all below it.
    pub(super) domains: Vec<String>,
    /// At which addresses.
    pub(super) web: Web,
    /// For connections of all tasks together: each takes two of this process's descriptors.
    pub(super) room: Arc<Semaphore>,
}

/// Where a task comes to the proxy.
#[derive(Debug)]
pub(super) enum Door {
    /// In the network of a container.
    Tcp(TcpListener),
    /// In a folder that a worker knows of.
    Unix(UnixListener),
}

/// A connection, of whatever kind.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Door {
    async fn accept(&self) -> std::io::Result<Box<dyn Wire>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Room for the connections of all tasks.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ALL_CONNECTIONS_MAX))
}

/// A request, as far as it matters here.
#[derive(Debug)]
struct Wanted {
    host: String,
    port: u16,
    /// What the server is told instead of the head that came; a pipe has none.
    head: Option<Vec<u8>>,
}

/// Why a request goes nowhere: a status and a sentence.
type Refusal = (&'static str, String);

/// Serves one task until it is dropped.
pub(super) async fn serve(door: Door, egress: Egress) {
    let mut open = JoinSet::new();
    loop {
        while open.len() >= CONNECTIONS_MAX {
            open.join_next().await;
        }
        let Ok(client) = door.accept().await else {
            // Out of descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let egress = egress.clone();
        let Ok(room) = Arc::clone(&egress.room).acquire_owned().await else { return };
        open.spawn(async move {
            let _room = room;
            let _ = tokio::time::timeout(CONNECTION_LASTS, egress.pass(client)).await;
        });
        while open.try_join_next().is_some() {}
    }
}

impl Egress {
    pub(super) fn new(domains: &[TextMax<255>], web: Web, room: Arc<Semaphore>) -> Self {
        Self { domains: domains.iter().map(ToString::to_string).collect(), web, room }
    }

    async fn pass(&self, mut client: impl Wire) {
        let (head, rest) = match tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut client)).await {
            Ok(Ok(read)) => read,
            Ok(Err(refusal)) => return refuse(client, refusal).await,
            Err(_) => return,
        };
        let wanted = match wanted(&head) {
            Ok(wanted) => wanted,
            Err(refusal) => return refuse(client, refusal).await,
        };
        let mut server = match self.connect(&wanted).await {
            Ok(server) => server,
            Err(refusal) => return refuse(client, refusal).await,
        };
        let opened = match &wanted.head {
            Some(head) => server.write_all(head).await,
            None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await,
        };
        if opened.is_ok() && server.write_all(&rest).await.is_ok() {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    }

    async fn connect(&self, wanted: &Wanted) -> Result<TcpStream, Refusal> {
        let Wanted { host, port, .. } = wanted;
        if !self.admits(host) {
            return Err(("403 Forbidden", format!("{host} is not among the domains of this job")));
        }
        if *port < 1024 && !WEB_PORTS.contains(port) {
            return Err(("403 Forbidden", format!("port {port} is not the web's")));
        }
        let addresses = addresses_of(host, *port, self.web).await.map_err(|cause| ("403 Forbidden", cause))?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&addresses[..])).await;
        let failed = |cause: String| ("502 Bad Gateway", format!("{host}:{port}: {cause}"));
        connected.map_err(|_| failed("it does not answer".into()))?.map_err(|error| failed(error.to_string()))
    }

    fn admits(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.domains.iter().any(|domain| match domain.strip_prefix('.') {
            Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => host == *domain,
        })
    }
}

/// The head of a request, and what came after it.
async fn read_head(client: &mut impl Wire) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = head.split_off(end + 4);
            return Ok((head, rest));
        }
        if head.len() >= HEAD_BYTES_MAX {
            return Err(("431 Request Header Fields Too Large", "the request is too long".into()));
        }
        match client.read_buf(&mut head).await {
            Ok(0) | Err(_) => return Err(("400 Bad Request", "the request is not whole".into())),
            Ok(_) => {}
        }
    }
}

fn wanted(head: &[u8]) -> Result<Wanted, Refusal> {
    let bad = |cause: &str| ("400 Bad Request", cause.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).map_err(|_| bad("the request is not one of HTTP/1.1"))?;
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':').ok_or_else(|| bad("CONNECT wants HOST:PORT"))?;
        let port = port.parse().map_err(|_| bad("CONNECT wants HOST:PORT"))?;
        return Ok(Wanted { host: host.trim_matches(['[', ']']).to_owned(), port, head: None });
    }
    let url = Url::parse(target).map_err(|_| bad("a request to this proxy names its URL in full"))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(bad("the URL names no server"));
    };
    if url.scheme() != "http" {
        return Err(bad("https goes through CONNECT"));
    }
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    // One request a connection, so that the next one is judged, too.
    let mut passed =
        format!("{method} {}{query} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n", url.path()).into_bytes();
    let own = ["host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"];
    for header in request.headers.iter().filter(|header| !own.contains(&header.name.to_ascii_lowercase().as_str())) {
        passed.extend([header.name.as_bytes(), b": ", header.value, b"\r\n"].concat());
    }
    passed.extend(b"\r\n");
    Ok(Wanted { host: host.trim_matches(['[', ']']).to_owned(), port, head: Some(passed) })
}

async fn refuse(mut client: impl Wire, (status, cause): Refusal) {
    let body = format!("bacnode: {cause}\n");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(domains: &[&str]) -> Egress {
        let domains = domains.iter().map(|&domain| domain.to_owned()).collect();
        Egress { domains, web: Web::Any, room: room() }
    }

    #[test]
    fn domains_are_whole_names_or_all_below_one() {
        let egress = egress(&["example.org", ".example.net"]);
        for host in ["example.org", "EXAMPLE.org", "example.org.", "a.example.net", "a.b.example.net"] {
            assert!(egress.admits(host), "{host}");
        }
        for host in
            ["a.example.org", "example.net", ".example.net", "evilexample.net", "example.org.evil", "127.0.0.1", ""]
        {
            assert!(!egress.admits(host), "{host}");
        }
    }

    #[test]
    fn a_request_is_passed_on_to_the_server_that_its_url_names() {
        let head = b"GET http://example.org:8080/a?b=1 HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: x\r\nAccept: y\r\n\r\n";
        let wanted = wanted(head).expect("a request");
        assert_eq!((wanted.host.as_str(), wanted.port), ("example.org", 8080));
        let passed = String::from_utf8(wanted.head.expect("a head")).expect("text");
        assert_eq!(passed, "GET /a?b=1 HTTP/1.1\r\nHost: example.org:8080\r\nConnection: close\r\nAccept: y\r\n\r\n");
    }

    #[test]
    fn what_is_no_request_for_a_proxy_is_refused() {
        for head in [
            &b"GET /a HTTP/1.1\r\n\r\n"[..],
            b"GET ftp://example.org/ HTTP/1.1\r\n\r\n",
            b"GET https://example.org/ HTTP/1.1\r\n\r\n",
            b"CONNECT example.org HTTP/1.1\r\n\r\n",
            b"CONNECT example.org:99999 HTTP/1.1\r\n\r\n",
            b"nonsense\r\n\r\n",
        ] {
            assert!(wanted(head).is_err(), "{}", String::from_utf8_lossy(head));
        }
    }

    #[tokio::test]
    async fn a_port_of_another_service_is_not_reached() {
        let egress = egress(&["127.0.0.1"]);
        let wanted = Wanted { host: "127.0.0.1".into(), port: 22, head: None };
        assert_eq!(egress.connect(&wanted).await.expect_err("refused").0, "403 Forbidden");
    }
}
