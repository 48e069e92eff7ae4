//! Calling: the operator's addresses for ever, as many peers as are wanted, and whomever somebody needs.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bacnode_protocol::id::NodeId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use rand::seq::IndexedRandom as _;
use tokio::sync::oneshot;

use super::listen::deepest;
use super::{PeerInfo, Service};

/// Pauses between attempts to reach one address.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Rests of a bootstrap peer that this node can do without.
const REST_MIN: Duration = Duration::from_secs(15);
const REST_MAX: Duration = Duration::from_secs(600);
/// Nodes that are called at once for want of peers.
const SOUGHT_AT_ONCE: usize = 2;
/// Nodes whose addresses are looked up in the DHT at one time.
const ROUTES_MAX: usize = 64;
/// A connection is not given up before somebody has had time to use it.
const SETTLED: Duration = Duration::from_secs(5);

/// An address that the operator named, to be reached for ever.
pub(super) struct Anchor {
    pub(super) address: Multiaddr,
    pub(super) peer: Option<PeerId>,
    next: Instant,
    pause: Duration,
    /// Before it is called again that has let go of this node, which has others.
    rest: Duration,
    warned: bool,
}

impl Anchor {
    pub(super) fn new(address: Multiaddr) -> Self {
        let peer = address.iter().find_map(|protocol| match protocol {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        Self { address, peer, next: Instant::now(), pause: RETRY_MIN, rest: REST_MIN, warned: false }
    }

    /// Whether this is to be said: once, until it answers.
    fn first(&mut self) -> bool {
        !std::mem::replace(&mut self.warned, true)
    }
}

impl Service {
    pub(super) fn connect(&mut self, node: NodeId, answer: oneshot::Sender<Result<(), String>>) {
        let Some(peer) = node.peer_id() else {
            let _ = answer.send(Err("it has no valid id".into()));
            return;
        };
        if self.swarm.is_connected(&peer) {
            let _ = answer.send(Ok(()));
            return;
        }
        let waiting = self.connecting.entry(node).or_default();
        waiting.retain(|waiting| !waiting.is_closed());
        waiting.push(answer);
        if waiting.len() == 1 {
            self.call(node, peer);
        }
    }

    /// Dials `peer` at every address that is known for it.
    pub(super) fn call(&mut self, node: NodeId, peer: PeerId) {
        let advertised = self.network.view().get(&node).map(|known| known.advert.addresses.clone());
        let mut addresses: Vec<Multiaddr> = advertised
            .iter()
            .flatten()
            .filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok())
            .chain(self.known.iter().filter(|(known, _)| *known == node).map(|(_, address)| address.clone()))
            .collect();
        addresses.truncate(8);
        self.tried.insert(node, Instant::now());
        if addresses.is_empty() {
            // Those who are near it in the DHT know where it is.
            if self.routes.len() < ROUTES_MAX {
                let query = self.swarm.behaviour_mut().kad.get_closest_peers(peer);
                self.routes.insert(query, node);
            } else {
                self.answer_connect(&node, Err("too many nodes are looked for at once"));
            }
            return;
        }
        self.dial(node, peer, addresses);
    }

    /// Dials a node at these addresses, and at what else is known of it.
    pub(super) fn dial(&mut self, node: NodeId, peer: PeerId, addresses: Vec<Multiaddr>) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        if let Err(error) = self.swarm.dial(options) {
            // A dial that is under way already will answer.
            if !matches!(error, libp2p::swarm::DialError::DialPeerConditionFalse(_)) {
                self.answer_connect(&node, Err("no address of it is known"));
            }
        }
    }

    pub(super) fn answer_connect(&mut self, node: &NodeId, result: Result<(), &str>) {
        for answer in self.connecting.remove(node).unwrap_or_default() {
            let _ = answer.send(result.map_err(str::to_owned));
        }
    }

    /// Calls those of the operator's addresses that are not connected and whose pause is over.
    pub(super) fn call_anchors(&mut self, now: Instant) {
        let connected: Vec<PeerId> = self.peers.keys().copied().collect();
        for anchor in &mut self.anchors {
            if anchor.peer.is_some_and(|peer| connected.contains(&peer)) {
                anchor.next = now + anchor.pause;
            } else if anchor.next <= now {
                anchor.next = now + anchor.pause;
                anchor.pause = (anchor.pause * 2).min(RETRY_MAX);
                let _ = self.swarm.dial(anchor.address.clone());
            }
        }
    }

    /// Gives up the oldest connections that nobody needs once most of the room is taken: whoever is full can be reached by
    /// nobody new, and can call nobody.
    pub(super) fn trim(&mut self) {
        if self.peers.len() <= self.connections_max * 5 / 8 {
            return;
        }
        let mut needed: HashSet<PeerId> = self.swarm.behaviour().gossip.all_mesh_peers().copied().collect();
        needed.extend(self.anchors.iter().filter_map(|anchor| anchor.peer));
        let idle = |(peer, info): &(&PeerId, &PeerInfo)| {
            let settled = info.since.elapsed() > SETTLED && !self.connecting.contains_key(&info.node);
            settled && !needed.contains(*peer) && !self.network.busy.contains(&info.node)
        };
        let mut idle: Vec<(Instant, PeerId)> =
            self.peers.iter().filter(idle).map(|(peer, info)| (info.since, *peer)).collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(self.peers.len() - self.connections_max / 2);
        for (_, peer) in idle {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Calls a few nodes: of the view, or known from before when the view is empty.
    pub(super) fn seek_peers(&mut self, now: Instant) {
        let me = self.network.me;
        let from_view: Vec<NodeId> = self.network.view().iter().map(|(node, _)| *node).collect();
        let from_before = self.known.iter().map(|(node, _)| *node);
        let rested = |node: &NodeId| self.tried.get(node).is_none_or(|at| now.duration_since(*at) > RETRY_MAX / 4);
        let candidates = from_view.into_iter().chain(from_before).filter(|node| *node != me && rested(node));
        let candidates = candidates.filter_map(|node| Some((node, node.peer_id()?)));
        let candidates: Vec<_> = candidates.filter(|(_, peer)| !self.peers.contains_key(peer)).collect();
        // Not the first ones, or everybody would call the same.
        for &(node, peer) in candidates.sample(&mut super::super::view::rng(), SOUGHT_AT_ONCE) {
            self.call(node, peer);
        }
        if self.tried.len() > 4096 {
            self.tried.retain(|_, at| now.duration_since(*at) < RETRY_MAX);
        }
    }

    /// Whoever the operator named stays, and is complained of once; others have nothing to say to us.
    pub(super) fn of_another_network(&mut self, peer: PeerId, theirs: &str) {
        let Some(anchor) = self.anchors.iter_mut().find(|anchor| anchor.peer == Some(peer)) else {
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        let network = theirs.split('/').nth(2).unwrap_or_default();
        let network: String = network.chars().filter(|c| !c.is_control()).take(32).collect();
        self.network.complain(&anchor.address, Some(format!("it is of another network, `{network}` (--network)")));
        if anchor.first() {
            tracing::warn!(address = %anchor.address, network, "a bootstrap peer is of another network (--network)");
        }
    }

    /// A bootstrap peer is there, and speaks to us.
    pub(super) fn anchor_answers(&mut self, peer: PeerId) {
        for anchor in self.anchors.iter_mut().filter(|anchor| anchor.peer == Some(peer)) {
            anchor.pause = RETRY_MIN;
            anchor.warned = false;
            self.network.complain(&anchor.address, None);
        }
    }

    /// A connection that was closed before anything was said may have been turned away by what only the other end knows.
    pub(super) fn hung_up(&mut self, peer: PeerId, info: &PeerInfo) {
        let enough = self.peers_wanted > 0 && self.network.view().connected_known() >= self.peers_wanted;
        let Some(anchor) = self.anchors.iter_mut().find(|anchor| anchor.peer == Some(peer)) else { return };
        if enough {
            // It may be full, and have others to help: the more so, the sooner it lets go again.
            let soon = info.since.elapsed() < REST_MAX;
            anchor.rest = if soon { (anchor.rest * 2).min(REST_MAX) } else { REST_MIN };
            anchor.next = Instant::now() + anchor.rest;
        }
        if info.agent.is_empty() {
            let why = "it hangs up before it says who it is; a swarm with a founder takes an invite (--join)";
            self.network.complain(&anchor.address, Some(why.into()));
            if anchor.first() {
                tracing::warn!(address = %anchor.address, "a bootstrap peer cannot be joined: {why}");
            }
        }
    }

    pub(super) fn not_reached(&mut self, peer: Option<PeerId>, error: &libp2p::swarm::DialError) {
        if let Some(node) = peer.as_ref().and_then(NodeId::from_peer_id) {
            self.answer_connect(&node, Err("it cannot be reached"));
        }
        let text = error.to_string();
        tracing::debug!(?peer, error = %text, "a call came to nothing");
        let anchor = self
            .anchors
            .iter_mut()
            .find(|anchor| anchor.peer.is_some() && anchor.peer == peer || text.contains(&anchor.address.to_string()));
        let Some(anchor) = anchor else { return };
        let reason = reason(error);
        self.network.complain(&anchor.address, Some(format!("it cannot be reached: {reason}")));
        if matches!(error, libp2p::swarm::DialError::LocalPeerId { .. }) {
            tracing::warn!(address = %anchor.address, "a bootstrap address is this node's own (is its key on two machines?)");
        } else if anchor.first() {
            tracing::warn!(address = %anchor.address, reason, "a bootstrap peer cannot be reached; it is tried again");
        }
    }
}

impl crate::network::Network {
    /// Notes what is wrong with a bootstrap address, or that nothing is.
    fn complain(&self, address: &Multiaddr, complaint: Option<String>) {
        let mut complaints = self.complaints.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match complaint {
            Some(complaint) => _ = complaints.insert(address.clone(), complaint),
            None => _ = complaints.remove(address),
        }
    }
}

/// What a connection that came to be and then did not go on may mean.
fn in_handshake(cause: String) -> String {
    let hung_up = ["reset by peer", "end of file", "eof", "Broken pipe"].iter().any(|text| cause.contains(text));
    let silent = ["Timeout", "timed out"].iter().any(|text| cause.contains(text));
    match (hung_up, silent) {
        (true, _) => {
            format!("it hangs up in the handshake ({cause}): it takes another swarm key, or none, or has no room")
        }
        (_, true) => format!("it says nothing in the handshake ({cause}): it may take a swarm key"),
        _ => cause,
    }
}

/// The cause of a failed call, in words.
fn reason(error: &libp2p::swarm::DialError) -> String {
    use libp2p::swarm::DialError;
    match error {
        DialError::WrongPeerId { obtained, .. } => format!("another peer answers there: {obtained}"),
        DialError::Transport(errors) => errors.first().map_or_else(
            || "no address".to_owned(),
            |(_, error)| match error {
                libp2p::TransportError::Other(error) => in_handshake(deepest(error)),
                libp2p::TransportError::MultiaddrNotSupported(_) => "this kind of address is not offered".to_owned(),
            },
        ),
        other => other.to_string(),
    }
}
