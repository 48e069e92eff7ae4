//! Market streams: one long-lived stream of frames to each peer we speak to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::limits::{FRAME_BYTES_MAX, FRAME_MESSAGES_MAX};
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::envelope::{self, HEADER_BYTES};
use bacnode_protocol::wire::market::{Frame, Market};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::Stream;
use tokio::sync::{Semaphore, mpsc};

use super::Network;
use crate::driver;

/// Turns that may wait for a slow peer; more are dropped, and said again by the machines.
const QUEUE_MAX: usize = 1024;
/// A link that has had nothing to say for so long is closed.
const IDLE: Duration = Duration::from_secs(300);
/// A frame that has begun must be whole within this.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of frames that wait for the machines, from all peers together.
const FRAMES_BYTES_MAX: usize = 32 << 20;
/// What an empty frame counts for.
const FRAME_BYTES_MIN: u32 = 256;
/// Peers with a link of their own.
const LINKS_MAX: usize = 1024;

/// Links to other peers' markets.
#[derive(Clone)]
pub(crate) struct Links {
    network: Network,
    links: Arc<Mutex<HashMap<NodeId, mpsc::Sender<Vec<Market>>>>>,
}

impl Links {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, links: Arc::default() }
    }

    /// Sends what one turn says to `node`; nothing says that we are alive. Never waits.
    pub(crate) fn send(&self, node: NodeId, messages: Vec<Market>) {
        let mut links = self.links.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if links.get(&node).is_none_or(mpsc::Sender::is_closed) {
            links.retain(|_, link| !link.is_closed());
            if links.len() >= LINKS_MAX {
                tracing::debug!(peer = node.short(), "too many links");
                return;
            }
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(speak(self.network.clone(), node, receiver));
            links.insert(node, sender);
        }
        if let Some(link) = links.get(&node)
            && link.try_send(messages).is_err()
        {
            tracing::debug!(peer = node.short(), "a slow peer misses some messages");
        }
    }
}

/// Writes what is queued, several turns in one frame if they are waiting already.
async fn speak(network: Network, node: NodeId, mut queue: mpsc::Receiver<Vec<Market>>) {
    let mut stream: Option<Stream> = None;
    while let Ok(Some(first)) = tokio::time::timeout(IDLE, queue.recv()).await {
        let mut messages = first;
        while messages.len() < FRAME_MESSAGES_MAX {
            match queue.try_recv() {
                Ok(more) => messages.extend(more),
                Err(_) => break,
            }
        }
        let frames = frames(messages);
        let result = async {
            let open = match &mut stream {
                Some(open) => open,
                None => stream.insert(network.open(node, &network.names.market).await?),
            };
            for frame in &frames {
                open.write_all(frame).await.map_err(|error| error.to_string())?;
            }
            open.flush().await.map_err(|error| error.to_string())
        };
        if let Err(error) = result.await {
            tracing::debug!(peer = node.short(), %error, "a message is lost");
            stream = None;
        }
    }
}

/// Packs messages into frames of their limits.
fn frames(messages: Vec<Market>) -> Vec<Vec<u8>> {
    let (mut frames, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for message in messages {
        let len = codec::encode(&message).len();
        if !batch.is_empty() && (bytes + len > FRAME_BYTES_MAX - 1024 || batch.len() == FRAME_MESSAGES_MAX) {
            frames.push(envelope::seal(&Frame { messages: ListMax::truncated(std::mem::take(&mut batch)) }));
            bytes = 0;
        }
        bytes += len;
        batch.push(message);
    }
    if !batch.is_empty() || frames.is_empty() {
        frames.push(envelope::seal(&Frame { messages: ListMax::truncated(batch) }));
    }
    frames
}

/// Hears what others say.
pub(super) async fn serve(
    network: Network,
    mut incoming: libp2p_stream::IncomingStreams,
    events: mpsc::Sender<driver::Event>,
) {
    let room = Arc::new(Semaphore::new(FRAMES_BYTES_MAX));
    let mut readers: HashMap<NodeId, tokio::task::AbortHandle> = HashMap::new();
    while let Some((peer, stream)) = incoming.next().await {
        let Some(node) = NodeId::from_peer_id(&peer) else { continue };
        readers.retain(|_, reader| !reader.is_finished());
        let reader =
            tokio::spawn(listen(network.clone(), node, stream, Arc::clone(&room), events.clone())).abort_handle();
        // A peer that opens a new stream has given up the old one.
        if let Some(old) = readers.insert(node, reader) {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                old.abort();
            });
        }
    }
}

async fn listen(
    network: Network,
    node: NodeId,
    mut stream: Stream,
    room: Arc<Semaphore>,
    events: mpsc::Sender<driver::Event>,
) {
    loop {
        let mut header = [0; HEADER_BYTES];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let (frame, taken) = match envelope::payload_len::<Frame>(&header) {
            Ok(len) => {
                // A peer that says more than the node can hear is read no further for a while.
                let bytes = u32::try_from(len).unwrap_or(u32::MAX).max(FRAME_BYTES_MIN);
                let Ok(taken) = Arc::clone(&room).acquire_many_owned(bytes).await else { return };
                let mut payload = vec![0; len];
                let read = tokio::time::timeout(FRAME_TIMEOUT, stream.read_exact(&mut payload)).await;
                if !matches!(read, Ok(Ok(()))) {
                    return;
                }
                (codec::decode::<Frame>(&payload, FRAME_BYTES_MAX), Some(taken))
            }
            Err(error) => (Err(error), None),
        };
        match frame.map(|frame| (frame, taken)) {
            Ok((_, None)) => return,
            Ok((frame, Some(taken))) => {
                if events.send(driver::Event::Frame(node, frame.messages.into_vec(), taken)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(peer = node.short(), %error, "a peer speaks nonsense on its market stream; it is closed");
                if error.is_nonsense() {
                    network.offended(node, "a message of the market that is none").await;
                }
                return;
            }
        }
    }
}
