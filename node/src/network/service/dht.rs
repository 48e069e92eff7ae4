//! The DHT: what is announced, what is looked up, what is kept for others.

use std::collections::BTreeSet;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use libp2p::metrics::{Recorder as _, Registry};
use libp2p::{Multiaddr, PeerId, kad};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::oneshot;

use super::Service;
use crate::network::address::{are_near, is_private};

/// Roots announced in the DHT at each turn of care, and at once if there were none for a while.
const PROVIDES_PER_CARE: usize = 2;
pub(super) const PROVIDES_BURST: usize = 20;
/// Roots that wait to be announced.
const PROVIDES_MAX: usize = 1_000;
/// Nodes of the view that are handed to the DHT at each turn of care, and addresses of each.
const TABLED_PER_CARE: usize = 128;
const ADDRESSES_MAX: usize = 4;
/// Nodes of one network of public addresses in a bucket of the table.
const NEAR_MAX: usize = kad::K_VALUE.get() / 4;
/// Nodes found in the DHT that are named as providers.
const PROVIDERS_MAX: usize = 20;

/// Who has something, as far as it is known.
pub(super) struct LookUp {
    found: BTreeSet<NodeId>,
    tag: Option<[u8; 5]>,
    answer: oneshot::Sender<BTreeSet<NodeId>>,
}

/// What look-ups cost.
pub(super) struct LookUpMetrics {
    asked: Histogram,
    seconds: Histogram,
}

impl LookUpMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let asked = Histogram::new(exponential_buckets(1.0, 2.0, 8));
        registry.register("look_up_nodes", "Nodes asked in the DHT until a look-up had its answer", asked.clone());
        let seconds = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        registry.register("look_up_seconds", "Time until a look-up in the DHT had its answer", seconds.clone());
        Self { asked, seconds }
    }

    fn ended(&self, stats: &kad::QueryStats) {
        self.asked.observe(f64::from(stats.num_requests()));
        if let Some(took) = stats.duration() {
            self.seconds.observe(took.as_secs_f64());
        }
    }
}

impl Service {
    pub(super) fn provide(&mut self, root: Cid) {
        if self.provides.len() < PROVIDES_MAX {
            self.provides.insert(root);
        }
        self.announce();
    }

    pub(super) fn announce_more(&mut self) {
        self.provides_left = (self.provides_left + PROVIDES_PER_CARE).min(PROVIDES_BURST);
        self.announce();
    }

    /// Hands nodes of the view to the DHT's table. Whoever knows where most nodes are, from their own adverts, finds the one
    /// that is asked for in a step or two, and need not search the network for neighbours first.
    pub(super) fn fill_table(&mut self) {
        let view = self.network.view();
        self.in_table.retain(|node| view.get(node).is_some());
        let new = view.iter().filter(|(node, _)| !self.in_table.contains(node) && **node != self.network.me);
        let new: Vec<(NodeId, Vec<Multiaddr>)> = new
            .take(TABLED_PER_CARE)
            .map(|(node, peer)| {
                let addresses = peer.advert.addresses.iter().take(ADDRESSES_MAX);
                (*node, addresses.filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()).collect())
            })
            .collect();
        drop(view);
        let wide = self.is_wide();
        for (node, addresses) in new {
            self.in_table.insert(node);
            let Some(peer) = node.peer_id() else { continue };
            let kad = &mut self.swarm.behaviour_mut().kad;
            // A newcomer to a full bucket would have an old entry called, to see whether that still lives.
            if kad.kbucket(peer).is_some_and(|bucket| bucket.num_entries() < kad::K_VALUE.get()) {
                for address in addresses.into_iter().filter(|address| !wide || !is_private(address)) {
                    self.put_in_table(peer, address);
                }
            }
        }
    }

    /// Puts a node into the DHT's table, unless those of one network of public addresses would have more than their share of its
    /// bucket: whoever has many addresses should not be all that a look-up meets.
    pub(super) fn put_in_table(&mut self, peer: PeerId, address: Multiaddr) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if !is_private(&address) {
            let near = kad.kbucket(peer).map_or(0, |bucket| {
                let others = bucket.iter().filter(|entry| *entry.node.key.preimage() != peer);
                others.filter(|entry| entry.node.value.iter().any(|other| are_near(other, &address))).count()
            });
            if near >= NEAR_MAX {
                return;
            }
        }
        kad.add_address(&peer, address);
    }

    /// A table that adverts have filled need not be filled by searching, which means calling a good part of the network.
    pub(super) fn end_bootstrap(&mut self) {
        let known: usize = self.swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        if known < kad::K_VALUE.get() {
            return;
        }
        for mut query in self.swarm.behaviour_mut().kad.iter_queries_mut() {
            if matches!(query.info(), kad::QueryInfo::Bootstrap { .. }) {
                query.finish();
            }
        }
    }

    pub(super) fn look_up(&mut self, root: Cid, tag: Option<[u8; 5]>, answer: oneshot::Sender<BTreeSet<NodeId>>) {
        let query = self.swarm.behaviour_mut().kad.get_providers(kad::RecordKey::new(&root.multihash()));
        self.look_ups.insert(query, LookUp { found: BTreeSet::new(), tag, answer });
    }

    /// Announces roots in the DHT: some at once, many at a steady pace. Somebody must be there to be told.
    fn announce(&mut self) {
        while self.provides_left > 0 && !self.peers.is_empty() {
            let Some(root) = self.provides.pop_first() else { return };
            self.provides_left -= 1;
            let key = kad::RecordKey::new(&root.multihash());
            if let Err(error) = self.swarm.behaviour_mut().kad.start_providing(key) {
                tracing::debug!(%root, %error, "a root is not announced");
            }
        }
    }

    /// Calls a node at the addresses that the DHT has of it.
    fn route_found(&mut self, query: kad::QueryId, found: kad::GetClosestPeersResult) {
        let Some(node) = self.routes.remove(&query) else { return };
        let Some(peer) = node.peer_id() else { return };
        let (Ok(kad::GetClosestPeersOk { peers, .. }) | Err(kad::GetClosestPeersError::Timeout { peers, .. })) = found;
        let addresses = peers.into_iter().find(|found| found.peer_id == peer).map(|found| found.addrs);
        let wide = self.is_wide();
        let of_use = |address: &Multiaddr| !wide || !is_private(address);
        let addresses = addresses.unwrap_or_default().into_iter().filter(of_use).take(ADDRESSES_MAX).collect();
        self.dial(node, peer, addresses);
    }

    pub(super) fn kad(&mut self, event: kad::Event) {
        self.metrics.record(&event);
        match event {
            kad::Event::OutboundQueryProgressed { id, result: kad::QueryResult::GetProviders(result), stats, step } => {
                let Some(LookUp { found, tag, .. }) = self.look_ups.get_mut(&id) else { return };
                // Anybody can say that it provides anything: of an owner's key, only the owner is an answer.
                let meant = |node: &NodeId| tag.is_none_or(|tag| node.tag() == tag);
                if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = result {
                    found.extend(providers.iter().filter_map(NodeId::from_peer_id).filter(meant));
                }
                let enough = found.len() >= PROVIDERS_MAX || found.iter().any(|node| *node != self.network.me);
                // Waiting for the rest of the network to say "nor do I" would only take time.
                if step.last || enough {
                    self.look_up_metrics.ended(&stats);
                    if let Some(LookUp { found, answer, .. }) = self.look_ups.remove(&id) {
                        let _ = answer.send(found);
                    }
                    if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
                        query.finish();
                    }
                }
            }
            kad::Event::OutboundQueryProgressed {
                id, result: kad::QueryResult::GetClosestPeers(result), step, ..
            } if step.last => self.route_found(id, result),
            kad::Event::OutboundQueryProgressed { result: kad::QueryResult::Bootstrap(_), .. } => self.end_bootstrap(),
            kad::Event::InboundRequest { request: kad::InboundRequest::AddProvider { record: Some(record) } } => {
                use kad::store::RecordStore as _;
                if let Err(error) = self.swarm.behaviour_mut().kad.store_mut().add_provider(record) {
                    tracing::debug!(%error, "a provider record is not kept");
                }
            }
            _ => {}
        }
    }
}
