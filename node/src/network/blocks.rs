//! Peers with which this node has nothing to do: by its operator's word until that is taken back, or for an hour since they
//! sent what no honest node sends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bacnode_protocol::id::NodeId;
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::bounded::TextMax;

use super::{Command, Network};
use crate::clock;
use crate::store::{Store, StoreError};

/// Offences within [`OFFENCE_SPAN`] for which a peer is blocked by itself, and for how long.
const OFFENCES_MAX: u32 = 10;
const OFFENCE_SPAN: Duration = Duration::from_secs(600);
const BLOCKED_MS: u64 = 3_600_000;
/// Peers that are blocked without their operator's word, and whose offences are counted. Ids cost nothing: an enemy can have many.
const BLOCKED_MAX: usize = 10_000;

/// Why and how long a peer is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) since: UnixMillis,
    /// For ever, if there is no time.
    pub(crate) until: Option<UnixMillis>,
    pub(crate) reason: TextMax<128>,
    /// What it called itself.
    pub(crate) name: TextMax<32>,
}

/// All that are blocked. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Blocks {
    listed: Arc<Mutex<BTreeMap<NodeId, Block>>>,
    offences: Arc<Mutex<HashMap<NodeId, (u32, Instant)>>>,
    store: Store,
}

impl Blocks {
    /// Those that were blocked in a former life, and those that the settings name.
    pub(super) fn open(store: &Store, denied: &[NodeId]) -> Result<Self, StoreError> {
        let mut listed = store.blocks()?;
        let by_settings = Block {
            since: clock::unix(),
            until: None,
            reason: TextMax::truncated("by the settings"),
            name: TextMax::default(),
        };
        listed.extend(denied.iter().map(|node| (*node, by_settings.clone())));
        Ok(Self { listed: Arc::new(Mutex::new(listed)), offences: Arc::default(), store: store.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Block>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> BTreeMap<NodeId, Block> {
        self.lock().clone()
    }

    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.lock().contains_key(node)
    }

    /// Those whose time is over; they are named once.
    pub(super) fn over(&self) -> Vec<NodeId> {
        let now = clock::unix();
        let mut listed = self.lock();
        let is_over = |block: &Block| block.until.is_some_and(|until| until < now);
        let over: Vec<NodeId> = listed.extract_if(.., |_, block| is_over(block)).map(|(node, _)| node).collect();
        for node in &over {
            if let Err(error) = self.store.unblock(node) {
                tracing::warn!(%error, "cannot forget that a peer was blocked");
            }
        }
        over
    }

    /// Counts an offence; whether it was one too many.
    fn offended(&self, node: NodeId) -> bool {
        let mut offences = self.offences.lock().unwrap_or_else(PoisonError::into_inner);
        if offences.len() >= BLOCKED_MAX {
            offences.retain(|_, (_, since)| since.elapsed() < OFFENCE_SPAN);
            if offences.len() >= BLOCKED_MAX {
                return false;
            }
        }
        let (count, since) = offences.entry(node).or_insert((0, Instant::now()));
        if since.elapsed() > OFFENCE_SPAN {
            (*count, *since) = (0, Instant::now());
        }
        *count += 1;
        let blocked = *count >= OFFENCES_MAX;
        if blocked {
            offences.remove(&node);
        }
        blocked
    }
}

impl Network {
    /// Has nothing to do with `node` any more.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) async fn block(&self, node: NodeId, until: Option<UnixMillis>, reason: &str) -> Result<(), StoreError> {
        let name = self.view().get(&node).map(|peer| peer.advert.name.clone()).unwrap_or_default();
        let block = Block { since: clock::unix(), until, reason: TextMax::truncated(reason), name };
        {
            let mut listed = self.blocks.lock();
            let full = listed.len() >= BLOCKED_MAX;
            // What its operator said is not shortened by what it does; and a list that is full is full.
            if until.is_some() && (full || listed.get(&node).is_some_and(|block| block.until.is_none())) {
                return Ok(());
            }
            self.blocks.store.block(&node, &block)?;
            listed.insert(node, block);
        }
        self.view().forget(&node);
        let _ = self.commands.send(Command::Block(node)).await;
        Ok(())
    }

    /// Takes it back; whether there was anything to take back.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) async fn unblock(&self, node: NodeId) -> Result<bool, StoreError> {
        self.blocks.store.unblock(&node)?;
        let was = self.blocks.lock().remove(&node).is_some();
        let _ = self.commands.send(Command::Unblock(node)).await;
        Ok(was)
    }

    /// Those with which this node has nothing to do.
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Notes that `node` sent what no honest node sends. It is heard less, and after some of that not at all for an hour.
    /// Blocks a peer that is proved to say one thing and another, until an operator thinks otherwise.
    pub(crate) async fn block_liar(&self, node: NodeId) {
        if let Err(error) = self.block(node, None, "it contradicts itself as a guardian").await {
            tracing::warn!(%error, "cannot block a peer");
        }
    }

    pub(crate) async fn offended(&self, node: NodeId, what: &'static str) {
        tracing::debug!(peer = node.short(), what, "an offence");
        if node == self.me {
            return;
        }
        if !self.blocks.offended(node) {
            let _ = self.commands.send(Command::Offence(node)).await;
            return;
        }
        tracing::warn!(peer = node.short(), what, "a peer is blocked for an hour: it sends what no honest node sends");
        let until = UnixMillis(clock::unix().0 + BLOCKED_MS);
        if let Err(error) = self.block(node, Some(until), what).await {
            tracing::warn!(%error, "cannot block a peer");
        }
    }
}
