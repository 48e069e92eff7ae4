//! What the swarm is made of.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::Names;
use libp2p::allow_block_list::{AllowedPeers, BlockedPeers};
use libp2p::identity::Keypair;
use libp2p::metrics::Registry;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, allow_block_list, autonat, connection_limits, dcutr, gossipsub, identify, kad, mdns, ping,
    relay,
};
use sha2::{Digest, Sha256};

use super::blocks::Blocks;
use super::crowd;
use crate::config::{Config, RelayLimits};
use crate::store::{ProviderStore, Store};

/// Nodes that are told who has a root, and that must agree before a look-up ends. Most of what a look-up costs is calling
/// them, and what they say is only a hint.
const REPLICATION: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

type Gossip = gossipsub::Behaviour<
    gossipsub::IdentityTransform,
    gossipsub::MaxCountSubscriptionFilter<gossipsub::WhitelistSubscriptionFilter>,
>;

/// Limits first, so that they are asked first; streams last.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) crowd: crowd::Behaviour,
    pub(super) blocks: allow_block_list::Behaviour<BlockedPeers>,
    allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(super) gossip: Gossip,
    pub(super) kad: kad::Behaviour<ProviderStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) nat: Toggle<Nat>,
    pub(super) stream: libp2p_stream::Behaviour,
}

/// What finds out how this node can be reached, and reaches those that cannot be called.
#[derive(NetworkBehaviour)]
pub(super) struct Nat {
    /// Asks others to call an address at which this node was seen …
    asks: autonat::v2::client::Behaviour,
    /// … and calls them when they ask.
    tries: autonat::v2::server::Behaviour,
    relayed: relay::client::Behaviour,
    relays: Toggle<relay::Behaviour>,
    punch: dcutr::Behaviour,
}

/// A behaviour that cannot be made of these settings.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the network: {0}")]
pub(crate) struct SetupError(pub(super) String);

fn failed(error: impl ToString) -> SetupError {
    SetupError(error.to_string())
}

impl Behaviour {
    pub(super) fn new(
        config: &Config,
        names: &Names,
        keypair: &Keypair,
        relayed: Option<relay::client::Behaviour>,
        store: &Store,
        blocks: &Blocks,
        counted: &mut Registry,
    ) -> Result<Self, SetupError> {
        let mut blocked = allow_block_list::Behaviour::<BlockedPeers>::default();
        for peer in blocks.all().keys().filter_map(NodeId::peer_id) {
            blocked.block_peer(peer);
        }
        let me = keypair.public().to_peer_id();
        let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), me)).transpose();
        let mdns = mdns.map_err(|error| failed(format!("cannot look for peers on the local network: {error}")))?;
        let nat = relayed.map(|relayed| Nat {
            asks: autonat::v2::client::Behaviour::default(),
            tries: autonat::v2::server::Behaviour::default(),
            relayed,
            relays: config.relay.map(|limits| relay_behaviour(me, limits)).into(),
            punch: dcutr::Behaviour::new(me),
        });
        let agent = format!("bacnode/{}", env!("CARGO_PKG_VERSION"));
        let identify = identify::Config::new(names.identify.clone(), keypair.public())
            .with_agent_version(agent)
            .with_push_listen_addr_updates(true);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits(config.connections_max)),
            crowd: crowd::Behaviour::new(config.per_address_max, config.per_network_max),
            blocks: blocked,
            allowed: allowed(&config.allow_peers).into(),
            gossip: gossip(config, names)?
                .with_metrics(counted.sub_registry_with_prefix("gossipsub"), gossipsub::MetricsConfig::default()),
            kad: kademlia(names, keypair, store)?,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(10))),
            mdns: mdns.into(),
            nat: nat.into(),
            stream: libp2p_stream::Behaviour::new(),
        })
    }
}

/// A quarter of the connections is kept for those that we choose ourselves, against an eclipse.
fn limits(max: u32) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(64))
        .with_max_pending_outgoing(Some(64))
        .with_max_established_incoming(Some(if max > 4 { max / 4 * 3 } else { max }))
        .with_max_established(Some(max))
        .with_max_established_per_peer(Some(4))
}

/// Nobody but these, if any are named.
fn allowed(peers: &[NodeId]) -> Option<allow_block_list::Behaviour<AllowedPeers>> {
    let mut allowed = allow_block_list::Behaviour::<AllowedPeers>::default();
    for peer in peers.iter().filter_map(NodeId::peer_id) {
        allowed.allow_peer(peer);
    }
    (!peers.is_empty()).then_some(allowed)
}

fn relay_behaviour(me: PeerId, limits: RelayLimits) -> relay::Behaviour {
    let limits = relay::Config {
        max_reservations: limits.peers,
        // One machine behind a NAT may have several.
        max_reservations_per_peer: 4,
        max_circuits: limits.circuits,
        max_circuits_per_peer: limits.circuits.div_ceil(8),
        max_circuit_duration: limits.duration,
        max_circuit_bytes: limits.bytes,
        ..relay::Config::default()
    };
    let mut relay = relay::Behaviour::new(me, limits);
    // Its operator says so; whether it can be called, those who call it find out.
    relay.set_status(Some(relay::Status::Enable));
    relay
}

fn gossip(config: &Config, names: &Names) -> Result<Gossip, SetupError> {
    // What the founder says is for its members.
    let members = config.founded.as_ref().map(|_| &names.members);
    let topics: Vec<_> =
        [&names.capabilities, &names.calls].into_iter().chain(members).map(gossipsub::IdentTopic::new).collect();
    let settings = gossipsub::ConfigBuilder::default()
        .validate_messages()
        // Adverts carry their author's signature; who passes one on says nothing about itself.
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .message_id_fn(|message: &gossipsub::Message| {
            let digest = Sha256::new().chain_update(message.topic.as_str()).chain_update(&message.data).finalize();
            gossipsub::MessageId::new(&digest[..16])
        })
        // The check covers the receive buffer, not one message.
        .max_transmit_size(64 << 10)
        .max_publish_messages(64)
        .max_control_message_size(16 << 10)
        .max_ihave_messages_heartbeat(10)
        .connection_handler_queue_len(256)
        .flood_publish(false)
        .duplicate_cache_time(Duration::from_secs(120))
        .heartbeat_interval(Duration::from_millis(config.gossip.heartbeat_ms))
        .heartbeat_initial_delay(Duration::from_millis(config.gossip.heartbeat_ms.min(500)))
        .build()
        .map_err(failed)?;
    let filter = gossipsub::MaxCountSubscriptionFilter {
        filter: gossipsub::WhitelistSubscriptionFilter(
            topics.iter().map(gossipsub::IdentTopic::hash).collect::<HashSet<_>>(),
        ),
        max_subscribed_topics: 8,
        max_subscriptions_per_request: 8,
    };
    let mut gossip = Gossip::new_with_subscription_filter(gossipsub::MessageAuthenticity::Anonymous, settings, filter)
        .map_err(failed)?;
    // Peers of a demo or a test share one address; how many of one public address there may be, `crowd` says.
    let mut scores =
        gossipsub::PeerScoreParams { ip_colocation_factor_weight: 0.0, app_specific_weight: 1.0, ..Default::default() };
    let topic_score = gossipsub::TopicScoreParams {
        // A minute in the mesh makes up for one message that cannot be read. By default a millisecond counts as much as a
        // second does here, and after four of those in both topics eight were free.
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 60.0,
        // Adverts and calls are rare: how many a peer delivers says nothing.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -100.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        ..Default::default()
    };
    for topic in &topics {
        scores.topics.insert(topic.hash(), topic_score.clone());
    }
    gossip.with_peer_score(scores, gossipsub::PeerScoreThresholds::default()).map_err(failed)?;
    for topic in &topics {
        gossip.subscribe(topic).map_err(|error| failed(format!("{error:?}")))?;
    }
    Ok(gossip)
}

fn kademlia(names: &Names, keypair: &Keypair, store: &Store) -> Result<kad::Behaviour<ProviderStore>, SetupError> {
    let peer = keypair.public().to_peer_id();
    let mut settings = kad::Config::new(StreamProtocol::try_from_owned(names.kad.clone()).map_err(failed)?);
    settings
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .disjoint_query_paths(true)
        .set_query_timeout(Duration::from_secs(30))
        .set_replication_factor(REPLICATION)
        // Adverts fill the table; this is for those who hear few.
        .set_periodic_bootstrap_interval(Some(Duration::from_secs(3_600)))
        .set_caching(kad::Caching::Disabled);
    let store = ProviderStore::open(store, peer).map_err(failed)?;
    let mut kademlia = kad::Behaviour::with_config(peer, store, settings);
    kademlia.set_mode(Some(kad::Mode::Server));
    Ok(kademlia)
}
