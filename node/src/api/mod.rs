//! HTTP for this node's own user: `/api/v1` in Bacalhau's shapes, and what is ours under `/api/v1/network`.
//!
//! It listens on loopback, checks `Host` and `Origin` (a web page must not speak for its visitor), bounds what it reads, and
//! answers every error with a sentence, a code and, where there is one, a hint. Reads come from the store; what changes
//! something goes through the driver.

mod agent;
mod content;
mod details;
mod error;
mod events;
mod guard;
mod jobs;
mod logs;
mod nodes;
mod page;
mod submit;
mod withheld;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{get, post, put};
use axum::serve::ListenerExt as _;
use bacnode_protocol::api::NodeIdentity;
use bacnode_protocol::limits::SPEC_BYTES_MAX;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::details::Details;
use crate::config::Config;
use crate::content::Content;
use crate::driver::Event;
use crate::engine::Runner;
use crate::network::{Fetcher, Network};
use crate::store::Store;

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
}

/// Serves until told to stop.
pub(crate) async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) {
    let router = router(api);
    // Answers are small and awaited: they must not wait for more to send.
    let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "the API has ended");
    }
}

fn router(api: Api) -> Router {
    let jobs = Router::new()
        .route("/jobs", put(submit::submit).post(submit::submit).get(jobs::list))
        .route("/jobs/diff", put(submit::diff).post(submit::diff))
        .route("/jobs/{id}", get(jobs::get).delete(jobs::stop))
        .route("/jobs/{id}/rerun", put(submit::rerun).post(submit::rerun))
        .route("/jobs/{id}/versions", get(jobs::versions))
        .route("/jobs/{id}/executions", get(jobs::executions))
        .route("/jobs/{id}/history", get(jobs::history))
        .route("/jobs/{id}/results", get(jobs::results))
        .route("/jobs/{id}/logs", get(logs::follow))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::get).put(nodes::act))
        .layer(DefaultBodyLimit::max(SPEC_BYTES_MAX));
    let agent = Router::new()
        .route("/alive", get(agent::alive))
        .route("/version", get(agent::agent_version))
        .route("/node", get(agent::node))
        .route("/debug", get(agent::debug))
        .route("/config", get(agent::config))
        .route("/authconfig", get(agent::auth_config));
    let auth = Router::new()
        .route("/", get(agent::auth_methods))
        .route("/{method}", get(agent::auth_method).post(agent::auth_method));
    let network = Router::new()
        .route("/identity", get(nodes::identity))
        .route("/peers", get(nodes::peers))
        .route("/view", get(nodes::view))
        .route("/events", get(events::everything))
        .route("/usage", get(nodes::usage))
        .route("/withheld", get(withheld::list))
        .route("/withheld/{id}", post(withheld::decide))
        .route("/jobs/{id}/events", get(events::follow))
        .route("/content", get(content::pins).post(content::add).layer(DefaultBodyLimit::disable()))
        .route("/content/usage", get(content::usage))
        .route("/content/gc", post(content::sweep))
        .route("/content/{cid}", get(content::get))
        .route("/content/{cid}/pin", put(content::pin).delete(content::unpin))
        .route("/content/{cid}/ls", get(content::ls))
        .route("/content/{cid}/providers", get(content::providers));
    let v1 =
        Router::new().nest("/orchestrator", jobs).nest("/agent", agent).nest("/auth", auth).nest("/network", network);
    Router::new()
        .nest("/api/v1", v1)
        .route("/metrics", get(nodes::metrics))
        // As Bacalhau has it.
        .route("/version", get(|| async { Redirect::permanent("/api/v1/agent/version") }))
        .route("/livez", get(|| async { Redirect::permanent("/api/v1/agent/alive") }))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(axum::middleware::from_fn(guard::check))
        .with_state(api)
}

/// Who this node is and where, for others to join.
pub(crate) async fn identity(network: &Network, name: &str, api: Option<SocketAddr>) -> NodeIdentity {
    NodeIdentity {
        peer_id: network.me.to_string(),
        addresses: network.addresses().await.iter().map(ToString::to_string).collect(),
        network: name.to_owned(),
        api: api.map(|address| format!("http://{address}")).unwrap_or_default(),
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
