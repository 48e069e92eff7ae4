//! What a machine wants remembered. A record is written before anything that relies on it is done, and a machine is
//! rebuilt from its records alone.

use crate::content::Cid;
use crate::id::{ExecutionId, FencingToken, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::limits::{PORTS_MAX, STORED_SPEC_BYTES_MAX};
use crate::time::UnixMillis;
use crate::wire::bounded::{BytesMax, ListMax, TextMax};
use crate::wire::codec::{self, Decode, Encode};
use crate::wire::group::{At, Certificate, Charter, Entry};
use crate::wire::market::{Lease, Outcome, Phase, RESULT_BODY_BYTES_MAX, ResultBody, SignedResult, Text};
use crate::wire::signed::SignatureBytes;
use crate::wire::task::{OpenPort, Task};

/// One thing to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Owner: a new job.
    Job(Box<JobRecord>),
    /// Owner: how far a job is.
    JobState(JobStateRecord),
    /// Owner: how far an attempt is.
    Execution(Box<ExecutionRecord>),
    /// Owner: an attempt that nobody wants to know of any more.
    DropExecution(JobId, ExecutionId),
    /// Owner: a node on which a job runs that runs everywhere.
    Target(TargetRecord),
    /// Owner: something to tell about a job.
    Event(JobId, u32, JobEvent),
    /// Owner: that is too long ago to be told.
    DropEvent(JobId, u32),
    /// Compute: an award, and later its result.
    Held(Box<HeldRecord>),
    /// Compute: nothing more is owed for this award.
    Forget(ExecutionId),
    /// Compute: who keeps the jobs of an owner, for whom something is held.
    Ward(Charter),
    /// Compute: nothing is, any more.
    DropWard(NodeId),
    /// Guardian: where a group stands.
    Group(Box<GroupRecord>),
    /// Guardian: one thing of an owner's jobs, by its key; none if it is not kept any more.
    Kept(NodeId, Vec<u8>, Option<Box<Entry>>),
    /// Guardian: this node keeps that owner's jobs no more, or begins anew.
    DropGroup(NodeId),
}

impl Record {
    /// The job of an owner's record.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Job(job) => Some(job.id),
            Self::JobState(state) => Some(state.id),
            Self::Execution(execution) => Some(execution.job),
            Self::Target(target) => Some(target.job),
            Self::DropExecution(job, _) | Self::Event(job, ..) | Self::DropEvent(job, _) => Some(*job),
            _ => None,
        }
    }
}

/// Where a group stands, as a member remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GroupRecord {
    /// Who leads, and who is in it.
    pub charter: Charter,
    /// Members as they are to be, if that is not known to be decided: until then both must agree to whoever is to lead.
    pub pending: Option<Charter>,
    /// That it leads.
    pub certificate: Option<Certificate>,
    /// The newest epoch that was promised, and to whom.
    pub promised: (u64, NodeId),
    /// What this node holds.
    pub at: At,
}

/// What people call something.
pub type Name = TextMax<255>;

/// A version of a job as its owner remembers it; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What groups it with others.
    pub namespace: Name,
    /// What its user calls it.
    pub name: Name,
    /// The spec as JSON, for people.
    pub spec: BytesMax<STORED_SPEC_BYTES_MAX>,
    /// What runs, in which version.
    pub task: Task,
    /// Its lease.
    pub lease: Lease,
    /// When its first version was submitted.
    pub created: UnixMillis,
    /// When this one was.
    pub submitted: UnixMillis,
    /// Whether the runs of the version before must have ended before any of this one begins.
    pub strict: bool,
    /// Milliseconds it may wait for a place.
    pub queue_timeout_ms: u64,
    /// Milliseconds it may take in all.
    pub total_timeout_ms: Option<u64>,
    /// Whether only its owner's own node can run it, since its data does not leave that.
    pub only_here: bool,
}

/// A node on which a job runs that runs everywhere, or might.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TargetRecord {
    /// The job.
    pub job: JobId,
    /// The slot that is this node's.
    pub slot: u32,
    /// The node.
    pub node: NodeId,
    /// Its life, if it said in it that it does not match.
    pub unmatched: Option<u64>,
    /// Whether it was given up before it was awarded anything.
    pub given_up: bool,
    /// What it said, or did.
    pub cause: Text,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JobStateRecord {
    /// The job.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// Why, where that is not plain.
    pub message: TextMax<4096>,
    /// Since when.
    pub modified: UnixMillis,
}

/// An attempt as the owner remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExecutionRecord {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// Its slot.
    pub slot: u32,
    /// The job's version.
    pub version: u32,
    /// Who runs it.
    pub node: NodeId,
    /// Orders awards.
    pub token: FencingToken,
    /// How far it is.
    pub state: ExecutionState,
    /// Why it ended, in words.
    pub message: Text,
    /// Where it answers.
    pub ports: ListMax<OpenPort, PORTS_MAX>,
    /// The slot's one accepted result.
    pub accepted: bool,
    /// When it was awarded.
    pub created: UnixMillis,
    /// When this was written.
    pub modified: UnixMillis,
    /// The result's signed bytes, kept as evidence.
    pub result: Option<(BytesMax<RESULT_BODY_BYTES_MAX>, SignatureBytes)>,
}

impl ExecutionRecord {
    /// What its holder signed of its end, if it did.
    #[must_use]
    pub fn body(&self) -> Option<ResultBody> {
        let (body, _) = self.result.as_ref()?;
        codec::decode(body, RESULT_BODY_BYTES_MAX).ok()
    }

    /// The result that it left, if it did.
    #[must_use]
    pub fn root(&self) -> Option<Cid> {
        self.body()?.root
    }

    /// Whether the program surely did not begin.
    #[must_use]
    pub fn never_began(&self) -> bool {
        self.body().is_some_and(|body| matches!(body.outcome, Outcome::NodeFailed { began: false, .. }))
    }
}

/// One line of a job's story.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JobEvent {
    /// When.
    pub at: UnixMillis,
    /// Which attempt, if one.
    pub execution: Option<ExecutionId>,
    /// Which node, if one.
    pub node: Option<NodeId>,
    /// That node's label then.
    pub label: TextMax<32>,
    /// What happened.
    pub what: What,
}

/// What can happen to a job. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// It was submitted.
    Submitted,
    /// So many nodes were asked.
    Asked {
        /// Nodes.
        nodes: u32,
        /// Slots to fill.
        slots: u32,
    },
    /// A node offered a place.
    Bid {
        /// Estimated milliseconds until it would start.
        wait_ms: u32,
        /// Input bytes that lie there already.
        bytes_held: u64,
    },
    /// A node did not.
    Declined {
        /// In its words.
        reason: Text,
    },
    /// A node won.
    Awarded {
        /// Why it.
        why: Text,
    },
    /// The winner would not have it.
    Refused {
        /// In its words.
        reason: Text,
    },
    /// A phase began.
    Phase(Phase),
    /// A node fell silent; a copy is started elsewhere.
    Suspected,
    /// A node was heard again.
    Heard,
    /// A node is given up.
    Lost,
    /// A result came.
    Result {
        /// The program's exit code, if it ran to its end.
        exit_code: Option<i32>,
        /// Why not, otherwise.
        cause: Text,
        /// Bytes.
        size: u64,
    },
    /// The slot has its result, and all its bytes are held here.
    Accepted {
        /// The result.
        root: Cid,
    },
    /// An attempt was called off.
    Cancelled {
        /// Why.
        reason: Text,
    },
    /// No place is free; the job waits.
    Queued {
        /// What the nodes said.
        reason: Text,
    },
    /// The job ended.
    Ended {
        /// How.
        state: JobState,
        /// Why.
        message: TextMax<4096>,
    },
    /// An attempt answers at these ports of its node.
    Open {
        /// Which.
        ports: ListMax<OpenPort, PORTS_MAX>,
    },
    /// A new version of it was submitted.
    Version {
        /// Its number.
        number: u32,
    },
    /// A run that was to go on has ended, and is started again.
    Again {
        /// After a rest of so many milliseconds.
        rest_ms: u64,
    },
    /// A node that matches, but could not be had, is given up; the others go on.
    GivenUp,
    /// Another node leads the job now, since the one before was not heard, or wanted it so.
    Adopted {
        /// Who led before.
        from: Text,
    },
    /// What is said to be done or submitted is held by its maker and its owner alone: no guardian could hold it in time.
    OneCopy {
        /// Bytes.
        size: u64,
    },
    /// What is said to be done is held by fewer nodes than its user asked for.
    FewCopies {
        /// How many hold it.
        copies: u8,
        /// How many should.
        wanted: u8,
    },
}

/// An award as its holder remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeldRecord {
    /// The attempt.
    pub execution: ExecutionId,
    /// Whose it is.
    pub owner: NodeId,
    /// Its job.
    pub job: JobId,
    /// Its slot.
    pub slot: u32,
    /// The award's mark.
    pub mac: [u8; 16],
    /// When it was awarded.
    pub awarded: UnixMillis,
    /// How long it may be kept unheard.
    pub lease: Lease,
    /// Its result, once there is one.
    pub result: Option<SignedResult>,
    /// Whether the result waits for the operator's word.
    pub withheld: bool,
}

impl HeldRecord {
    /// The content of its result, if that has any.
    #[must_use]
    pub fn root(&self) -> Option<Cid> {
        let body: ResultBody = codec::decode(&self.result.as_ref()?.body, RESULT_BODY_BYTES_MAX).ok()?;
        body.root
    }
}

/// Everything a machine is rebuilt from.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Jobs that have not ended.
    pub jobs: Vec<(JobRecord, Option<JobStateRecord>)>,
    /// Their attempts.
    pub executions: Vec<ExecutionRecord>,
    /// Their nodes, for those that run everywhere.
    pub targets: Vec<TargetRecord>,
    /// The number of each job's next event.
    pub events: Vec<(JobId, u32)>,
    /// Awards held.
    pub held: Vec<HeldRecord>,
    /// Who keeps the jobs that they are of.
    pub wards: Vec<Charter>,
    /// Groups that this node is in.
    pub groups: Vec<GroupRecord>,
    /// What it keeps for them.
    pub kept: Vec<(NodeId, Entry)>,
}
