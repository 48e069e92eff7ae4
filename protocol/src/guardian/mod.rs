//! The guardian machine: keeps a copy of other owners' jobs, and leads on when their node is gone.
//!
//! An owner has a *group* of three: itself and two guardians. One of them *leads*: its requester machine decides, and what
//! that wants remembered goes to the members as the entries of one log. What somebody will rely on waits until it is on two
//! disks. A leader that is not heard for a *lease* may be replaced: by whoever of the others has one more promise than its
//! own, and what that one holds. Safety rests on promises and epochs alone; the lease only says when a member may try, and
//! when a leader that hears nobody must stop giving its word.
//!
//! | role | what it does |
//! |---|---|
//! | leader | appends, beats, replaces members that are gone, hands over |
//! | follower | writes what the leader says, and says so |
//! | candidate | asks for promises, fetches what it lacks, writes it again under its own epoch |
//! | outsider | the owner, while others lead its jobs: asks to have them back |
//!
//! After Viewstamped Replication Revisited (Liskov and Cowling, 2012); the words are Raft's (Ongaro and Ousterhout, 2014).
//! It tolerates members that crash and forget nothing they said was on their disk. One that lies leaves two statements
//! that contradict each other; whoever sees both shows them to everybody.

mod elect;
mod follow;
mod hold;
mod lead;
mod ledger;
mod members;
mod state;

use std::collections::BTreeSet;

pub use self::state::{Config, State, Status};
use crate::content::Cid;
use crate::id::{ExecutionId, JobId, NodeId};
use crate::record::{Record, Records};
use crate::time::Span;
use crate::wire::group::{Contradiction, Group};
use crate::wire::market::{InlineBlock, Market};

/// What can happen to the machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// A peer says something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Group,
    },
    /// Others shall keep jobs of this node, which may have no group yet.
    Prepare,
    /// This node's requester machine remembers these things of jobs that are kept for it.
    Append(Vec<Record>),
    /// Hold this at another node, too; answered by [`Output::Replicated`].
    Replicate(Box<Replica>),
    /// What was to be held here is, or cannot be had.
    Held {
        /// For which job.
        job: JobId,
        /// What.
        root: Cid,
        /// Whether it is.
        held: bool,
    },
    /// A user of this node's, which is in the job's group and does not lead it, wants it stopped.
    Stop(JobId, String),
    /// The node takes its leave: whatever it leads goes to others.
    Leave,
    /// Lead this owner's jobs though nobody else says so: the others are gone for good.
    Force(NodeId),
    /// Time passed.
    Tick,
}

/// Why others cannot keep this node's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotKeep {
    /// In words.
    pub reason: String,
    /// Whether that may be otherwise in a moment.
    pub soon: bool,
}

/// Content that is not to be lost with its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The job that it is of.
    pub job: JobId,
    /// What.
    pub root: Cid,
    /// Bytes of files in it.
    pub size: u64,
    /// Who made it.
    pub maker: NodeId,
    /// All of its blocks, if they are few and small.
    pub blocks: Vec<InlineBlock>,
    /// How many other nodes shall hold it.
    pub others: u8,
    /// How long they are waited for.
    pub patience: Span,
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
    /// All that was appended to this owner's log up to there is on another disk, too.
    Committed([u8; 5], u64),
    /// These jobs are this node's to decide on from now.
    Lead(Box<Taken>),
    /// The jobs of the owner with this tag are not this node's to decide on any more.
    Follow([u8; 5]),
    /// Others decide on these attempts, or it is not known yet who does: nothing is said of them here.
    Unled([u8; 5], BTreeSet<ExecutionId>),
    /// Whether this node is sure that nobody else decides on the jobs with this tag.
    Sure([u8; 5], bool),
    /// Hold this, for somebody else's job; answer with [`Input::Held`].
    Hold {
        /// What.
        replica: Box<Replica>,
        /// Who has it.
        holders: Vec<NodeId>,
    },
    /// Nothing need be held for that job any more.
    LetGo(JobId),
    /// Content is held at so many other nodes, as many as should or as could be had in time.
    Replicated {
        /// For which job.
        job: JobId,
        /// What.
        root: Cid,
        /// How many.
        others: u8,
    },
    /// A user of another member's wants this job stopped, which this node leads.
    Stop(JobId, String),
    /// That node says one thing and another.
    Accuse(NodeId, Box<Contradiction>),
}

/// Jobs that are taken over.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Whose they are.
    pub owner: NodeId,
    /// Who led before.
    pub from: NodeId,
    /// Under which this node leads: no award of anybody else's has it.
    pub epoch: u64,
    /// All that is known of all of them.
    pub everything: Vec<Record>,
    /// What the requester goes on with.
    pub open: Records,
}

impl PartialEq for Taken {
    fn eq(&self, other: &Self) -> bool {
        (self.owner, self.from, &self.everything) == (other.owner, other.from, &other.everything)
    }
}

impl Eq for Taken {}
