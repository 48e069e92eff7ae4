//! The network: one swarm, and what speaks over it.
//!
//! `service` owns the swarm and does no domain work; `gossip` judges adverts; `market`, `view`, `dag` and `live`
//! each own one stream protocol, with an accept loop that never waits for work. All queues are bounded: what overflows is
//! counted and dropped, and the machines say it again.

mod address;
mod behaviour;
mod blocks;
mod busy;
mod crowd;
mod dag;
mod gossip;
mod live;
mod market;
mod members;
mod pace;
mod pipe;
mod service;
mod transport;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::id::{JobId, NodeId};
use bacnode_protocol::record::JobEvent;
use bacnode_protocol::view::View;
use bacnode_protocol::wire::Names;
use bacnode_protocol::wire::view::NodeDetail;
use libp2p::metrics::Registry;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use self::live::LogPiece;
pub(crate) use self::live::Teller;
pub(crate) use self::live::follow as follow_run;
pub use self::service::PeerInfo;
use crate::clock;

/// Brings content here.
#[async_trait::async_trait]
pub trait Fetcher: Send + Sync {
    /// Holds everything below `root`, at most `max` bytes, pinned for `reason`; `hints` are asked first. Gives the bytes
    /// that had to come, or why they did not, in words.
    async fn fetch(&self, root: Cid, hints: Vec<NodeId>, max: u64, reason: String) -> Result<u64, String>;
}

/// What everybody is told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// What a node can do.
    Capabilities,
    /// What a node looks for.
    Calls,
    /// What the founder of the swarm says.
    Members,
}

/// What the swarm task is told.
#[derive(Debug)]
pub(crate) enum Command {
    Dial(Multiaddr),
    Connect(NodeId, oneshot::Sender<Result<(), String>>),
    Publish(Topic, Vec<u8>),
    Verdict(libp2p::gossipsub::MessageId, PeerId, libp2p::gossipsub::MessageAcceptance),
    Provide(Cid),
    /// Who has it; of an owner's key, only nodes with its tag are meant.
    Providers(Cid, Option<[u8; 5]>, oneshot::Sender<BTreeSet<NodeId>>),
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    Addresses(bool, oneshot::Sender<Vec<Multiaddr>>),
    Reach(oneshot::Sender<String>),
    HangUp(NodeId),
    Block(NodeId),
    Unblock(NodeId),
    Offence(NodeId),
}

/// A handle on the network. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    pub(crate) me: NodeId,
    pub(crate) names: Arc<Names>,
    pub(crate) view: Arc<Mutex<View>>,
    commands: mpsc::Sender<Command>,
    control: libp2p_stream::Control,
    skews: Arc<Mutex<BTreeMap<NodeId, i64>>>,
    /// What is wrong with the operator's bootstrap addresses now.
    complaints: Arc<Mutex<BTreeMap<Multiaddr, String>>>,
    detail: Arc<Mutex<NodeDetail>>,
    pub(crate) busy: Busy,
    members: Option<Members>,
    blocks: Blocks,
    upload: Pace,
    download: Pace,
    counted: Arc<Registry>,
    /// What the node counts of itself.
    pub(crate) totals: crate::metrics::Metrics,
    /// What whoever watches this node is told.
    pub(crate) observed: broadcast::Sender<Observed>,
}

/// Something that happened, for whoever watches.
#[derive(Debug, Clone)]
pub(crate) enum Observed {
    Job(JobId, u32, JobEvent),
    Joined(NodeId, String),
    Left(NodeId, String),
}

/// Events that a slow watcher may be behind.
pub(crate) const OBSERVED_MAX: usize = 1024;

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network({})", self.me.short())
    }
}

pub(crate) use self::blocks::{Block, Blocks};
use self::busy::Busy;
pub(crate) use self::dag::DagFetcher;
pub(crate) use self::market::Links;
pub(crate) use self::members::Members;
pub use self::pace::PACE_MIN;
use self::pace::Pace;
pub(crate) use self::service::{Handlers, start};

/// What the owner of jobs with this tag provides in the DHT: the CID of a block that says so.
fn owner_key(tag: [u8; 5]) -> Cid {
    Cid::of(Codec::Raw, &[b"bacnode/owner/1\0", &tag[..]].concat())
}

const DAY_MS: u64 = 86_400_000;
/// How near the end of a membership is told.
const MEMBERSHIP_TOLD_DAYS: u64 = 7;
/// A difference between clocks that people should know of, in milliseconds.
const SKEW_TOLD_MS: i64 = 30_000;

impl Network {
    /// The nodes that this one knows, itself included.
    #[must_use]
    pub fn known(&self) -> BTreeSet<NodeId> {
        self.view().iter().map(|(node, _)| *node).collect()
    }

    /// How many they are.
    #[must_use]
    pub fn known_count(&self) -> usize {
        self.view().len()
    }

    /// Tells whoever watches; mostly nobody does.
    pub(crate) fn tell(&self, what: Observed) {
        let _ = self.observed.send(what);
    }

    /// Who this node is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// What is counted here, in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.counted);
        text
    }

    /// The picture of the others.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Connects to an address.
    pub async fn dial(&self, address: Multiaddr) {
        let _ = self.commands.send(Command::Dial(address)).await;
    }

    /// Makes sure that `node` is connected.
    ///
    /// # Errors
    /// If it cannot be reached, in words.
    pub async fn connect(&self, node: NodeId) -> Result<(), String> {
        if self.view().is_connected(&node) {
            return Ok(());
        }
        let connected =
            tokio::time::timeout(std::time::Duration::from_secs(5), self.ask(|a| Command::Connect(node, a)));
        connected.await.ok().flatten().unwrap_or_else(|| Err("it cannot be reached".into()))
    }

    /// Tells everybody.
    pub(crate) async fn publish(&self, topic: Topic, message: Vec<u8>) {
        let _ = self.commands.send(Command::Publish(topic, message)).await;
    }

    /// Says in the DHT that `root` can be had here.
    pub(crate) fn provide(&self, root: Cid) {
        if self.commands.try_send(Command::Provide(root)).is_err() {
            tracing::debug!(%root, "too busy to announce a root; its owner knows it anyway");
        }
    }

    /// Who says in the DHT that it has `root`. A hint.
    pub async fn providers(&self, root: Cid) -> BTreeSet<NodeId> {
        self.ask(|answer| Command::Providers(root, None, answer)).await.unwrap_or_default()
    }

    /// Says in the DHT where jobs of this node's are told of, so that any node can ask it that is given a job's id.
    pub(crate) fn provide_owner(&self) {
        self.provide(owner_key(self.me.tag()));
    }

    /// The same of another owner's jobs, which this node keeps or leads.
    pub(crate) fn provide_owner_tag(&self, tag: [u8; 5]) {
        self.provide(owner_key(tag));
    }

    /// Nodes that say in the DHT that they can tell of the jobs with this tag: their owner, and those that keep them. Hints:
    /// what they tell is their word.
    pub(crate) async fn tellers_of(&self, tag: [u8; 5]) -> BTreeSet<NodeId> {
        self.ask(|answer| Command::Providers(owner_key(tag), None, answer)).await.unwrap_or_default()
    }

    /// How others reach this node, in words.
    pub async fn reach(&self) -> String {
        self.ask(Command::Reach).await.unwrap_or_default()
    }

    /// Everybody connected.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        self.ask(Command::Peers).await.unwrap_or_default()
    }

    /// Where this node listens, each with its `/p2p/…`; addresses that were seen to work come first.
    pub async fn addresses(&self) -> Vec<Multiaddr> {
        let Some(me) = self.me.peer_id() else { return Vec::new() };
        let addresses = self.ask(|answer| Command::Addresses(false, answer)).await.unwrap_or_default();
        addresses.into_iter().filter_map(|address| address.with_p2p(me).ok()).collect()
    }

    /// Only the addresses that were seen to work: what an advert may say.
    pub(crate) async fn confirmed(&self) -> Vec<Multiaddr> {
        self.ask(|answer| Command::Addresses(true, answer)).await.unwrap_or_default()
    }

    /// A stream to a peer, which is connected first if need be.
    async fn open(&self, node: NodeId, protocol: &str) -> Result<libp2p::Stream, String> {
        self.connect(node).await?;
        let peer = node.peer_id().ok_or("it has no valid id")?;
        let protocol = libp2p::StreamProtocol::try_from_owned(protocol.to_owned()).map_err(|e| e.to_string())?;
        let mut control = self.control.clone();
        let opened =
            tokio::time::timeout(std::time::Duration::from_secs(10), control.open_stream(peer, protocol)).await;
        opened.map_err(|_| "it does not answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// Notes a peer's clock.
    fn note_clock(&self, node: NodeId, theirs: bacnode_protocol::time::UnixMillis) {
        let ours = clock::unix();
        let ahead = i64::try_from(ours.0).unwrap_or(0) - i64::try_from(theirs.0).unwrap_or(0);
        let mut skews = self.skews.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if skews.len() < 1_000 || skews.contains_key(&node) {
            skews.insert(node, ahead);
        }
        if ahead.abs() > SKEW_TOLD_MS {
            tracing::warn!(
                peer = node.short(),
                ahead_ms = ahead,
                "a peer's clock and ours differ; adverts are not believed"
            );
        }
    }

    /// What the operator should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let complaints = self.complaints.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let complaints = complaints.iter().map(|(address, complaint)| format!("bootstrap peer {address}: {complaint}"));
        self.clock_warning().into_iter().chain(self.membership_warning()).chain(complaints).collect()
    }

    fn membership_warning(&self) -> Option<String> {
        let left = self.members.as_ref()?.ends()?.0.saturating_sub(clock::unix().0) / DAY_MS;
        let days = if left == 1 { "day" } else { "days" };
        (left < MEMBERSHIP_TOLD_DAYS).then(|| {
            format!("this node's membership of the swarm ends in {left} {days}; `serve --join` takes a new invite of the founder's")
        })
    }

    fn clock_warning(&self) -> Option<String> {
        let skews = self.skews.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let off: Vec<i64> = skews.values().copied().filter(|ahead| ahead.abs() > SKEW_TOLD_MS).collect();
        let sample = *off.get(off.len() / 2)?;
        let (amount, side) = (sample.unsigned_abs() / 1_000, if sample > 0 { "ahead of" } else { "behind" });
        let amount = if amount >= 120 { format!("{} min", amount / 60) } else { format!("{amount} s") };
        let peers = if off.len() == 1 { "1 peer".to_owned() } else { format!("{} peers", off.len()) };
        let whose = if off.len() * 2 > skews.len() { "this node's clock is" } else { "the clock here is" };
        Some(format!("{whose} {amount} {side} {peers}; adverts more than 30 s off are not believed"))
    }

    /// What this node answers about itself.
    pub(crate) fn set_detail(&self, detail: NodeDetail) {
        *self.detail.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = detail;
    }

    pub(crate) fn detail(&self) -> NodeDetail {
        self.detail.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
