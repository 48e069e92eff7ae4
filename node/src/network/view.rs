//! The view exchange: once with whoever connects, then every so often with somebody.

use std::time::Duration;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::view::Change;
use bacnode_protocol::wire::advert::SignedAdvert;
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::codec::DecodeError;
use bacnode_protocol::wire::envelope::{self, HEADER_BYTES, Message};
use bacnode_protocol::wire::view::{NodeDetail, ViewReply, ViewRequest};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::Stream;
use tokio::sync::mpsc;

use super::{Network, Topic, gossip};
use crate::{clock, driver};

/// A whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn write<M: Message>(stream: &mut (impl AsyncWrite + Unpin), message: &M) -> std::io::Result<()> {
    stream.write_all(&envelope::seal(message)).await?;
    stream.flush().await
}

pub(super) async fn read<M: Message>(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<M> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let len = envelope::payload_len::<M>(&header).map_err(std::io::Error::other)?;
    let mut bytes = header.to_vec();
    bytes.resize(HEADER_BYTES + len, 0);
    stream.read_exact(&mut bytes[HEADER_BYTES..]).await?;
    envelope::open(&bytes).map_err(std::io::Error::other)
}

/// Whether what was read is what no honest node of any version sends.
pub(super) fn is_nonsense(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<DecodeError>());
    cause.is_some_and(DecodeError::is_nonsense)
}

pub(super) fn rng() -> rand::rngs::ChaCha12Rng {
    use rand::SeedableRng as _;
    let mut seed = [0; 32];
    // Without randomness every exchange is the same one, which is slower, not wrong.
    let _ = getrandom::fill(&mut seed);
    rand::rngs::ChaCha12Rng::from_seed(seed)
}

/// Exchanges views with a random peer every `every`, and with each one that `connected` names.
pub(super) async fn run(
    network: Network,
    every: Duration,
    mut connected: mpsc::Receiver<NodeId>,
    events: mpsc::Sender<driver::Event>,
) {
    let mut ticks = tokio::time::interval(every);
    loop {
        let partner = tokio::select! {
            partner = connected.recv() => match partner {
                Some(partner) => Some(partner),
                None => return,
            },
            _ = ticks.tick() => network.view().random_connected(&mut rng()),
        };
        let Some(partner) = partner else { continue };
        let (network, events) = (network.clone(), events.clone());
        tokio::spawn(async move {
            let exchanged = tokio::time::timeout(TIMEOUT, exchange(&network, partner, &events)).await;
            if let Ok(Err(error)) = exchanged {
                tracing::debug!(peer = partner.short(), %error, "no view exchange");
            }
        });
    }
}

async fn exchange(network: &Network, partner: NodeId, events: &mpsc::Sender<driver::Event>) -> Result<(), String> {
    let mut stream = network.open(partner, &network.names.view).await?;
    let known = ListMax::truncated(network.view().digest(clock::tick(), &mut rng()));
    let failed = |error: std::io::Error| error.to_string();
    write(&mut stream, &ViewRequest::Exchange { now: clock::unix(), known }).await.map_err(failed)?;
    let ViewReply::Exchange { now, adverts, wanted } = read(&mut stream).await.map_err(failed)? else {
        return Err("it answers something else".into());
    };
    network.note_clock(partner, now);
    take_all(network, adverts.into_vec(), events).await;
    if !wanted.is_empty() {
        let adverts = ListMax::truncated(network.view().adverts(&wanted));
        write(&mut stream, &ViewRequest::Push { adverts }).await.map_err(failed)?;
        let _: ViewReply = read(&mut stream).await.map_err(failed)?;
    }
    let _ = stream.close().await;
    Ok(())
}

async fn take_all(network: &Network, adverts: Vec<SignedAdvert>, events: &mpsc::Sender<driver::Event>) {
    for advert in adverts {
        let change = gossip::take(network, advert.clone(), events).await;
        // Whoever leaves may be gone before its last word has spread.
        if change == Ok(Some(Change::Left)) {
            network.publish(Topic::Capabilities, envelope::seal(&advert)).await;
        }
    }
}

/// Answers others' exchanges.
pub(super) async fn serve(
    network: Network,
    mut incoming: libp2p_stream::IncomingStreams,
    events: mpsc::Sender<driver::Event>,
) {
    while let Some((peer, stream)) = incoming.next().await {
        let Some(node) = NodeId::from_peer_id(&peer) else { continue };
        let (network, events) = (network.clone(), events.clone());
        tokio::spawn(async move {
            let answered = tokio::time::timeout(TIMEOUT, answer(&network, node, stream, events)).await;
            if let Ok(Err(error)) = answered
                && is_nonsense(&error)
            {
                network.offended(node, "a view request that is none").await;
            }
        });
    }
}

async fn answer(
    network: &Network,
    node: NodeId,
    mut stream: Stream,
    events: mpsc::Sender<driver::Event>,
) -> std::io::Result<()> {
    // An exchange, perhaps followed by a push.
    for _ in 0..2 {
        let reply = match read::<ViewRequest>(&mut stream).await? {
            ViewRequest::Exchange { now, known } => {
                network.note_clock(node, now);
                let (adverts, wanted) = network.view().compare(&known, clock::tick(), &mut rng());
                let (adverts, wanted) = (ListMax::truncated(adverts), ListMax::truncated(wanted));
                ViewReply::Exchange { now: clock::unix(), adverts, wanted }
            }
            ViewRequest::Push { adverts } => {
                take_all(network, adverts.into_vec(), &events).await;
                ViewReply::Done
            }
            ViewRequest::Detail => ViewReply::Detail(network.detail()),
        };
        write(&mut stream, &reply).await?;
    }
    Ok(())
}

impl Network {
    /// Hands our last advert to `node`, which may not know of us, or that we leave.
    ///
    /// # Errors
    /// If it cannot be reached, in words.
    pub(crate) async fn introduce_to(&self, node: NodeId) -> Result<(), String> {
        let adverts = ListMax::truncated(self.view().adverts(&[self.me]));
        let push = async {
            let mut stream = self.open(node, &self.names.view).await?;
            let failed = |error: std::io::Error| error.to_string();
            write(&mut stream, &ViewRequest::Push { adverts }).await.map_err(failed)?;
            read::<ViewReply>(&mut stream).await.map(|_| ()).map_err(failed)
        };
        tokio::time::timeout(TIMEOUT, push).await.unwrap_or_else(|_| Err("it does not answer".into()))
    }

    /// What `node` says of itself beyond its advert.
    ///
    /// # Errors
    /// If it cannot be asked, in words.
    pub async fn detail_of(&self, node: NodeId) -> Result<NodeDetail, String> {
        if node == self.me {
            return Ok(self.detail());
        }
        let ask = async {
            let mut stream = self.open(node, &self.names.view).await?;
            write(&mut stream, &ViewRequest::Detail).await.map_err(|error| error.to_string())?;
            match read(&mut stream).await.map_err(|error: std::io::Error| error.to_string())? {
                ViewReply::Detail(detail) => Ok(detail),
                ViewReply::Exchange { .. } | ViewReply::Done => Err("it answers something else".to_owned()),
            }
        };
        tokio::time::timeout(TIMEOUT, ask).await.unwrap_or_else(|_| Err("it does not answer".into()))
    }
}
