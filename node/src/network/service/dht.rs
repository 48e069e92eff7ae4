//! The DHT: what is announced, what is looked up, what is kept for others.

use std::collections::BTreeSet;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use libp2p::kad;
use libp2p::metrics::{Recorder as _, Registry};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::oneshot;

use super::Service;

/// Roots announced in the DHT at each turn of care, and at once if there were none for a while.
const PROVIDES_PER_CARE: usize = 2;
pub(super) const PROVIDES_BURST: usize = 20;
/// Roots that wait to be announced.
const PROVIDES_MAX: usize = 1_000;
/// Nodes found in the DHT that are named as providers.
const PROVIDERS_MAX: usize = 20;

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

    pub(super) fn look_up(&mut self, root: Cid, answer: oneshot::Sender<BTreeSet<NodeId>>) {
        let query = self.swarm.behaviour_mut().kad.get_providers(kad::RecordKey::new(&root.multihash()));
        self.look_ups.insert(query, (BTreeSet::new(), answer));
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

    pub(super) fn kad(&mut self, event: kad::Event) {
        self.metrics.record(&event);
        match event {
            kad::Event::OutboundQueryProgressed { id, result: kad::QueryResult::GetProviders(result), stats, step } => {
                let Some((found, _)) = self.look_ups.get_mut(&id) else { return };
                if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = result {
                    found.extend(providers.iter().filter_map(NodeId::from_peer_id));
                }
                let enough = found.len() >= PROVIDERS_MAX || found.iter().any(|node| *node != self.network.me);
                // Waiting for the rest of the network to say "nor do I" would only take time.
                if step.last || enough {
                    self.look_up_metrics.ended(&stats);
                    if let Some((found, answer)) = self.look_ups.remove(&id) {
                        let _ = answer.send(found);
                    }
                    if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
                        query.finish();
                    }
                }
            }
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
