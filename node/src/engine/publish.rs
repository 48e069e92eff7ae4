//! The local publisher: results by a link to this node, for those who have a browser or `curl` and no node of their own.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::ExecutionId;
use flate2::Compression;
use flate2::write::GzEncoder;
use libp2p::multiaddr::Protocol;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::content::{Content, ContentError, PUBLISHED, io_error, stream};
use crate::network::Network;

/// Results served at one time.
const SERVED_MAX: usize = 16;
/// What says where a result is, in the result itself.
pub(super) const NOTE: &str = "published.json";

/// A web server for results. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    content: Content,
    network: Network,
    address: SocketAddr,
}

impl Publisher {
    /// Listens.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn start(
        address: SocketAddr,
        content: Content,
        network: Network,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let served = Served { content: content.clone(), room: std::sync::Arc::new(Semaphore::new(SERVED_MAX)) };
        let router = Router::new().route("/{name}", get(serve)).with_state(served);
        tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
            if let Err(error) = served.await {
                tracing::error!(%error, "results are not served any more");
            }
        });
        Ok(Self { content, network, address })
    }

    /// The note that a result of this attempt carries.
    pub(super) async fn note(&self, execution: &ExecutionId) -> String {
        let url = format!("http://{}/{execution}.tar.gz", self.reached_at().await);
        json!({ "Type": "urlDownload", "Params": { "URL": url } }).to_string()
    }

    /// Keeps a result for whoever has the link.
    pub(super) fn keep(&self, root: &Cid, execution: &ExecutionId) -> Result<(), ContentError> {
        self.content.pin(root, &format!("{PUBLISHED}/{execution}")).map(|_| ())
    }

    /// Where others reach this: the address itself, or one at which peers have reached this node.
    async fn reached_at(&self) -> SocketAddr {
        if !self.address.ip().is_unspecified() {
            return self.address;
        }
        let mut ips: Vec<std::net::IpAddr> = Vec::new();
        for address in self.network.confirmed().await.iter().chain(&self.network.addresses().await) {
            ips.extend(address.iter().find_map(|protocol| match protocol {
                Protocol::Ip4(ip) => Some(std::net::IpAddr::from(ip)),
                Protocol::Ip6(ip) => Some(std::net::IpAddr::from(ip)),
                _ => None,
            }));
        }
        let ip = ips.iter().find(|ip| !ip.is_loopback() && !ip.is_unspecified()).or(ips.first());
        SocketAddr::new(ip.copied().unwrap_or(self.address.ip()), self.address.port())
    }
}

#[derive(Debug, Clone)]
struct Served {
    content: Content,
    room: std::sync::Arc<Semaphore>,
}

async fn serve(State(served): State<Served>, Path(name): Path<String>) -> Response {
    let missing = || (StatusCode::NOT_FOUND, "there is no such result here (any more)\n").into_response();
    let Some(execution) = name.strip_suffix(".tar.gz").and_then(|id| id.parse::<ExecutionId>().ok()) else {
        return missing();
    };
    let Ok(permit) = served.room.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many results are being fetched; try again\n").into_response();
    };
    let (content, reason) = (served.content.clone(), format!("{PUBLISHED}/{execution}"));
    let found = tokio::task::spawn_blocking(move || content.pinned_for(&reason)).await;
    match found {
        Ok(Ok(Some(root))) => {
            let headers = [("content-type", "application/gzip"), ("x-content-type-options", "nosniff")];
            (headers, pack(served.content, root, permit)).into_response()
        }
        Ok(Ok(None)) => missing(),
        Ok(Err(_)) | Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the result cannot be read\n").into_response(),
    }
}

/// The result as it is packed.
fn pack(content: Content, root: Cid, permit: OwnedSemaphorePermit) -> Body {
    Body::from_stream(stream(move |out| {
        let _permit = permit;
        let mut packer = GzEncoder::new(out, Compression::fast());
        content.write_tar(&root, &mut packer)?;
        packer.finish().map(|_| ()).map_err(io_error("cannot pack"))
    }))
}
