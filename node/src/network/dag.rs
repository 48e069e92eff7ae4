//! Content streams: serving DAGs, and bringing them here from whoever has them.

use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::dag::{DagRequest, WANTS_MAX};
use futures::StreamExt as _;
use tokio::sync::Semaphore;

use super::{Fetcher, Network, pipe, view};
use crate::content::Content;
use crate::content::transfer::TransferError;

/// Transfers served at one time; more wait, and the peer may ask elsewhere.
const SERVED_MAX: usize = 16;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers asked for one root.
const PROVIDERS_MAX: usize = 8;

/// Serves what is held here.
pub(super) async fn serve(content: Content, mut incoming: libp2p_stream::IncomingStreams) {
    let served = Arc::new(Semaphore::new(SERVED_MAX));
    while let Some((peer, mut stream)) = incoming.next().await {
        let (content, served) = (content.clone(), Arc::clone(&served));
        tokio::spawn(async move {
            let Ok(_permit) = served.acquire_owned().await else { return };
            let request = tokio::time::timeout(REQUEST_TIMEOUT, view::read::<DagRequest>(&mut stream)).await;
            let Ok(Ok(request)) = request else { return };
            let mut out = pipe::writer(stream);
            let sent = tokio::task::spawn_blocking(move || content.send(&request.wants, &mut out));
            if let Ok(Err(error)) = sent.await {
                tracing::debug!(%peer, %error, "a transfer broke off");
            }
        });
    }
}

/// Brings content here over the network.
#[derive(Debug, Clone)]
pub(crate) struct DagFetcher {
    pub(crate) network: Network,
    pub(crate) content: Content,
}

#[async_trait::async_trait]
impl Fetcher for DagFetcher {
    async fn fetch(&self, root: Cid, hints: Vec<NodeId>, max: u64, reason: String) -> Result<u64, String> {
        let content = self.content.clone();
        let (held, reason) = blocking(move || {
            let held = content.lacking(&root, 1)?.is_empty();
            if held { content.pin(&root, &reason).map(|_| ()) } else { content.begin(&root, &reason) }?;
            Ok((held, reason))
        })
        .await?;
        if held {
            return Ok(0);
        }
        let fetched = self.fetch_from_anybody(root, hints, max).await;
        let content = self.content.clone();
        let whole = fetched.is_ok();
        blocking(move || if whole { content.pin(&root, &reason).map(|_| ()) } else { content.unpin(&root, &reason) })
            .await?;
        fetched
    }
}

impl DagFetcher {
    async fn fetch_from_anybody(&self, root: Cid, hints: Vec<NodeId>, max: u64) -> Result<u64, String> {
        let (mut tried, mut total, mut causes) = (vec![self.network.me], 0, Vec::new());
        let mut candidates = hints;
        // First those named, then those found; the DHT is not troubled for what is at hand. An announcement may be on its
        // way still, so it is asked again before the answer is no.
        for pause in [None, Some(0), Some(300), Some(1_000)] {
            if let Some(pause) = pause {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                candidates = self.network.providers(root).await.into_iter().take(PROVIDERS_MAX).collect();
            }
            for provider in std::mem::take(&mut candidates) {
                if tried.contains(&provider) {
                    continue;
                }
                tried.push(provider);
                match self.fetch_from(root, provider, max, &mut total).await {
                    Ok(()) => return Ok(total),
                    Err(error) => causes.push(format!("{}: {error}", self.network.view().label(&provider))),
                }
            }
        }
        if causes.is_empty() { Err("no peer is known to have it".into()) } else { Err(causes.join("; ")) }
    }

    async fn fetch_from(&self, root: Cid, provider: NodeId, max: u64, total: &mut u64) -> Result<(), String> {
        loop {
            let content = self.content.clone();
            let lacking = blocking(move || content.lacking(&root, WANTS_MAX)).await?;
            if lacking.is_empty() {
                return Ok(());
            }
            let mut stream = self.network.open(provider, &self.network.names.dag).await?;
            let request = DagRequest { wants: ListMax::truncated(lacking.iter().copied()) };
            view::write(&mut stream, &request).await.map_err(|error| error.to_string())?;
            let (content, left) = (self.content.clone(), max.saturating_sub(*total));
            let mut stream = pipe::reader(stream);
            let received = tokio::task::spawn_blocking(move || content.receive(&lacking, left, &mut stream));
            match received.await.map_err(|error| error.to_string())? {
                Ok(bytes) => *total += bytes,
                Err(TransferError::Missing(cid)) if cid == root => return Err("it does not have it".into()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Does work on the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::content::ContentError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
