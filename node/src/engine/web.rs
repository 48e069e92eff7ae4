//! Inputs from the web.
//!
//! A name is resolved once, its addresses are judged, and the connection goes to one of them: whoever answers a second
//! question differently gains nothing. Addresses that are not public (this machine's, its networks', a cloud's metadata) are
//! refused unless the operator opens them, at every redirection, too. What was fetched becomes content, kept under its URL
//! and what the server calls its version, so that the next task asks only whether it has changed.

mod address;
mod download;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bacnode_protocol::compute::Web;
use bacnode_protocol::content::Cid;
use bacnode_protocol::wire::market::FailureKind;
use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use sha2::{Digest as _, Sha256};

use self::address::{Resolver, check_host};
pub(super) use self::address::{addresses_of, check_server};
use super::RunError;
use crate::content::{Content, Limits};

/// Redirections that are followed.
const REDIRECTS_MAX: usize = 5;
/// How long a server may be silent, and how long a connection may take.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Downloads that are remembered.
const KNOWN_MAX: usize = 1_000;

/// What fetches from the web.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: OnceLock<Client>,
    web: Web,
    /// What each URL was, with the server's name for that version of it.
    known: Mutex<HashMap<String, Known>>,
}

/// A file that was fetched before.
#[derive(Debug, Clone)]
struct Known {
    version: HeaderValue,
    root: Cid,
    size: u64,
    /// Known if a job named it.
    sha256: Option<[u8; 32]>,
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
    pub(super) fn new(web: Web) -> Self {
        Self { client: OnceLock::new(), web, known: Mutex::default() }
    }

    /// Reading the system's certificates takes a moment, and most nodes never need them.
    fn client(&self) -> Result<&Client, RunError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = client(self.web).map_err(|error| RunError::Node(format!("cannot fetch from the web: {error}")))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// The client that speaks to no address that it should not, for requests to `url` if it is known.
    pub(super) fn guarded(&self, url: Option<&str>) -> Result<Client, String> {
        if let Some(url) = url {
            check_host(&Url::parse(url).map_err(|error| error.to_string())?, self.web)?;
        }
        self.client().cloned().map_err(|error| error.to_string())
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
        // What was fetched without a checksum does not do for a job that names one.
        let known = known.filter(|known| sha256.is_none() || known.sha256 == sha256);
        let held = known.filter(|known| content.lacking(&known.root, 1).is_ok_and(|lacking| lacking.is_empty()));
        let mut headers = HeaderMap::new();
        if let Some(known) = &held {
            let dated = !known.version.as_bytes().starts_with(b"\"");
            headers.insert(if dated { IF_MODIFIED_SINCE } else { IF_NONE_MATCH }, known.version.clone());
        }
        let response = self.ask(&parsed, headers).await?;
        match (response.status(), held) {
            (StatusCode::OK, _) => {}
            (StatusCode::NOT_MODIFIED, Some(known)) => {
                content.pin(&known.root, reason)?;
                return Ok(Fetched { root: known.root, size: known.size, came: 0 });
            }
            (status, _) => return Err(RunError::Node(format!("input {url}: the server says {status}"))),
        }
        let folder = tempfile::tempdir_in(content.tmp())
            .map_err(|error| RunError::Node(format!("cannot make a folder for an input: {error}")))?;
        let file = folder.path().join(file_name(&parsed));
        let version = self.download(content, &parsed, response, &file, max).await?;
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
            known.insert(url.to_owned(), Known { version, root: imported.root, size: imported.size, sha256 });
        }
        Ok(Fetched { root: imported.root, size: imported.size, came: imported.size })
    }

    async fn ask(&self, url: &Url, headers: HeaderMap) -> Result<Response, RunError> {
        let response = self.client()?.get(url.clone()).headers(headers).send().await;
        let response = response.map_err(|error| RunError::Node(format!("input {url}: {}", cause_of(&error))))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let cause = format!("input {url}: the server says {status}");
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        // What is not there, or not for us, is so from everywhere.
        if status.is_client_error() && ![StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            return Err(RunError::task(FailureKind::Program, cause));
        }
        Err(RunError::Node(cause))
    }
}

fn client(web: Web) -> reqwest::Result<Client> {
    let redirects = redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error("it redirects too often");
        }
        match check_host(attempt.url(), web) {
            Ok(()) => attempt.follow(),
            Err(cause) => attempt.error(cause),
        }
    });
    plain_client()
        .dns_resolver(std::sync::Arc::new(Resolver(web)))
        .redirect(redirects)
        .referer(false)
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("bacnode/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// A client that knows no proxies.
pub(super) fn plain_client() -> reqwest::ClientBuilder {
    // The one provider of cryptography that is built in; another part of the process may have said so before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy();
    if has_root_certificates() {
        return client;
    }
    // What comes over http can be fetched all the same.
    tracing::warn!("this system has no root certificates (ca-certificates): nothing comes over https");
    client.tls_certs_only([])
}

/// Whether this system says whom to trust, without which nothing can be fetched over https.
#[must_use]
pub fn has_root_certificates() -> bool {
    rustls_platform_verifier::Verifier::new(std::sync::Arc::new(rustls::crypto::ring::default_provider())).is_ok()
}

pub(super) fn sha256_of(path: &Path) -> std::io::Result<[u8; 32]> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
