//! HTTP for this node's own user: `/api/v1` in Bacalhau's shapes, and what is ours under `/api/v1/network`.
//!
//! It listens on loopback and at a socket in the data folder; from elsewhere it takes TLS and tokens. It checks `Host` and
//! `Origin` (a web page must not speak for its visitor), bounds what it reads, and answers every error with a sentence, a code and, where there is one, a hint. Reads come from the store; what changes
//! something goes through the driver. At `/` is the console, a page of this node's own.

mod agent;
mod blocks;
mod connections;
mod console;
mod content;
mod details;
mod elsewhere;
mod error;
mod events;
mod groups;
mod guard;
mod jobs;
mod logs;
mod members;
mod nodes;
mod openapi;
mod page;
mod rates;
mod submit;
mod tls;
mod withheld;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use bacnode_protocol::api::NodeIdentity;
use bacnode_protocol::limits::SPEC_BYTES_MAX;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::connections::Patience;
pub(crate) use self::details::Details;
use self::error::ApiError;
pub(crate) use self::guard::Guard;
use self::tls::TlsListener;
pub(crate) use self::tls::configuration;
use crate::config::Config;
use crate::content::Content;
use crate::driver::{Event, Groups};
use crate::engine::Runner;
use crate::network::{Fetcher, Network};
use crate::store::Store;

/// Requests that are worked on at one time, and how long others wait for their turn.
const AT_ONCE_MAX: usize = 64;
const TURN_MAX: Duration = Duration::from_secs(10);

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) content: Content,
    pub(crate) network: Network,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) fetcher: Arc<dyn Fetcher>,
    pub(crate) runner: Runner,
    pub(crate) config: Arc<Config>,
    pub(crate) details: Details,
    pub(crate) groups: Groups,
}

impl Api {
    /// Asks the driver, which decides.
    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let leaving = || ApiError::unavailable("the node is shutting down");
        self.events.send(event(answer)).await.map_err(|_| leaving())?;
        answered.await.map_err(|_| leaving())
    }
}

/// Serves at a port until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    api: Api,
    guard: Guard,
    stop: CancellationToken,
) {
    let router = router(api, guard);
    // Answers are small and awaited: they must not wait for more to send.
    let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
    match tls {
        Some(config) => connections::serve(TlsListener::new(listener, config), router, Patience::default(), stop).await,
        None => connections::serve(listener, router, Patience::default(), stop).await,
    }
}

/// Serves at a socket of the file system, which only its owner can use, until told to stop.
pub(crate) async fn serve_socket(path: PathBuf, api: Api, guard: Guard, stop: CancellationToken) {
    let listener = match socket(&path) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, path = %path.display(), "the API has no socket"),
    };
    connections::serve(listener, router(api, guard), Patience::default(), stop).await;
    let _ = std::fs::remove_file(&path);
}

fn socket(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    // Of a former life: the data folder is this process's alone.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn router(api: Api, guard: Guard) -> Router {
    let (router, document) = described().split_for_parts();
    let document = serde_json::to_value(&document).unwrap_or_default();
    router
        .route("/openapi.json", get(move || async move { Json(document) }))
        .route("/metrics", get(nodes::metrics))
        .route("/", get(console::page))
        .route("/console/{*path}", get(console::asset))
        // As Bacalhau has it.
        .route("/version", get(|| async { Redirect::permanent("/api/v1/agent/version") }))
        .route("/livez", get(|| async { Redirect::permanent("/api/v1/agent/alive") }))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(axum::middleware::from_fn_with_state(Patience::default(), connections::in_time))
        .layer(axum::middleware::from_fn_with_state(Arc::new(Semaphore::new(AT_ONCE_MAX)), in_turn))
        .layer(axum::middleware::from_fn_with_state(guard, guard::check))
        .with_state(api)
}

/// Answers so many requests at a time; the others wait, and are told so if that takes too long. What is streamed does not count
/// once it has begun.
async fn in_turn(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(TURN_MAX, turns.acquire()).await {
        Ok(_turn) => next.run(request).await,
        Err(_) => ApiError::unavailable("the node has too many requests to answer").into_response(),
    }
}

/// Every path below `/api/v1`, with what it says of itself.
fn described() -> OpenApiRouter<Api> {
    let jobs = OpenApiRouter::new()
        .routes(routes!(submit::submit, jobs::list))
        .routes(routes!(submit::diff))
        .routes(routes!(jobs::get, jobs::stop))
        .routes(routes!(submit::rerun))
        .routes(routes!(jobs::versions))
        .routes(routes!(jobs::executions))
        .routes(routes!(jobs::history))
        .routes(routes!(jobs::results))
        .routes(routes!(logs::follow))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, nodes::act))
        .layer(DefaultBodyLimit::max(SPEC_BYTES_MAX));
    let agent = OpenApiRouter::new()
        .routes(routes!(agent::alive))
        .routes(routes!(agent::agent_version))
        .routes(routes!(agent::node))
        .routes(routes!(agent::debug))
        .routes(routes!(agent::config))
        .routes(routes!(agent::auth_config));
    let auth = OpenApiRouter::new().routes(routes!(agent::auth_methods)).routes(routes!(agent::auth_method));
    // Whole files and folders come in here.
    let uploads = OpenApiRouter::new().routes(routes!(content::pins, content::add)).layer(DefaultBodyLimit::disable());
    let network = OpenApiRouter::new()
        .routes(routes!(nodes::identity))
        .routes(routes!(nodes::peers))
        .routes(routes!(nodes::view))
        .routes(routes!(nodes::usage))
        .routes(routes!(events::everything))
        .routes(routes!(events::follow))
        .routes(routes!(blocks::list))
        .routes(routes!(blocks::block, blocks::unblock))
        .routes(routes!(members::list, members::invite))
        .routes(routes!(members::revoke))
        .routes(routes!(groups::list))
        .routes(routes!(groups::adopt))
        .routes(routes!(withheld::list))
        .routes(routes!(withheld::decide))
        .routes(routes!(content::usage))
        .routes(routes!(content::sweep))
        .routes(routes!(content::get))
        .routes(routes!(content::pin, content::unpin))
        .routes(routes!(content::ls))
        .routes(routes!(content::providers))
        .merge(uploads);
    let v1 = OpenApiRouter::new()
        .nest("/orchestrator", jobs)
        .nest("/agent", agent)
        .nest("/auth", auth)
        .nest("/network", network);
    OpenApiRouter::with_openapi(openapi::about()).nest("/api/v1", v1)
}

/// Who this node is and where, for others to join.
pub(crate) async fn identity(network: &Network, name: &str, api: Option<(SocketAddr, bool)>) -> NodeIdentity {
    NodeIdentity {
        peer_id: network.me.to_string(),
        addresses: network.addresses().await.iter().map(ToString::to_string).collect(),
        network: name.to_owned(),
        api: api
            .map(|(address, tls)| format!("{}://{address}", if tls { "https" } else { "http" }))
            .unwrap_or_default(),
    }
}

/// The processor's name as Go, and so Bacalhau's clients, write it.
#[must_use]
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
