//! The web console: a page, its styles and its modules, all of them in this binary.
//!
//! They hold nothing that is secret and are given to whoever comes to this door; what they show they ask of the API, as
//! any client does, with the token that their user gives them. The policy that goes with them keeps them from speaking to
//! anybody else, and whatever a peer said from becoming more than text.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;

/// No script, style or picture but these, no other place to speak to, no frame, no form, no markup made of strings.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// A file as it is served.
struct Asset {
    kind: &'static str,
    bytes: &'static [u8],
    /// Says to a browser that has it whether that is still right: a hash.
    tag: String,
}

impl Asset {
    fn new(kind: &'static str, bytes: &'static [u8]) -> Self {
        let hash = Sha256::digest(bytes);
        Self { kind, bytes, tag: format!("\"{}\"", hex::encode(&hash[..8])) }
    }
}

/// The files of this folder, by the kind that their names say.
macro_rules! own {
    ($($name:literal $kind:literal),* $(,)?) => {
        [$((concat!("/console/", $name), Asset::new($kind, include_bytes!(concat!("console/", $name))))),*]
    };
}

/// What the examples that the console offers are made of.
macro_rules! examples {
    ($($name:literal $path:literal),* $(,)?) => {
        [$((
            concat!("/console/examples/", $name),
            Asset::new("application/octet-stream", include_bytes!(concat!("../../../examples/", $path))),
        )),*]
    };
}

static PAGE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/html; charset=utf-8", include_bytes!("console/index.html")));

static ASSETS: LazyLock<BTreeMap<&'static str, Asset>> = LazyLock::new(|| {
    let own = own![
        "icon.svg" "image/svg+xml",
        "base.css" "text/css; charset=utf-8",
        "pages.css" "text/css; charset=utf-8",
        "parts.css" "text/css; charset=utf-8",
        "amount.js" "text/javascript; charset=utf-8",
        "api.js" "text/javascript; charset=utf-8",
        "app.js" "text/javascript; charset=utf-8",
        "browser.js" "text/javascript; charset=utf-8",
        "chart.js" "text/javascript; charset=utf-8",
        "content.js" "text/javascript; charset=utf-8",
        "delimited.js" "text/javascript; charset=utf-8",
        "editor.js" "text/javascript; charset=utf-8",
        "element.js" "text/javascript; charset=utf-8",
        "folder.js" "text/javascript; charset=utf-8",
        "form.js" "text/javascript; charset=utf-8",
        "graph.js" "text/javascript; charset=utf-8",
        "job.js" "text/javascript; charset=utf-8",
        "jobs.js" "text/javascript; charset=utf-8",
        "layout.js" "text/javascript; charset=utf-8",
        "live.js" "text/javascript; charset=utf-8",
        "logs.js" "text/javascript; charset=utf-8",
        "metrics.js" "text/javascript; charset=utf-8",
        "network.js" "text/javascript; charset=utf-8",
        "node.js" "text/javascript; charset=utf-8",
        "nodes.js" "text/javascript; charset=utf-8",
        "pager.js" "text/javascript; charset=utf-8",
        "preview.js" "text/javascript; charset=utf-8",
        "router.js" "text/javascript; charset=utf-8",
        "samples.js" "text/javascript; charset=utf-8",
        "self.js" "text/javascript; charset=utf-8",
        "shell.js" "text/javascript; charset=utf-8",
        "spec.js" "text/javascript; charset=utf-8",
        "submit.js" "text/javascript; charset=utf-8",
        "table.js" "text/javascript; charset=utf-8",
        "tar.js" "text/javascript; charset=utf-8",
        "templates.js" "text/javascript; charset=utf-8",
        "theme.js" "text/javascript; charset=utf-8",
        "timeline.js" "text/javascript; charset=utf-8",
        "upload.js" "text/javascript; charset=utf-8",
        "yaml.js" "text/javascript; charset=utf-8",
    ];
    let examples = examples![
        "hello.wasm" "hello/hello.wasm",
        "weather.wasm" "weather/weather.wasm",
        "weather.csv" "weather/weather.csv",
        "classify.wasm" "penguins/classify.wasm",
        "penguins.csv" "penguins/penguins.csv",
        "model.txt" "penguins/model.txt",
    ];
    own.into_iter().chain(examples).collect()
});

/// The page, at the API's `/`.
pub(super) async fn page(headers: HeaderMap) -> Response {
    answer(&PAGE, &headers)
}

/// What the page is made of.
pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Response {
    match ASSETS.get(uri.path()) {
        Some(asset) => answer(asset, &headers),
        None => ApiError::not_found("the console has no such file").into_response(),
    }
}

fn answer(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let policies = [
        ("content-type", asset.kind),
        ("content-security-policy", POLICY),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        // Asked for anew each time, which costs an answer without a body: another version may be here.
        ("cache-control", "no-cache"),
        ("etag", asset.tag.as_str()),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.tag) {
        return (StatusCode::NOT_MODIFIED, policies).into_response();
    }
    (policies, asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 3 << 20;

    fn sources() -> impl Iterator<Item = (String, String)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/console");
        std::fs::read_dir(folder).expect("the console's folder").map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("a text"))
        })
    }

    #[test]
    fn every_file_is_served() {
        for (name, _) in sources().filter(|(name, _)| name != "index.html") {
            assert!(ASSETS.contains_key(&*format!("/console/{name}")), "{name} is not in the table");
        }
        let bytes = ASSETS.values().map(|asset| asset.bytes.len()).sum::<usize>();
        assert!(bytes <= BYTES_MAX, "the console has {bytes} bytes");
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
        let never =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "style="];
        for (name, text) in sources() {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("src=\"//"), "{name} names another place");
            for part in never {
                assert!(!text.contains(part), "{name}: {part}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_has_it_is_not_sent_it_again() {
        let first = page(HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        let again = page(HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)])).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(asset(Uri::from_static("/console/none.js"), HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
    }
}
