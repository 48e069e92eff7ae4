//! A group of three: an owner, or whoever leads its jobs now, and the members that keep them with it.
//!
//! The leader appends what it decides to the members' copies; a member whose leader is not heard asks the others for their
//! votes and leads on. The scheme is that of Viewstamped Replication (Liskov and Cowling, 2012) with Raft's terms (Ongaro
//! and Ousterhout, 2014): an *epoch* has one leader, a vote is a promise to refuse all that is older, and the state that a
//! new leader found is written again under its epoch before anybody relies on it.

use super::bounded::ListMax;
use super::codec::{self, Decode, Encode};
use super::market::{Ask, Award, InlineBlock, Text};
use super::signed::{Domain, SignatureBytes, Signer, verify};
use crate::content::Cid;
use crate::id::{ExecutionId, JobId, NetworkId, NodeId};
use crate::limits::{APPEND_ENTRIES_MAX, INLINE_BLOCKS_MAX};
use crate::record::{ExecutionRecord, JobEvent, JobRecord, JobStateRecord, TargetRecord};

/// Epochs, changes and positions beyond this are nobody's who counts.
const NUMBERS_MAX: u64 = 1 << 62;
/// Members of a group.
pub const MEMBERS: usize = 3;

/// Whose jobs a group keeps, who leads it, and who is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Charter {
    /// At whose node the jobs were submitted.
    pub owner: NodeId,
    /// Rises with each leader.
    pub epoch: u64,
    /// Who decides in this epoch.
    pub leader: NodeId,
    /// Rises with each change of members.
    pub change: u64,
    /// Who keeps the jobs, the leader among them.
    pub members: [NodeId; MEMBERS],
    /// Milliseconds after which a silent leader may be replaced.
    pub lease_ms: u32,
}

impl Charter {
    /// The members but for this one.
    pub fn others(&self, me: &NodeId) -> impl Iterator<Item = NodeId> {
        self.members.into_iter().filter(move |member| member != me)
    }

    /// Whether `node` is a member.
    #[must_use]
    pub fn has(&self, node: &NodeId) -> bool {
        self.members.contains(node)
    }

    /// Whether three different nodes are named, one of them leads, and there is room for what comes after.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let [a, b, c] = self.members;
        a != b && b != c && a != c && self.has(&self.leader) && self.epoch < NUMBERS_MAX && self.change < NUMBERS_MAX
    }
}

/// How far a member's copy is: the epoch of the last leader that wrote to it, and how much it has of that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Encode, Decode)]
pub struct At {
    /// Of the leader.
    pub epoch: u64,
    /// Of the entry; never falls, in a later epoch either.
    pub index: u64,
}

impl At {
    /// Whether somebody could have counted so far.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.epoch < NUMBERS_MAX && self.index < NUMBERS_MAX
    }
}

/// A member's promise: to refuse whatever is older than this charter; and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Vote {
    /// Who is to lead.
    pub charter: Charter,
    /// What the voter holds.
    pub at: At,
}

/// A member's word that it holds all up to here, on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Ack {
    /// Whose jobs.
    pub owner: NodeId,
    /// What is held.
    pub at: At,
    /// The newest change of members that is held.
    pub change: u64,
}

/// What a member signs, since others are shown it.
pub trait Statement: Encode {
    /// So that no signature is good for another kind.
    const DOMAIN: Domain;
}

impl Statement for Vote {
    const DOMAIN: Domain = Domain::Vote;
}

impl Statement for Ack {
    const DOMAIN: Domain = Domain::GroupAck;
}

/// A statement with its author's signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Signed<T> {
    /// What is said.
    pub body: T,
    /// By whom.
    pub by: NodeId,
    /// Over the encoded body.
    pub signature: SignatureBytes,
}

impl<T: Statement> Signed<T> {
    /// Signs `body`.
    #[must_use]
    pub fn new(signer: &Signer, body: T) -> Self {
        let signature = signer.sign(T::DOMAIN, &codec::encode(&body));
        Self { body, by: signer.node(), signature }
    }

    /// Whether its author signed it, in this network.
    #[must_use]
    pub fn is_genuine(&self, network: &NetworkId) -> bool {
        verify(T::DOMAIN, network, &self.by, &codec::encode(&self.body), &self.signature)
    }
}

/// That two members promised to follow a leader; or that one leads by its user's word alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Certificate {
    /// Of two members, for the same charter.
    pub votes: [Signed<Vote>; 2],
}

impl Certificate {
    /// Who leads, if two members really promised it.
    #[must_use]
    pub fn charter(&self, network: &NetworkId) -> Option<Charter> {
        let [a, b] = &self.votes;
        let charter = a.body.charter;
        let agree = charter == b.body.charter && charter.is_sound() && (a.by != b.by || self.is_forced());
        let members = charter.has(&a.by) && charter.has(&b.by);
        (agree && members && a.is_genuine(network) && b.is_genuine(network)).then_some(charter)
    }

    /// Whether the leader alone says so: its user knows that the other members are gone for good.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.votes[0] == self.votes[1] && self.votes[0].by == self.votes[0].body.charter.leader
    }

    /// Who signed it.
    #[must_use]
    pub fn signers(&self) -> [NodeId; 2] {
        self.votes.map(|vote| vote.by)
    }
}

/// Two things that no member that means well says both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Contradiction {
    /// Two leaders were promised the same epoch.
    Votes([Signed<Vote>; 2]),
    /// It voted as if it did not hold what it had said it holds.
    Forgot(Signed<Ack>, Signed<Vote>),
}

impl Contradiction {
    /// Who lied, if this proves it.
    #[must_use]
    pub fn liar(&self, network: &NetworkId) -> Option<NodeId> {
        match self {
            Self::Votes([a, b]) => {
                let (x, y) = (&a.body.charter, &b.body.charter);
                let twice = a.by == b.by && x.owner == y.owner && x.epoch == y.epoch && x.leader != y.leader;
                (twice && a.is_genuine(network) && b.is_genuine(network)).then_some(a.by)
            }
            Self::Forgot(ack, vote) => {
                let same = ack.by == vote.by && ack.body.owner == vote.body.charter.owner;
                let forgot = vote.body.charter.epoch > ack.body.at.epoch && vote.body.at < ack.body.at;
                // Who was no member in between may have let go of it.
                let forgot = forgot && vote.body.charter.change == ack.body.change;
                (same && forgot && ack.is_genuine(network) && vote.is_genuine(network)).then_some(ack.by)
            }
        }
    }
}

/// One thing that a group remembers of its owner's jobs. Environments' values are left out. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Entry {
    /// A job.
    Job(Box<JobRecord>),
    /// How far it is.
    State(JobStateRecord),
    /// How far an attempt is.
    Execution(Box<ExecutionRecord>),
    /// An attempt that nobody wants to know of any more.
    DropExecution(JobId, ExecutionId),
    /// A node on which a job runs that runs everywhere.
    Target(TargetRecord),
    /// A line of a job's story.
    Event(JobId, u32, JobEvent),
    /// That is too long ago to be told.
    DropEvent(JobId, u32),
    /// A job that ended long ago.
    Forget(JobId),
}

/// Why a member asks for votes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Motive {
    /// The leader is not heard.
    Silence,
    /// The leader wants it so.
    HandOver,
    /// The leader is back, and begins anew.
    Return,
}

/// What the leader decided, or that it is there.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Append {
    /// Under which it leads.
    pub charter: Charter,
    /// The same with other members, to be decided on.
    pub pending: Option<Charter>,
    /// That it does, for those who may not know; the first leader has none.
    pub certificate: Option<Certificate>,
    /// What it held when its epoch began: whoever holds just that, holds the beginning of its epoch.
    pub base: At,
    /// What comes before the entries.
    pub prev: At,
    /// In order.
    pub entries: ListMax<Entry, APPEND_ENTRIES_MAX>,
    /// When it was sent, by the leader's clock; echoed.
    pub stamp: u64,
    /// What the other member said last that it holds.
    pub witness: Option<Signed<Ack>>,
}

/// What the members of a group say to each other, and to those who run its jobs. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Group {
    /// Leader: write this.
    Append(Box<Append>),
    /// Member: it is on my disk.
    Ack {
        /// What is.
        ack: Signed<Ack>,
        /// Of the message that is answered.
        stamp: u64,
    },
    /// Member: I have other entries, or lack some. The leader sends what is missing, or the member asks for all.
    Behind {
        /// Whose jobs.
        owner: NodeId,
        /// What it has.
        at: At,
        /// Of the message that is answered.
        stamp: u64,
    },
    /// Send me what you hold, part by part.
    Pull {
        /// Whose jobs.
        owner: NodeId,
        /// Of which state; the present one if that is not kept.
        at: At,
        /// From 0.
        part: u32,
    },
    /// A part of what I hold.
    Part {
        /// Whose jobs.
        owner: NodeId,
        /// Of which state.
        at: At,
        /// Which.
        part: u32,
        /// Of how many.
        of: u32,
        /// In any order.
        entries: ListMax<Entry, APPEND_ENTRIES_MAX>,
    },
    /// Member: I would lead.
    Canvass {
        /// As what.
        charter: Charter,
        /// What it holds.
        at: At,
        /// Why.
        motive: Motive,
    },
    /// Member: do.
    Vote(Signed<Vote>),
    /// Member: do not; this is how things stand, as far as it knows.
    Stands {
        /// Who leads.
        charter: Charter,
        /// That it does.
        certificate: Option<Certificate>,
        /// The newest epoch that was promised to anybody.
        promised: u64,
    },
    /// Anybody: who leads this owner's jobs?
    Seek {
        /// Whose.
        owner: NodeId,
    },
    /// The one who leads: so it stands, and these two promised it.
    Leads(Certificate),
    /// The first leader, to those who run its jobs: these keep them with it.
    Kept(Charter),
    /// Leader: lead on in my place.
    HandOver {
        /// Whose jobs.
        owner: NodeId,
        /// Under which it led.
        epoch: u64,
    },
    /// The owner itself, to whoever leads its jobs: I am back.
    Back {
        /// Whose jobs.
        owner: NodeId,
    },
    /// Leader: hold this content, so that it is not lost with me.
    Hold {
        /// Whose jobs.
        owner: NodeId,
        /// For which of them.
        job: JobId,
        /// What.
        root: Cid,
        /// Bytes of files in it.
        size: u64,
        /// Who else has it.
        maker: NodeId,
        /// All of its blocks, if they are few and small.
        blocks: ListMax<InlineBlock, INLINE_BLOCKS_MAX>,
    },
    /// Member: it is held here, or cannot be had.
    Held {
        /// For which job.
        job: JobId,
        /// What.
        root: Cid,
        /// Whether it is.
        held: bool,
    },
    /// Member, or the owner: end this job, by its user's word.
    Stop {
        /// Which.
        job: JobId,
        /// Why.
        reason: Text,
    },
    /// Node: I keep no jobs for others, or no more.
    Unwilling {
        /// Whose jobs it was to keep.
        owner: NodeId,
    },
    /// Anybody: this one lied.
    Proof(Box<Contradiction>),
    /// Who leads an owner's jobs in its place asks for one of them: it shows that it may.
    Ask(Certificate, Box<Ask>),
    /// The same, with an award.
    Award(Certificate, Box<Award>),
}
