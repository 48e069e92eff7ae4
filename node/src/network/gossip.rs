//! Judges adverts away from the swarm task: signatures cost time, and a flood must not hold it up.

use bacnode_protocol::view::Change;
use bacnode_protocol::wire::advert::{AdvertError, SignedAdvert};
use bacnode_protocol::wire::envelope;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use tokio::sync::mpsc;

use super::{Command, Network};
use crate::clock;
use crate::driver;

/// A gossip message that awaits its verdict.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) id: MessageId,
    pub(super) from: PeerId,
    pub(super) data: Vec<u8>,
}

/// Gossip messages that may wait; more are not passed on.
pub(super) const QUEUE_MAX: usize = 256;

pub(super) async fn run(network: Network, mut heard: mpsc::Receiver<Heard>, events: mpsc::Sender<driver::Event>) {
    while let Some(message) = heard.recv().await {
        let verdict = match envelope::open::<SignedAdvert>(&message.data) {
            Ok(signed) => match take(&network, signed, &events).await {
                Ok(()) => MessageAcceptance::Accept,
                // Whoever passes on what has just expired is not to blame.
                Err(AdvertError::Expired { .. }) => MessageAcceptance::Ignore,
                Err(AdvertError::Malformed(_) | AdvertError::Forged) => MessageAcceptance::Reject,
            },
            Err(_) => MessageAcceptance::Reject,
        };
        let _ = network.commands.send(Command::Verdict(message.id, message.from, verdict)).await;
    }
}

/// Takes an advert into the view, from wherever it came.
pub(super) async fn take(
    network: &Network,
    signed: SignedAdvert,
    events: &mpsc::Sender<driver::Event>,
) -> Result<(), AdvertError> {
    let (advert, change) = network.view().offer(signed, clock::now())?;
    match change {
        Change::Joined if advert.node != network.me => {
            tracing::info!(peer = advert.node.short(), name = %*advert.name, "node joined");
            let _ = events.send(driver::Event::ViewGrew).await;
        }
        Change::Left => tracing::info!(peer = advert.node.short(), name = %*advert.name, "node left"),
        Change::Joined | Change::Updated | Change::Stale => {}
    }
    Ok(())
}
