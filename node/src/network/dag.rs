//! Content streams: serving DAGs, and bringing them here from whoever has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::dag::{DagRequest, WANTS_MAX};
use futures::StreamExt as _;
use libp2p::PeerId;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{Fetcher, Network, pipe, view};
use crate::content::Content;
use crate::content::transfer::TransferError;

/// Transfers served at one time, in all and to one peer; more wait, and the peer may ask elsewhere.
const SERVED_MAX: usize = 16;
const SERVED_PER_PEER_MAX: usize = 6;
/// Transfers received at one time.
const RECEIVED_MAX: usize = 16;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a peer is asked whose connection breaks off.
const TRIES_MAX: u32 = 3;
/// Peers asked for one root.
const PROVIDERS_MAX: usize = 8;

/// Serves what is held here.
pub(super) async fn serve(network: Network, content: Content, mut incoming: libp2p_stream::IncomingStreams) {
    let served = Arc::new(Semaphore::new(SERVED_MAX));
    let mut of_peers: HashMap<PeerId, Arc<Semaphore>> = HashMap::new();
    while let Some((peer, mut stream)) = incoming.next().await {
        of_peers.retain(|_, own| Arc::strong_count(own) > 1);
        let own = of_peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(SERVED_PER_PEER_MAX)));
        let (content, served, own) = (content.clone(), Arc::clone(&served), Arc::clone(own));
        let (network, busy) = (network.clone(), network.busy.clone());
        tokio::spawn(async move {
            // The peer's own limit first, so that its crowd does not stand in the others' way.
            let Ok(_own) = own.acquire().await else { return };
            let Ok(_permit) = served.acquire().await else { return };
            let request = tokio::time::timeout(REQUEST_TIMEOUT, view::read::<DagRequest>(&mut stream)).await;
            let node = NodeId::from_peer_id(&peer);
            let request = match (request, node) {
                (Ok(Ok(request)), _) => request,
                (Ok(Err(error)), Some(node)) if view::is_nonsense(&error) => {
                    return network.offended(node, "a request for content that is none").await;
                }
                _ => return,
            };
            let _transfer = node.map(|node| busy.transfer(node));
            let mut out = pipe::writer(stream, network.upload.clone());
            let sent = tokio::task::spawn_blocking(move || content.send(&request.wants, &mut out));
            if let Ok(Err(error)) = sent.await {
                tracing::debug!(%peer, %error, "a transfer broke off");
            }
        });
    }
}

/// Brings content here over the network.
#[derive(Debug)]
pub(crate) struct DagFetcher {
    network: Network,
    content: Content,
    /// Roots that are being fetched.
    turns: Mutex<HashMap<Cid, Arc<AsyncMutex<()>>>>,
    receiving: Semaphore,
}

#[async_trait::async_trait]
impl Fetcher for DagFetcher {
    async fn fetch(&self, root: Cid, hints: Vec<NodeId>, max: u64, reason: String) -> Result<u64, String> {
        // Whoever else wants it waits, and finds it here.
        let turn = self.turn(root);
        let _turn = turn.lock().await;
        let content = self.content.clone();
        let coming = blocking(move || {
            let held = content.lacking(&root, 1)?.is_empty();
            if held { content.pin(&root, &reason).map(|_| None) } else { content.begin(&root, &reason).map(Some) }
        });
        let Some(coming) = coming.await? else { return Ok(0) };
        let fetched = self.fetch_from_anybody(root, hints, max).await?;
        blocking(move || coming.keep()).await?;
        Ok(fetched)
    }
}

impl DagFetcher {
    pub(crate) fn new(network: Network, content: Content) -> Self {
        Self { network, content, turns: Mutex::default(), receiving: Semaphore::new(RECEIVED_MAX) }
    }

    fn turn(&self, root: Cid) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(root).or_default())
    }

    async fn fetch_from_anybody(&self, root: Cid, hints: Vec<NodeId>, max: u64) -> Result<u64, String> {
        let (mut tried, mut total, mut causes) = (HashMap::from([(self.network.me, TRIES_MAX)]), 0, Vec::new());
        let (mut candidates, mut broken) = (hints, Vec::new());
        // First those named, then those found; the DHT is not troubled for what is at hand. An announcement may be on its
        // way still, so it is asked again before the answer is no.
        for pause in [None, Some(0), Some(300), Some(1_000)] {
            if let Some(pause) = pause {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                candidates = self.network.providers(root).await.into_iter().take(PROVIDERS_MAX).collect();
                // What came before a connection broke off need not come again.
                candidates.extend(std::mem::take(&mut broken));
            }
            for provider in std::mem::take(&mut candidates) {
                let tries = tried.entry(provider).or_insert(0);
                if *tries >= TRIES_MAX {
                    continue;
                }
                *tries += 1;
                let cause = match self.fetch_from(root, provider, max, &mut total).await {
                    Ok(()) => return Ok(total),
                    Err(Failed::Broken(cause)) => {
                        broken.push(provider);
                        cause
                    }
                    Err(Failed::Useless(cause)) => {
                        tried.insert(provider, TRIES_MAX);
                        cause
                    }
                };
                causes.push(format!("{}: {cause}", self.network.view().label(&provider)));
            }
        }
        if causes.is_empty() { Err("no peer is known to have it".into()) } else { Err(causes.join("; ")) }
    }

    async fn fetch_from(&self, root: Cid, provider: NodeId, max: u64, total: &mut u64) -> Result<(), Failed> {
        loop {
            let content = self.content.clone();
            let lacking = blocking(move || content.lacking(&root, WANTS_MAX)).await.map_err(Failed::Useless)?;
            if lacking.is_empty() {
                return Ok(());
            }
            let _permit = self.receiving.acquire().await.map_err(|error| Failed::Useless(error.to_string()))?;
            let _transfer = self.network.busy.transfer(provider);
            let mut stream = self.network.open(provider, &self.network.names.dag).await.map_err(Failed::Broken)?;
            let request = DagRequest { wants: ListMax::truncated(lacking.iter().copied()) };
            view::write(&mut stream, &request).await.map_err(|error| Failed::Broken(error.to_string()))?;
            let (content, left) = (self.content.clone(), max.saturating_sub(*total));
            let mut stream = pipe::reader(stream, self.network.download.clone());
            let received = tokio::task::spawn_blocking(move || content.receive(&lacking, left, &mut stream));
            match received.await.map_err(|error| Failed::Useless(error.to_string()))? {
                Ok(bytes) => *total += bytes,
                Err(TransferError::Missing(cid)) if cid == root => {
                    return Err(Failed::Useless("it does not have it".into()));
                }
                Err(error @ TransferError::Stream(_)) => return Err(Failed::Broken(error.to_string())),
                Err(error) => return Err(Failed::Useless(error.to_string())),
            }
        }
    }
}

/// Why a peer did not bring it.
enum Failed {
    /// The connection, or the lack of one: it may go better a moment later.
    Broken(String),
    /// The peer, or this node's disk.
    Useless(String),
}

/// Does work on the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::content::ContentError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
