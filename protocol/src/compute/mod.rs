//! The compute machine: bids for what it can run, runs what it was awarded, reports, and keeps results until they are
//! released.
//!
//! Roles: an *owner* asks and awards; this machine holds a *place* for each bid that stands, an award for each bid that
//! was taken, and resources only for what runs. Nothing outlives its owner's word: a bid expires, an exclusive award ends
//! with its lease, any other with the orphan time, a result with the same. What it promised and what it finished are
//! records, so after a restart it tells each owner what became of its award.

mod asks;
mod awards;
mod policy;
mod state;
#[allow(
    clippy::large_types_passed_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "a certificate is 600 bytes, and few are passed; an owner's tag is a key, and keys are borrowed"
)]
mod wards;
mod withheld;

use std::collections::BTreeMap;

pub use self::asks::lacking;
pub use self::policy::{Grant, Policy, Web};
pub use self::state::{Config, State};
pub use self::withheld::Withheld;
use crate::content::Cid;
use crate::id::{ExecutionId, JobId, NodeId};
use crate::limits::PORTS_MAX;
use crate::record::Record;
use crate::time::Tick;
use crate::wire::bounded::ListMax;
use crate::wire::market::{Head, InlineBlock, Market, Outcome, Phase, Usage};
use crate::wire::task::{OpenPort, Task};

/// What can happen to the machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// A peer (or this node's own requester) says something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Market,
    },
    /// Time passed.
    Tick,
    /// A connection to a peer came up.
    PeerUp(NodeId),
    /// A run is in another phase.
    Phase(ExecutionId, Phase),
    /// A run is about to answer at these ports.
    Open(ExecutionId, ListMax<OpenPort, PORTS_MAX>),
    /// A run ended.
    Ended(ExecutionId, Box<Ended>),
    /// Content is held here now.
    Holding(Holding),
    /// Content is not held here any more.
    Unheld(Holding),
    /// The operator lets a result out, or keeps it for good.
    LetOut {
        /// Whose result waits.
        execution: ExecutionId,
        /// Whether it may go.
        granted: bool,
    },
    /// What was found when an ask was looked at.
    Considered(u64, Result<Facts, Refusal>),
    /// Whether bids may be made: no with a full disk, or while the node leaves.
    Accepting(Result<(), String>),
    /// The operator empties the node, or takes that back.
    Drain(bool),
}

/// What a look at an ask found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the image's name stands for, if the task is a container.
    pub image: Option<[u8; 32]>,
    /// Bytes of the image that lie here already.
    pub bytes_held: u64,
}

/// Why an ask is declined after a look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub reason: String,
    /// Whether it could be otherwise at another time.
    pub later: bool,
}

/// How a run ended, as its engine reports it.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The result folder, if there is one; pinned for this execution.
    pub root: Option<Cid>,
    /// Bytes of files in it.
    pub size: u64,
    /// What it used.
    pub usage: Usage,
    /// The start of stdout.
    pub stdout: Head,
    /// The start of stderr.
    pub stderr: Head,
    /// All blocks under the root, if they are few and small.
    pub blocks: Vec<InlineBlock>,
    /// Whether it read what does not leave this node.
    pub read_private: bool,
}

impl Ended {
    /// An end that left nothing.
    #[must_use]
    pub fn bare(outcome: Outcome) -> Self {
        Self {
            outcome,
            root: None,
            size: 0,
            usage: Usage::default(),
            stdout: Head::default(),
            stderr: Head::default(),
            blocks: Vec::new(),
            read_private: false,
        }
    }
}

/// A root that lies here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub root: Cid,
    /// Bytes of files in it.
    pub size: u64,
    /// Whether only some peers' jobs may read it, and nobody may have it.
    pub private: bool,
    /// Whether it is here only because another owner's jobs are kept, should its node be lost.
    pub guarded: bool,
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Remember this.
    Persist(Record),
    /// Tell a peer.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Market,
    },
    /// Look at this ask, numbered for the answer: at its image, and what the operator's program says of it.
    Consider(u64, Box<Considered>),
    /// Run this.
    Start(Box<Run>),
    /// Go on with this run, which a former life of the node left running.
    Resume(Box<Run>),
    /// That run may go on until then.
    Extend(ExecutionId, Tick),
    /// That run is for this owner from now, which leads its job.
    Owner(ExecutionId, NodeId),
    /// Stop that run, if it still runs.
    Stop(ExecutionId),
    /// Its result need not be kept for its owner any more.
    Unpin(ExecutionId),
}

/// An ask to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// Who asks.
    pub owner: NodeId,
    /// For which job.
    pub job: JobId,
    /// What would run.
    pub task: Task,
}

/// A run to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The attempt.
    pub execution: ExecutionId,
    /// Whose.
    pub owner: NodeId,
    /// Its job.
    pub job: JobId,
    /// Its slot.
    pub slot: u32,
    /// What to run.
    pub task: Task,
    /// Which image, whatever its name stands for by now.
    pub image: Option<[u8; 32]>,
    /// When its owner's word runs out: the executor stops it then by itself, whatever holds up the machine.
    pub until: Tick,
}

/// How busy the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Executions running.
    pub running: u32,
    /// Executions waiting.
    pub queued: u32,
    /// Of the total, in percent; over 100 when jobs queue.
    pub percent: u16,
    /// What is free.
    pub available: crate::wire::task::Resources,
}

/// Blocks that fit into a result message, or none at all.
#[must_use]
pub fn inline_blocks(blocks: Vec<InlineBlock>) -> ListMax<InlineBlock, { crate::limits::INLINE_BLOCKS_MAX }> {
    let total: usize = blocks.iter().map(|block| block.bytes.len()).sum();
    if total > crate::limits::INLINE_RESULT_BYTES_MAX {
        return ListMax::default();
    }
    ListMax::new(blocks).unwrap_or_default()
}

/// Content held here, by root: what anybody may have, and what does not leave this node.
#[derive(Debug, Clone, Default)]
struct Holdings {
    open: BTreeMap<Cid, Holding>,
    private: BTreeMap<Cid, Holding>,
}

impl Holdings {
    fn of_kind(&mut self, private: bool) -> &mut BTreeMap<Cid, Holding> {
        if private { &mut self.private } else { &mut self.open }
    }

    /// What is here of a root, for somebody who may read private data, or may not: then it is as if that were not here.
    fn get(&self, root: &Cid, trusted: bool) -> Option<Holding> {
        self.private.get(root).filter(|_| trusted).or_else(|| self.open.get(root)).copied()
    }

    /// Whether this is to be had here only by those who may read private data.
    fn is_private(&self, root: &Cid) -> bool {
        self.private.contains_key(root)
    }
}
