//! How this node is reached: at addresses that were tried, or through relays where none of its own works; and how it reaches
//! those that cannot be called: through their relays, until a hole is punched.
//!
//! In a network that spans the internet private addresses mean nothing to most: they are neither advertised nor put into
//! the DHT. A network all of whose addresses are private is one local network, and takes them for what they are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bacnode_protocol::id::NodeId;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::metrics::Recorder as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad, mdns, relay};

use super::Service;
use crate::network::address::{ip_of, is_circuit, is_private, remote_address, subnet, without_own_id};
use crate::network::behaviour::NatEvent;

/// How long after the first connection an address of one's own may be found to work before relays are asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// Relays through which this node can be reached, if it must.
const RELAYS_WANTED: usize = 2;
/// Before a relay that refused, or was lost, is asked again.
const REST: Duration = Duration::from_secs(15);
/// How long a circuit stays beside a direct connection, which the other end may not have seen yet.
const OVERLAP: Duration = Duration::from_secs(1);
/// Connections to one peer that come to be within this did so together.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Addresses of others that the local network offers at once.
const NEARBY_MAX: usize = 16;

/// What is known of this node's reachability.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Since when it is connected to anybody.
    joined: Option<Instant>,
    /// Peers that pass on.
    relays: HashSet<PeerId>,
    /// Those that were asked, and by which listener they are held.
    asked: HashMap<PeerId, (Option<ListenerId>, Instant)>,
    /// Connections that go through a relay.
    circuits: HashMap<PeerId, HashSet<ConnectionId>>,
    /// The last one to each peer that does not, from where and since when.
    direct: HashMap<PeerId, (ConnectionId, IpAddr, Instant)>,
    /// Those that others took the place of, and until when they stay.
    closing: Vec<(Instant, ConnectionId)>,
    /// Whether others may ask this node in the DHT.
    serves: Option<bool>,
}

impl Service {
    /// Whether this network spans the internet, as far as one can tell from here.
    pub(super) fn is_wide(&self) -> bool {
        let anchors = self.anchors.iter().map(|anchor| &anchor.address);
        anchors.chain(self.swarm.external_addresses()).any(|address| !is_private(address))
    }

    /// The addresses at which others reach this node; what they mean to nobody is left out.
    pub(super) fn confirmed(&self) -> Vec<Multiaddr> {
        let wide = self.is_wide();
        let of_use = |address: &&Multiaddr| !wide || !is_private(address);
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in self.swarm.external_addresses().filter(of_use).map(without_own_id) {
            // js-libp2p says of an address at which it sees this node whose it is, others do not.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.sort_by_key(is_circuit);
        addresses
    }

    /// How others reach this node, in words.
    pub(super) fn reached(&self) -> String {
        if self.peers.is_empty() {
            return "nobody is connected".into();
        }
        let confirmed = self.confirmed();
        let direct: Vec<&Multiaddr> = confirmed.iter().filter(|address| !is_circuit(address)).collect();
        if let Some(address) = direct.iter().find(|address| !is_private(address)) {
            return format!("directly, at {address}");
        }
        if !self.is_wide() {
            return if direct.is_empty() { "not tried yet".into() } else { "directly, on the local network".into() };
        }
        let relays = confirmed.len() - direct.len();
        let how = if relays == 0 {
            "not yet; relays are asked"
        } else {
            "through a relay, and where holes can be punched directly"
        };
        format!("{how} (the router {})", self.router().unwrap_or("was seen by too few peers to say more of it"))
    }

    /// What the router before this node does, by where those see it that it called (RFC 4787 §4.1).
    fn router(&self) -> Option<&'static str> {
        let seen = self.peers.values().filter_map(|peer| peer.seen_at.as_ref());
        let (tcp, udp): (Vec<&Multiaddr>, Vec<&Multiaddr>) =
            seen.partition(|address| address.iter().any(|part| matches!(part, Protocol::Tcp(_))));
        let of = [tcp, udp].into_iter().find(|seen| seen.len() > 1)?;
        let same = of.iter().all(|address| address.iter().take(2).eq(of[0].iter().take(2)));
        Some(if same {
            "keeps one port for all: holes can be punched"
        } else {
            "takes a port for each peer: no hole can be punched, relays do"
        })
    }

    /// Whoever cannot be called asks relays, and does not serve the DHT.
    pub(super) fn be_reachable(&mut self, now: Instant) {
        self.close_replaced(now);
        if self.peers.is_empty() {
            self.reach.joined = None;
            return;
        }
        let joined = *self.reach.joined.get_or_insert(now);
        let direct = self.confirmed().iter().any(|address| !is_circuit(address));
        let callable = direct || !self.is_wide();
        if self.reach.serves.replace(callable) != Some(callable) {
            let mode = if callable { kad::Mode::Server } else { kad::Mode::Client };
            self.swarm.behaviour_mut().kad.set_mode(Some(mode));
        }
        if callable {
            self.leave_relays();
        } else if joined.elapsed() > PATIENCE {
            self.ask_relays(now);
        }
    }

    fn ask_relays(&mut self, now: Instant) {
        self.reach.asked.retain(|_, (listener, at)| listener.is_some() || now.duration_since(*at) < REST);
        let held = self.reach.asked.values().filter(|(listener, _)| listener.is_some()).count();
        let free = self.reach.relays.iter().filter(|relay| !self.reach.asked.contains_key(*relay));
        // At the address at which it was reached.
        let called = |relay: &PeerId| {
            let peer = self.peers.get(relay).filter(|peer| peer.outgoing && !is_circuit(&peer.address))?;
            Some((*relay, peer.address.clone().with_p2p(*relay).ok()?))
        };
        let free: Vec<_> = free.filter_map(called).take(RELAYS_WANTED.saturating_sub(held)).collect();
        for (relay, address) in free {
            let listening = self.swarm.listen_on(address.with(Protocol::P2pCircuit));
            self.reach.asked.insert(relay, (listening.ok(), now));
        }
    }

    fn leave_relays(&mut self) {
        for (_, (listener, _)) in self.reach.asked.drain() {
            if let Some(listener) = listener {
                self.swarm.remove_listener(listener);
            }
        }
    }

    pub(super) fn relay_lost(&mut self, lost: ListenerId) {
        for (listener, at) in self.reach.asked.values_mut().filter(|(listener, _)| *listener == Some(lost)) {
            (*listener, *at) = (None, Instant::now());
        }
    }

    pub(super) fn forget_relay(&mut self, peer: &PeerId) {
        self.reach.relays.remove(peer);
    }

    pub(super) fn note_relay(&mut self, peer: PeerId, protocols: &[StreamProtocol]) {
        if protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            self.reach.relays.insert(peer);
        } else {
            self.reach.relays.remove(&peer);
        }
    }

    /// Once there is a direct connection, what goes through a relay would only be slower and dearer.
    pub(super) fn prefer_direct(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        if endpoint.is_relayed() {
            self.reach.circuits.entry(peer).or_default().insert(connection);
            return;
        }
        self.follow(peer, connection, endpoint);
        let circuits = self.reach.circuits.remove(&peer).unwrap_or_default();
        let over = Instant::now() + OVERLAP;
        self.reach.closing.extend(circuits.iter().map(|circuit| (over, *circuit)));
        if let Some(info) = self.peers.get_mut(&peer).filter(|_| !circuits.is_empty()) {
            info.address = remote_address(endpoint);
            info.outgoing = endpoint.is_dialer();
            tracing::info!(peer = info.node.short(), address = %info.address, "connected directly");
        }
    }

    /// A peer that comes from elsewhere has moved, and what it left behind leads nowhere though it looks alive. Two connections
    /// that came to be at once are not that: both ends may have called.
    fn follow(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(ip) = ip_of(endpoint.get_remote_address()) else { return };
        let now = Instant::now();
        let Some((old, from, since)) = self.reach.direct.insert(peer, (connection, ip, now)) else { return };
        if from == ip || now.duration_since(since) < AT_ONCE {
            return;
        }
        self.reach.closing.push((now + OVERLAP, old));
        if let Some(info) = self.peers.get_mut(&peer) {
            info.address = remote_address(endpoint);
            info.outgoing = endpoint.is_dialer();
            tracing::info!(peer = info.node.short(), address = %info.address, "it has moved");
        }
    }

    /// Gives up connections that are not needed any more.
    fn close_replaced(&mut self, now: Instant) {
        for (_, circuit) in self.reach.closing.extract_if(.., |(over, _)| *over <= now) {
            self.swarm.close_connection(circuit);
        }
    }

    pub(super) fn forget_connection(&mut self, peer: &PeerId, connection: ConnectionId) {
        if self.reach.direct.get(peer).is_some_and(|(direct, ..)| *direct == connection) {
            self.reach.direct.remove(peer);
        }
        if let Some(circuits) = self.reach.circuits.get_mut(peer) {
            circuits.remove(&connection);
            if circuits.is_empty() {
                self.reach.circuits.remove(peer);
            }
        }
    }

    /// A peer that is reached through a relay may stand in the same room.
    pub(super) fn call_neighbour(&mut self, peer: PeerId, listens: &[Multiaddr]) {
        if !self.reach.circuits.contains_key(&peer) {
            return;
        }
        let own: HashSet<_> = self.swarm.listeners().filter(|own| is_private(own)).filter_map(subnet).collect();
        let near = |address: &&Multiaddr| is_private(address) && subnet(address).is_some_and(|net| own.contains(&net));
        let addresses: Vec<Multiaddr> = listens.iter().filter(near).take(4).cloned().collect();
        if !addresses.is_empty() {
            let call = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses);
            let _ = self.swarm.dial(call.build());
        }
    }

    pub(super) fn found_nearby(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for (peer, address) in found.into_iter().take(NEARBY_MAX) {
            peers.entry(peer).or_default().push(address);
        }
        for (peer, addresses) in peers {
            if NodeId::from_peer_id(&peer).is_some_and(|node| node != self.network.me) {
                let call = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing);
                let _ = self.swarm.dial(call.addresses(addresses).build());
            }
        }
    }

    pub(super) fn nat(&mut self, event: NatEvent) {
        match event {
            NatEvent::Relayed(relay::client::Event::ReservationReqAccepted {
                relay_peer_id, renewal: false, ..
            }) => {
                tracing::info!(relay = %relay_peer_id, "others reach this node through a relay");
            }
            NatEvent::Punch(event) => {
                self.metrics.record(&event);
                match event.result {
                    Ok(_) => tracing::debug!(peer = %event.remote_peer_id, "a hole is punched"),
                    Err(error) => tracing::debug!(peer = %event.remote_peer_id, %error, "no hole can be punched"),
                }
            }
            NatEvent::Relays(event) => self.metrics.record(&event),
            NatEvent::Asks(event) => {
                let works = event.result.is_ok();
                tracing::debug!(address = %event.tested_addr, works, "an address was tried from outside");
            }
            NatEvent::Relayed(_) | NatEvent::Tries(_) => {}
        }
    }
}
