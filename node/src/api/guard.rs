//! Who may speak: programs of this machine, and from elsewhere those that bear a token; never web pages.
//!
//! A page can make its visitor's browser send requests here, by DNS rebinding even under a name that resolves to
//! loopback. Without a token only a `Host` that is this machine's own is answered, and no request that a foreign page caused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::rates::Rates;
use crate::tokens::Tokens;

/// What stands at one door of the API.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Whether nobody passes without a token.
    asks: bool,
    tokens: Arc<Tokens>,
    rates: Arc<Rates>,
}

pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.refusal(request.method(), request.uri().path(), request.headers()) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

impl Guard {
    /// Lets nobody pass without a token, or only whoever bears one that is not known.
    pub(crate) fn new(asks: bool, tokens: &Arc<Tokens>) -> Self {
        Self { asks, tokens: Arc::clone(tokens), rates: Arc::default() }
    }

    fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<ApiError> {
        let forbidden = |reason: &str| ApiError::new(StatusCode::FORBIDDEN, "Forbidden", reason);
        let scope = scope(method, path);
        if is_foreign_page(headers) || scope.is_some() && is_asked_by_another_site(headers) {
            return Some(forbidden("requests from web pages are not answered"));
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let bearer = bearer.or_else(|| bearer_of_socket(headers));
        match bearer {
            Some(text) => {
                let Some(token) = self.tokens.find(text.trim()) else {
                    return Some(unauthorized("the token is not known here, or was taken back"));
                };
                if let Err(wait) = self.rates.count(&token.name, Instant::now()) {
                    return Some(too_often(wait));
                }
                let may = scope.is_none_or(|scope| token.may(scope));
                (!may).then(|| forbidden(&format!("the token may not do this: it needs `{}`", scope.unwrap_or("*"))))
            }
            None if self.asks && scope.is_some() => Some(unauthorized("this needs a token")),
            None if !self.asks && !has_own_host(headers) => {
                Some(forbidden("this host name is not this node's; use 127.0.0.1 or localhost"))
            }
            None => None,
        }
    }
}

fn unauthorized(reason: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", reason)
        .hint("`bacnode token create` makes one at the node; BACNODE_TOKEN bears it")
}

fn too_often(wait: Duration) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "this token asks too often")
        .hint(format!("again in {} ms", wait.as_millis() + 1))
}

/// What a token must be allowed for this; nothing for what anybody may know.
fn scope(method: &Method, path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("/api/v1/").unwrap_or(path);
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let of = |read, write| Some(if reads { read } else { write });
    match path {
        // The console is the same for everybody; what it shows is not.
        "agent/alive" | "/livez" | "/" => None,
        path if path.starts_with("/console/") => None,
        "network/content/gc" => Some("write:node"),
        path if path.starts_with("orchestrator/jobs") || path.starts_with("network/jobs") => {
            of("read:job", "write:job")
        }
        path if path.starts_with("network/content") => of("read:content", "write:content"),
        "network/events" => Some("read:job"),
        _ => of("read:node", "write:node"),
    }
}

/// A browser gives a WebSocket no header but the names of protocols: the token is one of them. No other request of a
/// page can have this header.
fn bearer_of_socket(headers: &HeaderMap) -> Option<&str> {
    text(headers, header::SEC_WEBSOCKET_PROTOCOL)?.split(',').find_map(|name| name.trim().strip_prefix("bearer."))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Whether a page of somebody else's caused the request.
fn is_foreign_page(headers: &HeaderMap) -> bool {
    // At another port of this machine a page may be anybody's: tasks answer there.
    let own =
        |origin: &str| origin.split_once("://").is_some_and(|(_, host)| text(headers, header::HOST) == Some(host));
    !text(headers, header::ORIGIN).is_none_or(own)
}

/// Whether a browser says that another site's page wants it, be it as a picture: such requests have no `Origin`. Another port of
/// this machine is the same site, and may be a task's.
fn is_asked_by_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?"));
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn has_own_host(headers: &HeaderMap) -> bool {
    text(headers, header::HOST).is_some_and(is_own_host)
}

fn is_own_host(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn only_this_machine_and_no_pages() {
        let dir = tempfile::tempdir().expect("a folder");
        let guard = Guard::new(false, &Arc::new(Tokens::of(dir.path())));
        let refused = |host: &str, origin: Option<&str>| {
            let mut pairs = vec![(header::HOST, host)];
            pairs.extend(origin.map(|origin| (header::ORIGIN, origin)));
            guard.refusal(&Method::GET, "/api/v1/agent/node", &headers(&pairs)).is_some()
        };
        assert!(!refused("127.0.0.1:1234", None));
        assert!(!refused("localhost:1234", Some("http://localhost:1234")));
        assert!(refused("localhost:1234", Some("http://localhost:20003")), "a task's page");
        assert!(!refused("[::1]:80", None));
        let from = |site: &str| {
            let headers =
                headers(&[(header::HOST, "127.0.0.1:1234"), (header::HeaderName::from_static("sec-fetch-site"), site)]);
            guard.refusal(&Method::GET, "/api/v1/agent/node", &headers).is_some()
        };
        assert!(from("cross-site") && from("same-site") && !from("same-origin") && !from("none"));
        assert!(refused("evil.example:1234", None));
        assert!(refused("127.0.0.1.evil.example", None));
        assert!(refused("127.0.0.1:1234", Some("https://evil.example")));
        assert!(refused("127.0.0.1:1234", Some("null")));
        // Rebound to this machine, a page's own name is its origin and the host alike.
        assert!(refused("evil.example", Some("http://evil.example")));
    }

    #[test]
    fn a_token_opens_what_it_may() {
        let dir = tempfile::tempdir().expect("a folder");
        let tokens = Arc::new(Tokens::of(dir.path()));
        let token = tokens.create("ci", vec!["read:job".into(), "write:job".into()]).expect("made");
        let guard = Guard::new(true, &tokens);
        let bearing = |token: &str| {
            headers(&[(header::AUTHORIZATION, &format!("Bearer {token}")), (header::HOST, "far.example")])
        };
        let passes = |method: Method, path: &str, token: &str| guard.refusal(&method, path, &bearing(token)).is_none();
        assert!(passes(Method::PUT, "/api/v1/orchestrator/jobs", &token));
        assert!(passes(Method::GET, "/api/v1/network/jobs/x/events", &token));
        assert!(!passes(Method::PUT, "/api/v1/orchestrator/nodes/x", &token));
        assert!(!passes(Method::GET, "/api/v1/network/content/x", &token));
        assert!(!passes(Method::PUT, "/api/v1/orchestrator/jobs", "bnt_00"));
        let without =
            |path: &str| guard.refusal(&Method::GET, path, &headers(&[(header::HOST, "127.0.0.1")])).is_none();
        assert!(without("/api/v1/agent/alive") && !without("/api/v1/orchestrator/jobs") && !without("/metrics"));
        assert!(without("/") && without("/console/app.js") && !without("/openapi.json"));
        let protocols = format!("bacnode, bearer.{token}");
        let socket = headers(&[(header::SEC_WEBSOCKET_PROTOCOL, &protocols), (header::HOST, "far.example")]);
        assert!(guard.refusal(&Method::GET, "/api/v1/orchestrator/jobs/x/logs", &socket).is_none());
        assert!(guard.refusal(&Method::GET, "/api/v1/network/content/x", &socket).is_some());
        let often = (0..1_000).filter(|_| passes(Method::GET, "/api/v1/orchestrator/jobs", &token)).count();
        assert!((100..1_000).contains(&often), "{often}");
    }
}
