//! The picture that a node has of the others: who is there, what they can do, how far away they are.
//!
//! It is made of adverts, from gossip and from the view exchange; both are hints. It is bounded, everything in it
//! expires, and it never decides anything but whom to ask.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom as _;
use rand::{Rng, RngExt as _};

use crate::id::{NetworkId, NodeId};
use crate::job::{format_bytes, format_cpu};
use crate::limits::{CALL_ANSWERS_PER_WANTED, CALL_WANT_MAX, VIEW_ITEMS_MAX, VIEW_NODES_MAX};
use crate::time::{Now, Span, Tick, UnixMillis};
use crate::wire::advert::{Advert, AdvertError, SignedAdvert};
use crate::wire::call::Call;
use crate::wire::task::{Engine, Resources, Task};
use crate::wire::{VERSION, VERSION_MIN};

/// One known node.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its newest advert.
    pub advert: Advert,
    /// The same, as it signed it.
    pub signed: SignedAdvert,
    /// When we got it.
    pub heard: Tick,
    /// When it stops to count, by our clock.
    pub expires: Tick,
}

/// One node that took its leave.
#[derive(Debug, Clone)]
struct Departure {
    sequence: u64,
    /// Its last word, for those who have not heard it.
    signed: SignedAdvert,
    /// As long as its last word counts, others are told.
    told: Tick,
    /// As long as an older advert may be about.
    until: Tick,
}

/// What an advert changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The node was not known, or not in this life.
    Joined,
    /// A newer advert of a known node.
    Updated,
    /// The node took its leave.
    Left,
    /// Nothing new.
    Stale,
}

/// All known nodes of one network.
#[derive(Debug, Clone)]
pub struct View {
    network: NetworkId,
    /// Its own node, which it does not forget for want of room.
    me: Option<NodeId>,
    /// Nodes that it has room for.
    room: usize,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that left, so that an older advert of theirs does not bring them back.
    left: BTreeMap<NodeId, Departure>,
    /// Who is connected, and how far away.
    links: BTreeMap<NodeId, Option<Span>>,
}

/// What an advert is to somebody who has not looked at its signature yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The very one that is known, and was found to be its author's.
    Known,
    /// Not newer than what is known, or somebody's invention.
    Older,
    /// Newer, or an invention.
    New,
}

impl View {
    /// An empty view.
    #[must_use]
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            me: None,
            room: VIEW_NODES_MAX,
            peers: BTreeMap::new(),
            left: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    /// An empty view of `me`, with room for so many nodes.
    #[must_use]
    pub fn of(network: NetworkId, me: NodeId, room: usize) -> Self {
        Self { me: Some(me), room: room.clamp(2, VIEW_NODES_MAX), ..Self::new(network) }
    }

    /// The network that it is of.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Takes an advert in.
    ///
    /// # Errors
    /// If it is malformed, forged or not of this time.
    pub fn offer(&mut self, signed: SignedAdvert, now: Now) -> Result<(Advert, Change), AdvertError> {
        let advert = signed.open(&self.network, now.unix)?;
        let change = self.take(advert.clone(), signed, now);
        Ok((advert, change))
    }

    /// Whether an advert could tell anything new. Most that a node hears it has heard before, from another peer: that is
    /// seen without looking at the signature, which is most of the work.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn standing(&self, signed: &SignedAdvert) -> Result<Standing, AdvertError> {
        let claimed = signed.claimed()?;
        let known = self.peers.get(&claimed.node);
        if known.is_some_and(|peer| peer.signed == *signed) {
            return Ok(Standing::Known);
        }
        let newest = known.map(|peer| peer.advert.sequence).max(self.departed(&claimed.node));
        Ok(if newest.is_some_and(|newest| claimed.sequence <= newest) { Standing::Older } else { Standing::New })
    }

    /// Takes in an advert that was opened already.
    pub fn take(&mut self, advert: Advert, signed: SignedAdvert, now: Now) -> Change {
        let node = advert.node;
        let known = self.peers.get(&node).map(|peer| peer.advert.sequence);
        // Its labels, and what its operator allows, may be others in another life.
        let reborn = self.peers.get(&node).is_none_or(|peer| peer.advert.epoch() != advert.epoch());
        if known.max(self.departed(&node)).is_some_and(|newest| advert.sequence <= newest) {
            return Change::Stale;
        }
        let ttl = advert.ttl();
        if advert.leaving {
            self.peers.remove(&node);
            // Counted from when it was signed, or it would be told for ever, by whoever heard of it last.
            let left = (advert.issued.0 + ttl.as_millis()).saturating_sub(now.unix.0);
            let (told, until) = (now.tick + Span::millis(left).min(ttl), now.tick + ttl.times(2));
            self.left.insert(node, Departure { sequence: advert.sequence, signed, told, until });
            self.make_room();
            return Change::Left;
        }
        self.left.remove(&node);
        let peer = Peer { advert, signed, heard: now.tick, expires: now.tick + ttl };
        self.peers.insert(node, peer);
        self.make_room();
        if reborn { Change::Joined } else { Change::Updated }
    }

    /// The number of the last word of a node that left.
    fn departed(&self, node: &NodeId) -> Option<u64> {
        self.left.get(node).map(|departure| departure.sequence)
    }

    fn make_room(&mut self) {
        while self.peers.len() > self.room {
            let others = self.peers.iter().filter(|(node, _)| self.me != Some(**node));
            let Some(oldest) = others.min_by_key(|(_, peer)| peer.heard).map(|(node, _)| *node) else { return };
            self.peers.remove(&oldest);
        }
        while self.left.len() > self.room {
            let soonest = self.left.iter().min_by_key(|(_, departure)| departure.until).map(|(node, _)| *node);
            let Some(soonest) = soonest else { return };
            self.left.remove(&soonest);
        }
    }

    /// Drops what has expired and names it.
    pub fn expire(&mut self, now: Tick) -> Vec<NodeId> {
        self.left.retain(|_, departure| departure.until > now);
        let gone: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.expires <= now).map(|(node, _)| *node).collect();
        for node in &gone {
            self.peers.remove(node);
        }
        gone
    }

    /// Drops `node`, which has no business here any more.
    pub fn forget(&mut self, node: &NodeId) {
        self.peers.remove(node);
    }

    /// Notes that `node` is connected.
    pub fn connected(&mut self, node: NodeId) {
        self.links.entry(node).or_default();
    }

    /// Notes that `node` is not connected any more.
    pub fn disconnected(&mut self, node: &NodeId) {
        self.links.remove(node);
    }

    /// Notes a round trip to `node`.
    pub fn measured(&mut self, node: NodeId, rtt: Span) {
        if let Some(link) = self.links.get_mut(&node) {
            *link = Some(rtt);
        }
    }

    /// Whether `node` is connected.
    #[must_use]
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.links.contains_key(node)
    }

    /// The last measured round trip to `node`.
    #[must_use]
    pub fn rtt(&self, node: &NodeId) -> Option<Span> {
        self.links.get(node).copied().flatten()
    }

    /// What is known of `node`.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// The life in which `node` is, if it is known.
    #[must_use]
    pub fn epoch(&self, node: &NodeId) -> Option<u64> {
        self.peers.get(node).map(|peer| peer.advert.epoch())
    }

    /// Everybody known.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter()
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The label that `node`'s operator gave it, else the short id.
    #[must_use]
    pub fn label(&self, node: &NodeId) -> String {
        let name = self.peers.get(node).map(|peer| peer.advert.name.to_string()).unwrap_or_default();
        if name.is_empty() { node.short() } else { name }
    }

    /// What we know, and who left, for a partner in the view exchange; a random part if there is too much.
    pub fn digest(&self, now: Tick, rng: &mut impl Rng) -> Vec<(NodeId, u64)> {
        let left = self.left.iter().filter(|(_, departure)| departure.told > now);
        let mut digest: Vec<_> = left.map(|(node, departure)| (*node, departure.sequence)).collect();
        // Ids cost nothing: those who left must not crowd out those who are here.
        digest.shuffle(rng);
        digest.truncate(VIEW_ITEMS_MAX / 4);
        let mut here: Vec<_> = self.peers.iter().map(|(node, peer)| (*node, peer.advert.sequence)).collect();
        here.shuffle(rng);
        here.truncate(VIEW_ITEMS_MAX - digest.len());
        digest.extend(here);
        digest
    }

    /// What a partner with this digest lacks, and what we lack of his. That a node left is told to who takes it to be here.
    pub fn compare(&self, known: &[(NodeId, u64)], now: Tick, rng: &mut impl Rng) -> (Vec<SignedAdvert>, Vec<NodeId>) {
        let theirs: BTreeMap<NodeId, u64> = known.iter().copied().collect();
        let newer = |(node, peer): &(&NodeId, &Peer)| theirs.get(*node).is_none_or(|&s| s < peer.advert.sequence);
        let here = self.peers.iter().filter(newer).map(|(_, peer)| &peer.signed);
        let news = |(node, departure): &(&NodeId, &Departure)| {
            departure.told > now && theirs.get(*node).is_some_and(|&s| s < departure.sequence)
        };
        let left = self.left.iter().filter(news).map(|(_, departure)| &departure.signed);
        let mut adverts: Vec<_> = here.chain(left).cloned().collect();
        adverts.shuffle(rng);
        adverts.truncate(VIEW_ITEMS_MAX);
        let newest = |node: &NodeId| self.peers.get(node).map(|peer| peer.advert.sequence).max(self.departed(node));
        let wanted = theirs.iter().filter(|(node, sequence)| newest(node).is_none_or(|s| s < **sequence));
        (adverts, wanted.map(|(node, _)| *node).take(VIEW_ITEMS_MAX).collect())
    }

    /// The last adverts of these nodes, those that left included.
    #[must_use]
    pub fn adverts(&self, nodes: &[NodeId]) -> Vec<SignedAdvert> {
        let last = |node| {
            let here = self.peers.get(node).map(|peer| &peer.signed);
            here.or_else(|| self.left.get(node).map(|departure| &departure.signed))
        };
        nodes.iter().filter_map(last).take(VIEW_ITEMS_MAX).cloned().collect()
    }

    /// Every node that could ever run `task`, and why each other one could not.
    #[must_use]
    pub fn fitting(&self, task: &Task, now: UnixMillis) -> (Vec<NodeId>, BTreeMap<NodeId, String>) {
        let (mut fit, mut unfit) = (Vec::new(), BTreeMap::new());
        for (node, peer) in &self.peers {
            let unfit_labels = || unfit_label(&peer.advert, task);
            match unfit_reason(&peer.advert, task.engine.engine(), &task.resources, now).or_else(unfit_labels) {
                None => fit.push(*node),
                Some(reason) => _ = unfit.insert(*node, reason),
            }
        }
        (fit, unfit)
    }

    /// Which of a task's constraints surely does not hold of `node`, as long as it is in this life.
    #[must_use]
    pub fn mismatch(&self, node: &NodeId, task: &Task) -> Option<String> {
        unfit_label(&self.peers.get(node)?.advert, task)
    }

    /// Whether `me` should answer an open call: it fits, and of all that seem to fit about four for each one wanted do.
    pub fn answers(&self, call: &Call, me: &NodeId, now: UnixMillis, rng: &mut impl Rng) -> bool {
        let fits = |peer: &Peer| unfit_reason(&peer.advert, call.engine, &call.resources, now).is_none();
        let speaks = call.wire.0 <= VERSION && call.wire.1 >= VERSION_MIN;
        if *me == call.owner || !speaks || !self.peers.get(me).is_some_and(fits) {
            return false;
        }
        let fitting = self.peers.values().filter(|peer| fits(peer)).count().max(1);
        let answers = (call.want.min(CALL_WANT_MAX) as usize * CALL_ANSWERS_PER_WANTED).min(fitting);
        rng.random_range(0..fitting) < answers
    }

    /// Whom to ask for `want` of the `fit` nodes: those in `near` (they hold inputs) first, the rest drawn by chance from
    /// the best, so that many owners with one picture do not all ask the same node.
    pub fn draw(
        &self,
        fit: &[NodeId],
        near: &BTreeSet<NodeId>,
        own_load: &BTreeMap<NodeId, u32>,
        want: usize,
        rng: &mut impl Rng,
    ) -> Vec<NodeId> {
        let mut best: Vec<(u64, NodeId)> = fit.iter().map(|node| (self.cost(node, own_load), *node)).collect();
        best.sort_unstable();
        best.truncate((2 * want).max(8));
        best.shuffle(rng);
        let mut near: Vec<NodeId> = fit.iter().filter(|node| near.contains(node)).copied().collect();
        near.shuffle(rng);
        near.truncate(want.saturating_sub(1).max(1));
        let others = best.into_iter().map(|(_, node)| node).filter(|node| !near.contains(node)).collect::<Vec<_>>();
        near.into_iter().chain(others).take(want).collect()
    }

    /// Load in percent, latency in units of ten milliseconds, and a place for what we gave it ourselves just now.
    fn cost(&self, node: &NodeId, own_load: &BTreeMap<NodeId, u32>) -> u64 {
        let load = self.peers.get(node).map_or(0, |peer| u64::from(peer.advert.load_percent));
        let latency = self.rtt(node).map_or(5, |rtt| rtt.as_millis() / 10);
        load / 10 + latency + u64::from(own_load.get(node).copied().unwrap_or(0))
    }

    /// A connected node drawn by chance: of those that say what they can do, if there are any. Others may be programs that
    /// know nothing of views.
    pub fn random_connected(&self, rng: &mut impl Rng) -> Option<NodeId> {
        let known: Vec<&NodeId> = self.links.keys().filter(|node| self.peers.contains_key(node)).collect();
        let drawn = if known.is_empty() { self.links.keys().collect() } else { known };
        (!drawn.is_empty()).then(|| *drawn[rng.random_range(0..drawn.len())])
    }

    /// How many are connected.
    #[must_use]
    pub fn connected_count(&self) -> usize {
        self.links.len()
    }

    /// How many connected nodes say what they can do.
    #[must_use]
    pub fn connected_known(&self) -> usize {
        self.links.keys().filter(|node| self.peers.contains_key(node)).count()
    }
}

/// Why a node with this advert could never run what needs this.
fn unfit_reason(advert: &Advert, engine: Engine, needs: &Resources, now: UnixMillis) -> Option<String> {
    let (oldest, newest) = advert.wire;
    if newest < VERSION_MIN || oldest > VERSION {
        return Some(format!("speaks wire versions {oldest} to {newest}, this node {VERSION_MIN} to {VERSION}"));
    }
    if !advert.is_current(now) {
        return Some("its last advert has expired".into());
    }
    if advert.engines.0 == 0 {
        return Some("runs no jobs".into());
    }
    if !advert.engines.has(engine) {
        return Some(format!("has no {} engine", engine.name()));
    }
    let lacking = crate::compute::lacking(needs, &advert.total);
    (!lacking.is_empty()).then(|| lacking.join("; "))
}

/// Which of a task's constraints surely does not hold of a node with this advert.
fn unfit_label(advert: &Advert, task: &Task) -> Option<String> {
    let excluded = task.constraints.iter().find(|constraint| constraint.is_excluded_by(&advert.labels))?;
    Some(format!("label {}: needs `{excluded}`", &*excluded.key))
}

/// `needs 64 GiB, has 19 GiB`, for one kind of resource.
pub(crate) fn shortage(name: &str, needs: u64, has: u64) -> String {
    let show = |amount| match name {
        "cpu" => format!("{} cores", format_cpu(amount)),
        "gpu" => amount.to_string(),
        _ => format_bytes(amount),
    };
    format!("{name}: needs {}, has {}", show(needs), show(has))
}
