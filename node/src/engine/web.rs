//! Inputs from the web.
//!
//! A name is resolved once, its addresses are judged, and the connection goes to one of them: whoever answers a second
//! question differently gains nothing. Addresses that are not public (this machine's, its networks', a cloud's metadata) are
//! refused unless the operator opens them, at every redirection, too. What was fetched becomes content, kept under its URL
//! and what the server calls its version, so that the next task asks only whether it has changed.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bacnode_protocol::compute::Web;
use bacnode_protocol::content::Cid;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::market::FailureKind;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use sha2::{Digest as _, Sha256};

use super::RunError;
use crate::content::{Content, Limits};

/// Redirections that are followed.
const REDIRECTS_MAX: usize = 5;
/// How long a server may be silent, and how long a connection may take.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
/// Times that a broken download is taken up again, and the pause before.
const RESUMES_MAX: u32 = 3;
const RESUME_PAUSE: Duration = Duration::from_millis(500);
/// Downloads that are remembered.
const KNOWN_MAX: usize = 1_000;

/// What fetches from the web.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    web: Web,
    /// What each URL was, with the server's name for that version of it.
    known: Mutex<HashMap<String, (HeaderValue, Cid, u64)>>,
}

/// What was fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetched {
    /// A folder with the one file.
    pub(super) root: Cid,
    /// Bytes of the file.
    pub(super) size: u64,
    /// Bytes that came over the network.
    pub(super) came: u64,
}

impl Fetcher {
    /// # Errors
    /// If the system's certificates cannot be used.
    pub(super) fn new(web: Web) -> std::io::Result<Self> {
        // Another part of the process may have chosen the same before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redirects = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                return attempt.error("it redirects too often");
            }
            match check_host(attempt.url(), web) {
                Ok(()) => attempt.follow(),
                Err(cause) => attempt.error(cause),
            }
        });
        let client = Client::builder()
            .dns_resolver(std::sync::Arc::new(Resolver(web)))
            .redirect(redirects)
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("bacnode/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { client, web, known: Mutex::default() })
    }

    /// Fetches a file of at most `max` bytes, or finds that it is here. It is pinned under `reason`.
    pub(super) async fn fetch(
        &self,
        content: &Content,
        url: &str,
        sha256: Option<[u8; 32]>,
        max: u64,
        reason: &str,
    ) -> Result<Fetched, RunError> {
        let wrong = |cause: String| RunError::task(FailureKind::Program, format!("input {url}: {cause}"));
        let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        check_host(&parsed, self.web).map_err(|cause| RunError::Node(format!("input {url}: {cause}")))?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        let held = known.filter(|(_, root, _)| content.lacking(root, 1).is_ok_and(|lacking| lacking.is_empty()));
        let mut headers = HeaderMap::new();
        if let Some((version, _, _)) = &held {
            headers.insert(IF_NONE_MATCH, version.clone());
        }
        let response = self.ask(&parsed, headers).await?;
        if let Some((_, root, size)) = held.filter(|_| response.status() == StatusCode::NOT_MODIFIED) {
            let pinned = content.pin(&root, reason);
            pinned?;
            return Ok(Fetched { root, size, came: 0 });
        }
        let version = version_of(&response);
        let folder = tempfile::tempdir_in(content.tmp())
            .map_err(|error| RunError::Node(format!("cannot make a folder for an input: {error}")))?;
        let file = folder.path().join(file_name(&parsed));
        self.download(&parsed, response, &file, max).await?;
        if let Some(wanted) = sha256 {
            let digest = tokio::task::spawn_blocking(move || sha256_of(&file)).await;
            let digest = digest.map_err(|_| RunError::Node("reading an input broke down".into()))?;
            let digest = digest.map_err(|error| RunError::Node(format!("cannot read an input: {error}")))?;
            if digest != wanted {
                return Err(wrong(format!("its SHA-256 is {}, not the one in the job", hex::encode(digest))));
            }
        }
        let (content, reason, path) = (content.clone(), reason.to_owned(), folder.path().to_owned());
        let limits = Limits { bytes: max, entries: 2 };
        let imported = tokio::task::spawn_blocking(move || content.import(&path, limits, true, &reason)).await;
        let imported = imported.map_err(|_| RunError::Node("keeping an input broke down".into()))??;
        if let Some(version) = version {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(url.to_owned(), (version, imported.root, imported.size));
        }
        Ok(Fetched { root: imported.root, size: imported.size, came: imported.size })
    }

    async fn ask(&self, url: &Url, headers: HeaderMap) -> Result<Response, RunError> {
        let response = self.client.get(url.clone()).headers(headers).send().await;
        let response = response.map_err(|error| RunError::Node(format!("input {url}: {}", cause_of(&error))))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let cause = format!("input {url}: the server says {status}");
        // What is not there, or not for us, is so from everywhere.
        if status.is_client_error() && ![StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            return Err(RunError::task(FailureKind::Program, cause));
        }
        Err(RunError::Node(cause))
    }

    /// Writes the body into `path`, taking it up again where it broke off if the file is still the same.
    async fn download(&self, url: &Url, mut response: Response, path: &Path, max: u64) -> Result<(), RunError> {
        let unwritable = |error: std::io::Error| RunError::Node(format!("cannot write an input: {error}"));
        let mut file = std::fs::File::create(path).map_err(unwritable)?;
        let (version, length) = (version_of(&response), response.content_length());
        let too_long = || {
            let cause = format!("input {url}: it has more than {}, the limit here", format_bytes(max));
            RunError::task(FailureKind::Program, cause)
        };
        if length.is_some_and(|length| length > max) {
            return Err(too_long());
        }
        let (mut written, mut resumes) = (0u64, 0);
        loop {
            let broken = loop {
                match response.chunk().await {
                    Ok(Some(bytes)) => {
                        written += bytes.len() as u64;
                        if written > max {
                            return Err(too_long());
                        }
                        file.write_all(&bytes).map_err(unwritable)?;
                    }
                    Ok(None) if length.is_none_or(|length| written >= length) => return Ok(()),
                    Ok(None) => break "it ended too early".to_owned(),
                    Err(error) => break cause_of(&error),
                }
            };
            resumes += 1;
            let Some(version) = version.clone().filter(|_| resumes <= RESUMES_MAX) else {
                return Err(RunError::Node(format!("input {url}: {broken}, after {}", format_bytes(written))));
            };
            tokio::time::sleep(RESUME_PAUSE * resumes).await;
            let mut headers = HeaderMap::new();
            if let Ok(range) = HeaderValue::from_str(&format!("bytes={written}-")) {
                headers.insert(RANGE, range);
                headers.insert(IF_RANGE, version);
            }
            response = self.ask(url, headers).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                // Another version, or a server that knows no ranges: from the beginning.
                (file, written) = (std::fs::File::create(path).map_err(unwritable)?, 0);
            }
        }
    }
}

fn sha256_of(path: &Path) -> std::io::Result<[u8; 32]> {
    let (mut file, mut hash, mut block) = (std::fs::File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&block[..read]),
        }
    }
}

/// What the server calls this version of the file.
fn version_of(response: &Response) -> Option<HeaderValue> {
    let strong = |value: &&HeaderValue| !value.as_bytes().starts_with(b"W/");
    let headers = response.headers();
    headers.get(ETAG).filter(strong).or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

/// The innermost cause, which says more than the library's words around it.
fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The last part of the path, where it is a name.
fn file_name(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
    if bacnode_protocol::content::unixfs::is_safe_name(&name) { name } else { "download".into() }
}

/// Whether an address named in a URL may be spoken to; names are judged when they are resolved.
fn check_host(url: &Url, web: Web) -> Result<(), String> {
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("`{}` is not fetched", url.scheme()));
    }
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) if web != Web::Any && !is_public(ip) => Err(not_public(host)),
        _ => Ok(()),
    }
}

fn not_public(host: &str) -> String {
    format!("{host} is not a public address, and this node fetches from no others (rule: web)")
}

/// Resolves names to addresses that may be spoken to.
#[derive(Debug)]
struct Resolver(Web);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let web = self.0;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let all: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let some: Vec<SocketAddr> =
                all.into_iter().filter(|address| web == Web::Any || is_public(address.ip())).collect();
            if some.is_empty() {
                return Err(not_public(&host).into());
            }
            Ok(Box::new(some.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet, by the registries of RFC 6890 and their updates.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (18..20).contains(&b);
    let relay = a == 192 && b == 88 && c == 99;
    !(a == 0
        || a >= 224
        || shared
        || protocol
        || benchmark
        || relay
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation())
}

/// Global unicast, and of what wraps a version 4 address only such that is public itself.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let wrapped = |high: u16, low: u16| is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        // NAT64 (RFC 6052), 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => wrapped(high, low),
        // Teredo and other protocols (RFC 2928), documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_spoken_to() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(host.parse().expect("an address")), "{host}");
        }
        for host in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"] {
            assert!(is_public(host.parse().expect("an address")), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_written_oddly_are_the_same_hosts() {
        // The URL's parser turns all of these into 127.0.0.1 or ::1.
        for url in ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://[::1]:80/x"]
        {
            let parsed = Url::parse(url).expect("a URL");
            assert!(check_host(&parsed, Web::Public).is_err(), "{url}");
            assert!(check_host(&parsed, Web::Any).is_ok(), "{url}");
        }
        assert!(check_host(&Url::parse("file:///etc/passwd").expect("a URL"), Web::Any).is_err());
    }

    #[test]
    fn a_file_keeps_its_name() {
        for (url, name) in [
            ("https://a.example/x/data.csv?y=1", "data.csv"),
            ("https://a.example/x%20y.txt", "x y.txt"),
            ("https://a.example/", "download"),
            ("https://a.example/%2e%2e", "download"),
            ("https://a.example/a%2fb", "download"),
        ] {
            assert_eq!(file_name(&Url::parse(url).expect("a URL")), name);
        }
    }
}
