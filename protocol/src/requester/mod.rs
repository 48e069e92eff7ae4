//! The requester machine: takes a job from its user, has peers bid for each slot, awards, watches, and accepts exactly
//! one result per slot.
//!
//! There are four kinds of jobs. *Batch*: so many slots, each filled once. *Service*: so many slots, each kept running.
//! *Ops* and *daemon*: a slot for every node that matches, filled once or kept running there and nowhere else.
//!
//! A *round* asks a few nodes at once and closes when all have answered or the time is up; each *slot* then goes to the
//! best bid. A holder that falls silent is *suspected* and a copy is started elsewhere (except for exclusive slots, which
//! wait out the lease); the first valid result whose bytes are held here wins. What the machine learned is in its records;
//! [`State::restore`] makes it again from them and asks every holder how far it is.
//!
//! What is `guarded` is kept by a group ([`crate::guardian`]): what somebody will rely on waits for two disks, and whoever
//! leads the group goes on from its records. Ownership of a job is only ever "this machine has its record".

mod accept;
mod endless;
mod everywhere;
mod execution;
#[allow(clippy::trivially_copy_pass_by_ref, reason = "an owner's tag is a key, and keys are borrowed")]
mod group;
mod job;
mod round;
mod silence;
mod state;
mod submit;
mod trouble;

use std::collections::BTreeSet;

pub use self::state::{Config, State};
use crate::content::Cid;
use crate::guardian::{Replica, Taken};
use crate::id::{ExecutionId, JobId, NodeId};
use crate::record::{JobEvent, Name, Record};
use crate::time::Span;
use crate::wire::market::{InlineBlock, Lease, Market};
use crate::wire::task::{Engine, Resources, Task};

/// What can happen to the machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// A user hands in a job.
    Submit(Box<Submission>),
    /// A user stops a job.
    Stop {
        /// For the answer.
        request: u64,
        /// Which.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// A peer (or this node's own compute machine) says something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Market,
    },
    /// Something was heard from a peer, if only that it is alive.
    Alive(NodeId),
    /// A connection to a peer came up.
    PeerUp(NodeId),
    /// The last connection to a peer went down.
    PeerDown(NodeId),
    /// The view has a new node, or one more than before that could run something.
    ViewGrew,
    /// These nodes hold inputs of a job.
    Providers(JobId, BTreeSet<NodeId>),
    /// A result's bytes are held here now, or cannot be had.
    Fetched(ExecutionId, Result<(), String>),
    /// Content is held by so many other nodes, too, as many as should or as could be had in time.
    Replicated {
        /// For which job.
        job: JobId,
        /// What.
        root: Cid,
        /// How many.
        others: u8,
    },
    /// These jobs are this node's to decide on from now, for the group that keeps them.
    Adopt(Box<Taken>),
    /// Others decide on the jobs with this owner's tag that a group keeps.
    Abandon([u8; 5]),
    /// Whether it is sure that nobody else decides on them.
    Sure([u8; 5], bool),
    /// Others decide on these attempts, or it is not known yet who does.
    Unled([u8; 5], BTreeSet<ExecutionId>),
    /// Time passed.
    Tick,
}

/// A job to take.
#[derive(Debug, Clone)]
pub struct Submission {
    /// For the answer.
    pub request: u64,
    /// Its id, made by the caller from name and nonce.
    pub id: JobId,
    /// What groups it with others.
    pub namespace: Name,
    /// What its user calls it.
    pub name: Name,
    /// The spec as JSON, inline inputs replaced by content.
    pub spec: Vec<u8>,
    /// What runs.
    pub task: Task,
    /// How many slots; of no meaning for a job that runs everywhere.
    pub slots: u32,
    /// Whether a new version waits for the end of the one before it.
    pub strict: bool,
    /// Whether a version that is like the one before it is to take its place all the same.
    pub force: bool,
    /// Its lease.
    pub lease: Lease,
    /// How long it may wait for a place.
    pub queue_timeout: Span,
    /// How long it may take in all.
    pub total_timeout: Option<Span>,
    /// Inputs that are not held here: somebody must be found who has them.
    pub elsewhere: Vec<Cid>,
    /// Whether it reads what does not leave this node: then nobody else need be asked.
    pub only_here: bool,
    /// Whether the user waits for the end: then the first sync may linger a little, to cover both.
    pub waits: bool,
    /// Whether a group keeps it, so that it does not end with this node.
    pub guarded: bool,
    /// Inputs that are held here, and perhaps nowhere else, with their sizes: others hold them, too, if a group keeps it.
    pub here: Vec<(Cid, u64)>,
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
    /// Call for nodes that are not known here, over gossip; whoever fits sends its advert.
    Call {
        /// What they must run.
        engine: Engine,
        /// What they must have.
        resources: Resources,
        /// How many would do.
        want: u32,
    },
    /// Find out who holds these inputs; answer with [`Input::Providers`].
    FindProviders(JobId, Vec<Cid>),
    /// Hold this result here, pinned; answer with [`Input::Fetched`].
    Fetch(Box<Fetch>),
    /// Do not hold that result: another one won.
    Drop(ExecutionId),
    /// Nor that one, which was held until now.
    Unpin {
        /// The attempt.
        execution: ExecutionId,
        /// Its job.
        job: JobId,
        /// Its result.
        root: Cid,
    },
    /// What is remembered of this job goes to the group that keeps it, from here on.
    Guard(JobId),
    /// Have it held at another node; answer with [`Input::Replicated`].
    Replicate(Box<Replica>),
    /// Answer a user.
    Answer(u64, Answer),
    /// Tell whoever watches the job.
    Tell(JobId, u32, JobEvent),
}

/// A result to bring home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The attempt.
    pub execution: ExecutionId,
    /// The job, whose result it is.
    pub job: JobId,
    /// Who has it.
    pub maker: NodeId,
    /// Its root.
    pub root: Cid,
    /// Bytes of files in it, as the maker says.
    pub size: u64,
    /// All of its blocks, if they came along.
    pub blocks: Vec<InlineBlock>,
}

/// The answer to a user's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The job is taken and on disk.
    Accepted {
        /// In which version.
        version: u32,
        /// Whether the answer may wait a moment for more to be synced with it.
        linger: bool,
    },
    /// The job is as it was asked for already, in this version.
    Unchanged(u32),
    /// That job cannot become this one.
    Unlike(String),
    /// The job is stopped, and that is on disk.
    Stopped,
    /// There is no such open job.
    NotOpen,
    /// No more jobs are taken now.
    Busy(String),
}
