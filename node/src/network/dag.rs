//! Content streams: serving DAGs, and bringing them here from whoever has them.

use std::io::{BufReader, BufWriter};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::dag::{DagRequest, WANTS_MAX};
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::io::SyncIoBridge;

use super::{Fetcher, Network, view};
use crate::content::Content;
use crate::content::transfer::TransferError;

/// Transfers served at one time; more wait, and the peer may ask elsewhere.
const SERVED_MAX: usize = 16;
/// Bytes gathered before they are handed to the stream, or taken from it.
const BUFFER_BYTES: usize = 256 << 10;
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
            let sent = tokio::task::spawn_blocking(move || {
                let mut out = BufWriter::with_capacity(BUFFER_BYTES, SyncIoBridge::new(Patient::new(stream.compat())));
                content.send(&request.wants, &mut out)
            });
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
            let received = tokio::task::spawn_blocking(move || {
                let mut stream =
                    BufReader::with_capacity(BUFFER_BYTES, SyncIoBridge::new(Patient::new(stream.compat())));
                content.receive(&lacking, left, &mut stream)
            });
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

/// How long a transfer may stand still, in either direction.
const STALL: Duration = Duration::from_secs(30);

/// A stream that ends with an error when the peer neither sends nor takes anything for [`STALL`].
struct Patient<S> {
    stream: S,
    stalled: Pin<Box<tokio::time::Sleep>>,
}

impl<S> Patient<S> {
    fn new(stream: S) -> Self {
        Self { stream, stalled: Box::pin(tokio::time::sleep(STALL)) }
    }

    /// Passes `polled` on, and counts the time while it is pending.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if polled.is_ready() {
            self.stalled.as_mut().reset(tokio::time::Instant::now() + STALL);
            return polled;
        }
        self.stalled.as_mut().poll(context).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, polled)
    }
}
