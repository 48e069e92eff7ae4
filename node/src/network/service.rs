//! The swarm task: dispatches events, performs commands, keeps connections.

mod dht;
mod dial;
mod keep;
mod listen;
mod reach;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::time::Span;
use bacnode_protocol::view::View;
use bacnode_protocol::wire::Names;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::wire::view::NodeDetail;
use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::metrics::{Metrics, Recorder as _, Registry};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify, kad, ping};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::dht::{LookUpMetrics, PROVIDES_BURST};
use self::dial::Anchor;
use self::reach::Reach;
use super::address::{ip_of, is_circuit, is_private, remote_address};
use super::behaviour::{Behaviour, BehaviourEvent, SetupError};
use super::blocks::Blocks;
use super::pace::Pace;
use super::{Command, Members, Network, Topic, dag, gossip, live, market, transport, view};
use crate::config::{Config, Role};
use crate::content::Content;
use crate::driver;
use crate::engine::Runner;
use crate::identity::Identity;
use crate::store::Store;

/// Commands that may wait for the swarm.
const COMMANDS_MAX: usize = 1024;
/// How often the connections are looked after.
const CARE: Duration = Duration::from_millis(500);
/// Fewer listeners than gossip needs to spread: each new one is worth an advert.
const LISTENERS_FEW: usize = 3;
/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub address: Multiaddr,
    /// Whether we called.
    pub outgoing: bool,
    /// Since when.
    pub since: Instant,
    /// Round trip.
    pub rtt: Option<Duration>,
    /// Its program.
    pub agent: String,
    /// Whether it left the last ping unanswered.
    silent: bool,
    /// What it sent that no honest node sends.
    offences: u32,
    /// Where it sees this node, which called it.
    seen_at: Option<Multiaddr>,
}

/// What the streams are served from. A bootstrap peer serves only views.
pub(crate) struct Handlers {
    pub(crate) content: Option<Content>,
    pub(crate) events: mpsc::Sender<driver::Event>,
}

/// A network that runs, and what is needed to go on.
pub(crate) struct Started {
    pub(crate) network: Network,
    pub(crate) listening: Vec<Multiaddr>,
    pub(crate) task: tokio::task::JoinHandle<()>,
    live: Option<libp2p_stream::IncomingStreams>,
}

impl Started {
    /// Lets owners read what their runs print here, and others how the jobs are that this node leads.
    pub(crate) fn serve_live(&mut self, runner: Runner, teller: Arc<dyn live::Teller>) {
        if let Some(incoming) = self.live.take() {
            tokio::spawn(live::serve(runner, teller, incoming));
        }
    }
}

/// Starts the swarm and every stream's accept loop.
///
/// # Errors
/// If the settings contradict each other, or an address cannot be listened on.
pub(crate) async fn start(
    config: &Config,
    identity: &Identity,
    store: &Store,
    handlers: Handlers,
    stop: CancellationToken,
) -> Result<Started, SetupError> {
    let names = Arc::new(Names::new(&config.network));
    let mut counted = Registry::with_prefix("bacnode");
    let totals = crate::metrics::Metrics::new(&mut counted);
    let signer = Signer::new(identity.signing.clone(), config.network_id());
    let members = Members::of(config, signer, store).map_err(|error| SetupError(error.to_string()))?;
    let (transport, circuits) = transport::build(config, &identity.keypair, members.clone(), &mut counted)?;
    let blocks = Blocks::open(store, &config.deny_peers).map_err(|error| SetupError(error.to_string()))?;
    let behaviour = Behaviour::new(config, &names, &identity.keypair, circuits, store, &blocks, &mut counted)?;
    let (metrics, look_up_metrics) = (Metrics::new(&mut counted), LookUpMetrics::new(&mut counted));
    let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    let mut swarm = Swarm::new(transport, behaviour, identity.keypair.public().to_peer_id(), settings);
    let listening = listen::listen(&mut swarm, config).await?;
    let me = NodeId::of(&identity.signing.verifying_key());
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let network = Network {
        me,
        names: Arc::clone(&names),
        view: Arc::new(Mutex::new(View::of(config.network_id(), me, config.view_max))),
        commands,
        control: swarm.behaviour().stream.new_control(),
        skews: Arc::default(),
        complaints: Arc::default(),
        detail: Arc::new(Mutex::new(NodeDetail::default())),
        busy: super::busy::Busy::default(),
        members,
        blocks,
        upload: Pace::of(totals.content_sent.clone(), config.upload_max),
        download: Pace::of(totals.content_received.clone(), config.download_max),
        totals,
        counted: Arc::new(counted),
        observed: tokio::sync::broadcast::channel(super::OBSERVED_MAX).0,
    };
    let mut control = network.control.clone();
    let mut accept = |name: &str| {
        let protocol =
            libp2p::StreamProtocol::try_from_owned(name.to_owned()).map_err(|e| SetupError(e.to_string()))?;
        control.accept(protocol).map_err(|error| SetupError(error.to_string()))
    };
    let (connected_sender, connected) = mpsc::channel(256);
    let (heard_sender, heard) = mpsc::channel(gossip::QUEUE_MAX);
    tokio::spawn(view::serve(network.clone(), accept(&names.view)?, handlers.events.clone()));
    let every = Duration::from_secs(config.gossip.view_s.max(1));
    tokio::spawn(view::run(network.clone(), every, connected, handlers.events.clone()));
    tokio::spawn(gossip::run(network.clone(), heard, handlers.events.clone()));
    let mut live = None;
    if config.role == Role::Full {
        tokio::spawn(market::serve(network.clone(), accept(&names.market)?, handlers.events.clone()));
        live = Some(accept(&names.live)?);
        if let Some(content) = handlers.content {
            tokio::spawn(dag::serve(network.clone(), content, accept(&names.dag)?));
        }
    }
    let known = store.known_peers().map_err(|error| SetupError(error.to_string()))?;
    let service = Service {
        capabilities: gossipsub::IdentTopic::new(&names.capabilities).hash(),
        calls: gossipsub::IdentTopic::new(&names.calls).hash(),
        members: gossipsub::IdentTopic::new(&names.members).hash(),
        kad_name: names.kad.clone(),
        peers_wanted: config.peers_wanted,
        connections_max: config.connections_max as usize,
        network: network.clone(),
        store: store.clone(),
        events: handlers.events,
        own_memory_max: config.own_memory_max,
        peers: HashMap::new(),
        anchors: config.bootstrap.iter().map(|address| Anchor::new(address.clone())).collect(),
        known: known.into_iter().filter(|(node, _)| *node != me).collect(),
        connecting: HashMap::new(),
        routes: HashMap::new(),
        look_ups: HashMap::new(),
        provides: BTreeSet::new(),
        provides_left: PROVIDES_BURST,
        in_table: HashSet::new(),
        tried: HashMap::new(),
        reach: Reach::default(),
        connected: connected_sender,
        heard: heard_sender,
        swarm,
        metrics,
        look_up_metrics,
    };
    let task = tokio::spawn(service.run(receiver, stop));
    Ok(Started { network, listening, task, live })
}

struct Service {
    swarm: Swarm<Behaviour>,
    network: Network,
    store: Store,
    events: mpsc::Sender<driver::Event>,
    capabilities: gossipsub::TopicHash,
    calls: gossipsub::TopicHash,
    members: gossipsub::TopicHash,
    kad_name: String,
    peers_wanted: usize,
    connections_max: usize,
    own_memory_max: u64,
    peers: HashMap<PeerId, PeerInfo>,
    anchors: Vec<Anchor>,
    known: Vec<(NodeId, Multiaddr)>,
    connecting: HashMap<NodeId, Vec<oneshot::Sender<Result<(), String>>>>,
    /// Nodes whose addresses are looked up.
    routes: HashMap<kad::QueryId, NodeId>,
    look_ups: HashMap<kad::QueryId, dht::LookUp>,
    provides: BTreeSet<Cid>,
    provides_left: usize,
    /// Nodes of the view that were handed to the DHT.
    in_table: HashSet<NodeId>,
    /// When each node of the view was last called, so that a dead one is not called all the time.
    tried: HashMap<NodeId, Instant>,
    reach: Reach,
    connected: mpsc::Sender<NodeId>,
    heard: mpsc::Sender<gossip::Heard>,
    metrics: Metrics,
    look_up_metrics: LookUpMetrics,
}

impl Service {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mut care = tokio::time::interval(CARE);
        care.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Rare, and not to be held up by a busy network.
                _ = care.tick() => self.care(),
                Some(command) = commands.recv() => self.command(command),
                event = self.swarm.select_next_some() => self.event(event).await,
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Dial(address) => _ = self.swarm.dial(address),
            Command::Connect(node, answer) => self.connect(node, answer),
            Command::Publish(topic, message) => {
                let hash = match topic {
                    Topic::Capabilities => &self.capabilities,
                    Topic::Calls => &self.calls,
                    Topic::Members => &self.members,
                };
                if let Err(error) = self.swarm.behaviour_mut().gossip.publish(hash.clone(), message) {
                    tracing::debug!(?topic, %error, "it goes to nobody now");
                }
            }
            Command::Verdict(id, from, verdict) => {
                self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, verdict);
            }
            Command::Provide(root) => self.provide(root),
            Command::Providers(root, tag, answer) => self.look_up(root, tag, answer),
            Command::Peers(answer) => _ = answer.send(self.peers.values().cloned().collect()),
            Command::Reach(answer) => _ = answer.send(self.reached()),
            Command::HangUp(node) => _ = node.peer_id().map(|peer| self.swarm.disconnect_peer_id(peer)),
            Command::Block(node) => self.block(node),
            Command::Unblock(node) => self.unblock(node),
            Command::Offence(node) => self.mark_down(node),
            Command::Addresses(confirmed, answer) => _ = answer.send(self.addresses(confirmed)),
        }
    }

    /// Confirmed addresses first, then (if wanted) those that are only listened on.
    fn addresses(&self, confirmed: bool) -> Vec<Multiaddr> {
        let mut addresses = self.confirmed();
        for address in self.swarm.listeners().filter(|_| !confirmed) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Keeps the anchors, enough peers, and the announcements going.
    fn care(&mut self) {
        let now = Instant::now();
        self.call_anchors(now);
        self.be_reachable(now);
        // Whoever says nothing of what it can do is no peer to find others through.
        if self.network.view().connected_known() < self.peers_wanted {
            self.seek_peers(now);
        }
        self.trim();
        self.look_who_stays();
        self.fill_table();
        self.end_bootstrap();
        self.announce_more();
        let gone = self.network.view().expire(crate::clock::tick());
        for node in gone {
            tracing::info!(peer = node.short(), "node is not heard any more");
        }
    }

    async fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.ping(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.found_nearby(event),
            SwarmEvent::Behaviour(BehaviourEvent::Nat(event)) => self.nat(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.prefer_direct(peer_id, connection_id, &endpoint);
                self.established(peer_id, &endpoint, num_established.get()).await;
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.forget_connection(&peer_id, connection_id);
                if num_established == 0 {
                    self.closed(peer_id).await;
                }
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => self.relay_lost(listener_id),
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                let _ = self.events.try_send(driver::Event::AddressesChanged);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => self.not_reached(peer_id, &error),
            // Of another swarm key, perhaps, or of none.
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "who called is not let in");
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::info!(%address, "not listening there any more");
                self.swarm.remove_external_address(&address);
                self.try_all();
            }
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "listening"),
            _ => {}
        }
    }

    fn gossip(&mut self, event: gossipsub::Event) {
        self.metrics.record(&event);
        if let gossipsub::Event::Subscribed { .. } = event {
            // What was said so far reached next to nobody. Later ones are told of us by their view exchange.
            if self.swarm.behaviour().gossip.all_peers().count() <= LISTENERS_FEW {
                let _ = self.events.try_send(driver::Event::AddressesChanged);
            }
        }
        if let gossipsub::Event::Message { propagation_source, message_id, message } = event {
            let topic = match &message.topic {
                topic if *topic == self.calls => Topic::Calls,
                topic if *topic == self.members => Topic::Members,
                _ => Topic::Capabilities,
            };
            let heard = gossip::Heard { topic, id: message_id.clone(), from: propagation_source, data: message.data };
            if self.heard.try_send(heard).is_err() {
                let ignore = gossipsub::MessageAcceptance::Ignore;
                self.swarm.behaviour_mut().gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    ignore,
                );
            }
        }
    }

    fn identify(&mut self, event: identify::Event) {
        self.metrics.record(&event);
        // What it pushes comes as this, too; `Pushed` is what we told it of ourselves.
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.agent = info.agent_version.chars().filter(|c| !c.is_control()).take(64).collect();
        }
        tracing::debug!(peer = %peer_id, protocols = ?info.protocols, observed = %info.observed_addr, "identified");
        // A neighbour may be of another network, which has nothing to say to us.
        if info.protocol_version.starts_with("/bacnode/") && info.protocol_version != self.network.names.identify {
            self.of_another_network(peer_id, &info.protocol_version);
            return;
        }
        self.anchor_answers(peer_id);
        if let Some(peer) = self.peers.get_mut(&peer_id).filter(|peer| peer.outgoing && !is_circuit(&peer.address)) {
            peer.seen_at = Some(info.observed_addr.clone());
        }
        self.note_relay(peer_id, &info.protocols);
        self.call_neighbour(peer_id, &info.listen_addrs);
        let wide = self.is_wide();
        if info.protocols.iter().any(|protocol| protocol.as_ref() == self.kad_name) {
            for address in info.listen_addrs.into_iter().filter(|address| !wide || !is_private(address)).take(8) {
                self.put_in_table(peer_id, address);
            }
        }
        // The peer sees us at an address of ours: then whoever sees the same network can call us there. In the internet there
        // are firewalls, and it is tried.
        if let Some(ip) = ip_of(&info.observed_addr).filter(|_| !wide && !is_circuit(&info.observed_addr)) {
            let ours: Vec<Multiaddr> = self.swarm.listeners().filter(|a| ip_of(a) == Some(ip)).cloned().collect();
            for address in ours {
                self.confirm(address);
            }
        }
    }

    fn confirm(&mut self, address: Multiaddr) {
        if !self.swarm.external_addresses().any(|known| *known == address) {
            tracing::debug!(%address, "address confirmed");
            self.swarm.add_external_address(address);
            let _ = self.events.try_send(driver::Event::AddressesChanged);
        }
    }

    fn ping(&mut self, event: ping::Event) {
        self.metrics.record(&event);
        let Some(peer) = self.peers.get_mut(&event.peer) else { return };
        let rtt = match event.result {
            Ok(rtt) => rtt,
            Err(ping::Failure::Unsupported) => return,
            // A connection of which the other end knows nothing looks like any other, and is in the way of a new one.
            Err(_) if peer.silent => {
                tracing::debug!(peer = peer.node.short(), "does not answer on this connection");
                self.swarm.close_connection(event.connection);
                return;
            }
            Err(_) => {
                peer.silent = true;
                return;
            }
        };
        peer.rtt = Some(rtt);
        peer.silent = false;
        let span = Span(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        self.network.view().measured(peer.node, span);
    }

    async fn established(&mut self, peer: PeerId, endpoint: &ConnectedPoint, count: u32) {
        let Some(node) = NodeId::from_peer_id(&peer) else {
            // Only Ed25519 keys sign adverts and results here.
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        let (address, called) = (remote_address(endpoint), endpoint.get_remote_address().clone());
        if let ConnectedPoint::Listener { local_addr, .. } = endpoint
            && !is_circuit(local_addr)
        {
            // Somebody came in by this address: it works.
            self.confirm(local_addr.clone());
        }
        if count > 1 {
            return;
        }
        tracing::debug!(peer = node.short(), %address, "connected");
        if endpoint.is_dialer() && !is_circuit(&address) {
            self.put_in_table(peer, address.clone());
            if let Err(error) = self.store.remember_peer(&node, &address) {
                tracing::warn!(%error, "cannot remember a peer");
            }
        }
        for anchor in self.anchors.iter_mut().filter(|anchor| anchor.address == called || anchor.peer == Some(peer)) {
            anchor.peer = Some(peer);
        }
        let info = PeerInfo {
            node,
            address,
            outgoing: endpoint.is_dialer(),
            since: Instant::now(),
            rtt: None,
            agent: String::new(),
            silent: false,
            offences: 0,
            seen_at: None,
        };
        self.peers.insert(peer, info);
        self.network.view().connected(node);
        self.answer_connect(&node, Ok(()));
        // One exchange tells both; and those who know each other have heard the same gossip.
        if endpoint.is_dialer() && self.network.view().get(&node).is_none() {
            let _ = self.connected.try_send(node);
        }
        let _ = self.events.send(driver::Event::PeerUp(node)).await;
    }

    async fn closed(&mut self, peer: PeerId) {
        let Some(info) = self.peers.remove(&peer) else { return };
        tracing::debug!(peer = info.node.short(), "disconnected");
        self.hung_up(peer, &info);
        self.forget_relay(&peer);
        self.network.view().disconnected(&info.node);
        let _ = self.events.send(driver::Event::PeerDown(info.node)).await;
    }
}
