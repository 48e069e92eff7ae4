//! S3-compatible stores: inputs from them, results to them.
//!
//! Jobs name objects, never credentials: those are the node's own (`AWS_ACCESS_KEY_ID` and its kin, read at the start), and
//! are used only for what the operator lists (rule: s3), and only with AWS or the node's own endpoint
//! (`AWS_ENDPOINT_URL`). Everything else is asked for without a name, over the client that speaks to no private address.

mod connector;
mod input;
mod publish;

pub(super) use self::input::Share;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bacnode_protocol::compute::Policy;
use bacnode_protocol::content::Cid;
use bacnode_protocol::wire::market::FailureKind;
use bacnode_protocol::wire::s3::Place;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use reqwest::{Client, Url};

use self::connector::Connector;
use super::RunError;
use super::web;

/// A request that fails for a moment is made again.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// Objects that travel at once.
const AT_ONCE: usize = 8;
/// Where nobody says it.
const REGION: &str = "us-east-1";

/// The way to stores.
#[derive(Debug)]
pub(super) struct Stores {
    policy: Policy,
    own: Own,
    /// What listings came to when they were fetched.
    known: Mutex<HashMap<[u8; 32], Cid>>,
}

/// What the node's environment says of stores.
#[derive(Default)]
struct Own {
    endpoint: Option<String>,
    region: Option<String>,
    keys: Option<Keys>,
}

struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys.as_ref().map(|_| "…");
        f.debug_struct("Own").field("endpoint", &self.endpoint).field("keys", &keys).finish_non_exhaustive()
    }
}

impl Own {
    fn from_env() -> Self {
        let variable = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.trim().is_empty())
        };
        let id = variable(&["AWS_ACCESS_KEY_ID"]);
        let secret = variable(&["AWS_SECRET_ACCESS_KEY"]);
        let token = variable(&["AWS_SESSION_TOKEN"]);
        let endpoint = variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        Self {
            endpoint: endpoint.map(|url| url.trim_end_matches('/').to_owned()),
            region: variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
            keys: id.zip(secret).map(|(id, secret)| Keys { id, secret, token }),
        }
    }
}

/// A store, and whether the node's credentials are used with it.
struct Opened {
    store: AmazonS3,
    signed: bool,
}

impl Stores {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, own: Own::from_env(), known: Mutex::default() }
    }

    /// The store of this place, with the node's credentials if the operator lends them for it.
    fn open(&self, guarded: &web::Fetcher, place: &Place, writes: bool) -> Result<Opened, RunError> {
        if !place.is_plain() {
            return Err(RunError::task(FailureKind::Program, format!("{place}: it is not the name of a place")));
        }
        let lent = self.policy.lends_keys(place, writes);
        let named = Some(place.endpoint.to_string()).filter(|url| !url.is_empty());
        let endpoint = named.or_else(|| self.own.endpoint.clone().filter(|_| lent));
        let own = lent && endpoint.is_some() && endpoint == self.own.endpoint;
        let client = if own { unguarded() } else { guarded.guarded(endpoint.as_deref()) };
        let client = client.map_err(|cause| RunError::Node(format!("{place}: {cause}")))?;
        let region = Some(&*place.region).filter(|region| !region.is_empty()).or(self.own.region.as_deref());
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&*place.bucket)
            .with_region(region.unwrap_or(REGION))
            .with_allow_http(true)
            .with_retry(retry)
            .with_http_connector(Connector(client));
        let trusted = own || endpoint.as_deref().is_none_or(is_aws);
        let keys = self.own.keys.as_ref().filter(|_| lent && trusted);
        builder = match keys {
            Some(keys) => {
                let signed = builder.with_access_key_id(&keys.id).with_secret_access_key(&keys.secret);
                keys.token.iter().fold(signed, AmazonS3Builder::with_token)
            }
            None => builder.with_skip_signature(true),
        };
        builder = endpoint.into_iter().fold(builder, AmazonS3Builder::with_endpoint);
        let store = builder.build().map_err(|error| RunError::Node(format!("{place}: {}", in_words(&error))))?;
        Ok(Opened { store, signed: keys.is_some() })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Cid>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// For the operator's own store, which may lie in a private network.
fn unguarded() -> Result<Client, String> {
    let client = web::plain_client().redirect(reqwest::redirect::Policy::none());
    let client = client.connect_timeout(web::CONNECT).read_timeout(web::SILENCE).build();
    client.map_err(|error| error.to_string())
}

/// Whether this is AWS's S3 itself: the bucket and the key follow in the path, so there must be none yet.
fn is_aws(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com").unwrap_or_default();
    let region = host.strip_prefix("s3.dualstack.").or_else(|| host.strip_prefix("s3."));
    let region = region.is_some_and(|region| region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    bare && url.scheme() == "https" && url.port().is_none() && url.password().is_none() && region
}

/// Whose fault it is, and what to do.
fn failed(place: &impl std::fmt::Display, error: &object_store::Error) -> RunError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => {
            RunError::task(FailureKind::Program, format!("{place}: there is no such bucket or object"))
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => RunError::Node(format!(
            "{place}: the store refuses this node ({}): its credentials are wrong, have expired, or are not lent for this \
             (rule: s3)",
            in_words(error)
        )),
        Error::Precondition { .. } => RunError::Node(format!("{place}: it changed while it was fetched")),
        other => RunError::Node(format!("{place}: {}", in_words(other))),
    }
}

/// What the store says, or the innermost cause.
fn in_words(error: &object_store::Error) -> String {
    let text = error.to_string();
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0.to_owned());
    let said = match (between("<Code>", "</Code>"), between("<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string().replace("Server returned non-2xx status code: ", "")
        }
    };
    said.trim_end_matches([':', ' ']).chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use bacnode_protocol::compute::Grant;
    use bacnode_protocol::wire::bounded::TextMax;

    use super::*;

    fn place(bucket: &str, key: &str) -> Place {
        Place { bucket: TextMax::truncated(bucket), key: TextMax::truncated(key), ..Place::default() }
    }

    #[test]
    fn credentials_are_lent_for_what_is_listed() {
        let grant = Grant { bucket: "data".into(), prefix: "open/".into(), writable: false };
        let policy = Policy { s3: vec![grant], ..Policy::default() };
        assert!(policy.lends_keys(&place("data", "open/x"), false));
        assert!(!policy.lends_keys(&place("data", "open/x"), true));
        assert!(!policy.lends_keys(&place("data", "o"), false), "a shorter prefix lists more");
        assert!(!policy.lends_keys(&place("other", "open/x"), false));
    }

    #[test]
    fn credentials_go_to_aws_over_tls_only() {
        assert!(is_aws("https://s3.eu-west-1.amazonaws.com"));
        for other in [
            "http://s3.eu-west-1.amazonaws.com",
            "https://amazonaws.com.evil.example",
            "https://evil/x.amazonaws.com",
            "https://s3.us-east-1.amazonaws.com/private",
            "https://private.s3.amazonaws.com",
            "https://x.execute-api.us-east-1.amazonaws.com",
            "https://s3.us-east-1.amazonaws.com:8443",
            "https://s3.us-east-1.amazonaws.com/?x=",
        ] {
            assert!(!is_aws(other), "{other}");
        }
    }
}
