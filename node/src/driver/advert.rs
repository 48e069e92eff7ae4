//! When and what the node tells everybody.

use std::time::Duration;

use bacnode_protocol::compute::Load;
use bacnode_protocol::time::{Span, Tick};
use bacnode_protocol::wire::VERSION_MIN;
use bacnode_protocol::wire::advert::Advert;
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::call::Call;
use bacnode_protocol::wire::constraint::LabelSketch;
use bacnode_protocol::wire::envelope;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::wire::task::{Engine, Engines, Resources};
use bacnode_protocol::wire::view::NodeDetail;

use crate::clock;
use crate::config::GossipConfig;
use crate::network::{Network, Topic};

/// After a change, how long more of them are waited for.
const SETTLE: Span = Span::millis(100);
/// Between two adverts, whatever happens.
const PAUSE_MIN: Span = Span::millis(400);
/// Adverts that changes may cause in a row; it recovers with each regular one.
const BURST_MAX: u32 = 12;
/// Peers that are told by whoever leaves, and how long it waits for them.
const TOLD_OF_LEAVE: usize = 8;
const LEAVE: Duration = Duration::from_secs(1);

/// Makes this node's adverts.
#[derive(Debug)]
pub(crate) struct Announcer {
    signer: Signer,
    epoch: u64,
    count: u64,
    gossip: GossipConfig,
    name: String,
    labels: Vec<(String, String)>,
    engines: Engines,
    total: Resources,
    /// The newest wire version that is spoken here.
    wire: u16,
    due: Tick,
    last: Tick,
    burst: u32,
}

impl Announcer {
    pub(crate) fn new(
        signer: Signer,
        epoch: u64,
        gossip: GossipConfig,
        name: String,
        labels: Vec<(String, String)>,
        engines: Engines,
        total: Resources,
        wire: u16,
    ) -> Self {
        let due = clock::tick();
        Self { signer, epoch, count: 0, gossip, name, labels, engines, total, wire, due, last: Tick(0), burst: 0 }
    }

    /// When the next advert is due.
    pub(crate) fn due(&self) -> Tick {
        self.due
    }

    /// Something changed that others should know soon.
    pub(crate) fn soon(&mut self) {
        if self.burst < BURST_MAX {
            let at = (clock::tick() + SETTLE).max(self.last + PAUSE_MIN);
            self.due = self.due.min(at);
        }
    }

    /// Says what there is to say if it is time. The whole network says at most so much a second.
    pub(crate) fn look(&mut self, network: &Network, load: Load, accepting: bool) {
        let now = clock::tick();
        if now < self.due {
            return;
        }
        let least = Span::secs(self.gossip.advert_s);
        let period = Advert::period(network.view().len(), least, self.gossip.adverts_per_s);
        let regular = now.since(self.last) >= period;
        self.burst = if regular { 0 } else { self.burst + 1 };
        // Up to a tenth earlier, so that nodes that started together drift apart.
        let jitter = Span(period.0 / 10 * u64::from(self.signer.node().0[0]) / 256);
        self.due = now + Span(period.0 - jitter.0);
        self.last = now;
        network.set_detail(self.detail(load));
        let percent = if accepting { load.percent } else { load.percent.max(1000) };
        let advert = self.advert(percent, period, false);
        let (network, signer) = (network.clone(), self.signer.clone());
        tokio::spawn(async move { publish(&network, advert, &signer).await });
    }

    /// Calls for nodes that are not known here.
    pub(crate) fn call(&self, network: &Network, engine: Engine, resources: Resources, want: u32) {
        let wire = (VERSION_MIN, self.wire);
        let call = Call { owner: self.signer.node(), issued: clock::unix(), wire, engine, resources, want };
        let (network, sealed) = (network.clone(), envelope::seal(&call.sign(&self.signer)));
        tokio::spawn(async move { network.publish(Topic::Calls, sealed).await });
    }

    /// The last word. It is gossip, and put into the hands of some peers, since gossip does not say whether it went out.
    pub(crate) async fn leave(&mut self, network: &Network) {
        let period = Advert::period(network.view().len(), Span::secs(self.gossip.advert_s), self.gossip.adverts_per_s);
        let advert = self.advert(0, period, true);
        publish(network, advert, &self.signer).await;
        let some = network.peers().await.into_iter().take(TOLD_OF_LEAVE);
        let told = some.map(|peer| async move { network.introduce_to(peer.node).await });
        let _ = tokio::time::timeout(LEAVE, futures::future::join_all(told)).await;
    }

    fn advert(&mut self, load_percent: u16, period: Span, leaving: bool) -> Advert {
        self.count += 1;
        let ttl = period.times(3).as_millis() / 1_000;
        Advert {
            node: self.signer.node(),
            sequence: Advert::numbered(self.epoch, self.count),
            issued: clock::unix(),
            ttl_s: u32::try_from(ttl.max(1)).unwrap_or(u32::MAX),
            wire: (VERSION_MIN, self.wire),
            engines: self.engines,
            total: self.total,
            load_percent,
            name: TextMax::truncated(&self.name),
            version: TextMax::truncated(env!("CARGO_PKG_VERSION")),
            labels: LabelSketch::of(self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
            addresses: ListMax::default(),
            leaving,
        }
    }

    fn detail(&self, load: Load) -> NodeDetail {
        let label = |(key, value): &(String, String)| (TextMax::truncated(key), TextMax::truncated(value));
        NodeDetail {
            labels: ListMax::truncated(self.labels.iter().map(label)),
            available: load.available,
            running: load.running,
            queued: load.queued,
        }
    }
}

async fn publish(network: &Network, mut advert: Advert, signer: &Signer) {
    let addresses = network.confirmed().await;
    let bytes = addresses.iter().filter_map(|address| BytesMax::new(address.to_vec()).ok());
    advert.addresses = ListMax::truncated(bytes);
    let signed = advert.sign(signer);
    // We are part of our own picture.
    if let Err(error) = network.view().offer(signed.clone(), clock::now()) {
        tracing::warn!(%error, "our own advert does not count");
    }
    network.publish(Topic::Capabilities, envelope::seal(&signed)).await;
}
