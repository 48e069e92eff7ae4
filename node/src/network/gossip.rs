//! Judges adverts and calls away from the swarm task: signatures cost time, and a flood must not hold it up.

use std::collections::VecDeque;

use bacnode_protocol::time::{Span, Tick};
use bacnode_protocol::view::{Change, Standing};
use bacnode_protocol::wire::advert::{AdvertError, SignedAdvert};
use bacnode_protocol::wire::call::SignedCall;
use bacnode_protocol::wire::envelope;
use bacnode_protocol::wire::member::Signed;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use tokio::sync::mpsc;

use super::{Command, Network, Observed, Topic, view};
use crate::clock;
use crate::driver;

/// A gossip message that awaits its verdict.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) topic: Topic,
    pub(super) id: MessageId,
    pub(super) from: PeerId,
    pub(super) data: Vec<u8>,
}

/// Calls answered within a time; each is a connection.
const ANSWERS_MAX: usize = 8;
const ANSWERS_PER: Span = Span::secs(1);
/// Gossip messages that may wait; more are not passed on.
pub(super) const QUEUE_MAX: usize = 256;

pub(super) async fn run(network: Network, mut heard: mpsc::Receiver<Heard>, events: mpsc::Sender<driver::Event>) {
    let mut answered = VecDeque::new();
    while let Some(message) = heard.recv().await {
        let judged = match message.topic {
            Topic::Capabilities => match envelope::open::<SignedAdvert>(&message.data) {
                // Whoever passes on what is known to the letter is not to blame.
                Ok(signed) => take(&network, signed, &events).await.map(|change| change != Some(Change::Stale)),
                Err(error) => Err(error.into()),
            },
            Topic::Calls => match envelope::open::<SignedCall>(&message.data) {
                Ok(signed) => answer(&network, &signed, &mut answered),
                Err(error) => Err(error.into()),
            },
            Topic::Members => match (network.members(), envelope::open::<Signed>(&message.data)) {
                (Some(members), Ok(signed)) => {
                    let id = network.view().network();
                    members.hear(&id, signed).await.map_err(|_| AdvertError::Forged)
                }
                (_, Err(error)) => Err(error.into()),
                (None, Ok(_)) => Ok(false),
            },
        };
        let verdict = match judged {
            Ok(true) => MessageAcceptance::Accept,
            // Whoever passes on what is old, or has just expired, is not to blame.
            Ok(false) | Err(AdvertError::Expired { .. }) => MessageAcceptance::Ignore,
            // Nor is whoever speaks a later version.
            Err(AdvertError::Malformed(error)) if !error.is_nonsense() => MessageAcceptance::Ignore,
            // It costs its sender in the mesh. Other programs may pass on what they do not look at: they are not blocked for it.
            Err(AdvertError::Malformed(_) | AdvertError::Forged) => MessageAcceptance::Reject,
        };
        let _ = network.commands.send(Command::Verdict(message.id, message.from, verdict)).await;
    }
}

/// Answers a call with our advert, if chance says so, and not too often.
fn answer(network: &Network, signed: &SignedCall, answered: &mut VecDeque<Tick>) -> Result<bool, AdvertError> {
    let (id, now, me) = (network.view().network(), clock::now(), network.me);
    let call = signed.open(&id, now.unix)?;
    if network.is_put_out(&call.owner) {
        return Ok(false);
    }
    answered.retain(|at| now.tick.since(*at) < ANSWERS_PER);
    if answered.len() < ANSWERS_MAX && network.view().answers(&call, &me, now.unix, &mut view::rng()) {
        answered.push_back(now.tick);
        let network = network.clone();
        tokio::spawn(async move {
            if let Err(error) = network.introduce_to(call.owner).await {
                tracing::debug!(peer = call.owner.short(), %error, "a call is not answered");
            }
        });
    }
    Ok(true)
}

/// Takes an advert into the view, from wherever it came; says what it changed, if it was not known to the letter.
pub(super) async fn take(
    network: &Network,
    signed: SignedAdvert,
    events: &mpsc::Sender<driver::Event>,
) -> Result<Option<Change>, AdvertError> {
    let (id, standing) = {
        let view = network.view();
        (view.network(), view.standing(&signed)?)
    };
    match standing {
        Standing::Known => return Ok(None),
        Standing::Older => return Ok(Some(Change::Stale)),
        Standing::New => {}
    }
    if network.is_put_out(&signed.claimed()?.node) {
        return Ok(Some(Change::Stale));
    }
    let now = clock::now();
    // The signature is looked at while others may look at the view.
    let advert = signed.open(&id, now.unix)?;
    let change = network.view().take(advert.clone(), signed, now);
    match change {
        Change::Joined if advert.node != network.me => {
            tracing::info!(peer = advert.node.short(), name = %*advert.name, "node joined");
            network.tell(Observed::Joined(advert.node, advert.name.to_string()));
            let _ = events.send(driver::Event::ViewGrew(advert.node)).await;
        }
        Change::Left => {
            tracing::info!(peer = advert.node.short(), name = %*advert.name, "node left");
            network.tell(Observed::Left(advert.node, advert.name.to_string()));
        }
        Change::Joined | Change::Updated | Change::Stale => {}
    }
    Ok(Some(change))
}
