//! Who may speak: programs of this machine, not web pages.
//!
//! A page can make its visitor's browser send requests here, by DNS rebinding even under a name that resolves to
//! loopback. Only a `Host` that is this machine's own is answered, and no request that a foreign page caused.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

pub(super) async fn check(request: Request, next: Next) -> Response {
    match reason_to_refuse(request.headers()) {
        Some(reason) => ApiError::new(StatusCode::FORBIDDEN, "Forbidden", reason).into_response(),
        None => next.run(request).await,
    }
}

fn reason_to_refuse(headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if !text(header::HOST).is_some_and(is_own_host) {
        return Some("this host name is not this node's; use 127.0.0.1 or localhost");
    }
    let own_origin = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_own_host(host));
    (!text(header::ORIGIN).is_none_or(own_origin)).then_some("requests from web pages are not answered")
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

    #[test]
    fn only_this_machine_and_no_pages() {
        let refused = |host: &'static str, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a value"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a value"));
            }
            reason_to_refuse(&headers).is_some()
        };
        assert!(!refused("127.0.0.1:1234", None));
        assert!(!refused("localhost", Some("http://localhost:1234")));
        assert!(!refused("[::1]:80", None));
        assert!(refused("evil.example:1234", None));
        assert!(refused("127.0.0.1.evil.example", None));
        assert!(refused("127.0.0.1:1234", Some("https://evil.example")));
        assert!(refused("127.0.0.1:1234", Some("null")));
    }
}
