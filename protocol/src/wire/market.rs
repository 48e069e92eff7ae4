//! The market between an owner and its compute nodes.
//!
//! Ask → bid or decline → award → ack or refuse → started → beats → result → ack → verdict → release. Every message may
//! be lost, repeated or overtaken: whoever needs an answer sends again until it comes, and each message names the thing
//! it is about, so that doing it twice changes nothing.

use super::bounded::{BytesMax, ListMax, TextMax};
use super::codec::{Decode, Encode};
use super::envelope::Message;
use super::group::Group;
use super::signed::SignatureBytes;
use super::task::{OpenPort, Task};
use crate::content::Cid;
use crate::id::{BootId, ExecutionId, FencingToken, JobId, NodeId};
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, INLINE_BLOCKS_MAX, INLINE_RESULT_BYTES_MAX, PORTS_MAX, TEXT_BYTES_MAX,
};
use crate::time::{Span, UnixMillis};

/// A reason or a cause, in plain words, for people.
pub type Text = TextMax<TEXT_BYTES_MAX>;

/// Who would run this? Asked of a few peers at a time.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Ask {
    /// Echoed in the answer.
    pub ask: FencingToken,
    /// The job it is for.
    pub job: JobId,
    /// How many runs are wanted.
    pub want: u32,
    /// The task without the values of its environment.
    pub task: Task,
}

/// A place in a queue is on offer.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Bid {
    /// The ask answered.
    pub ask: FencingToken,
    /// The bidder's present life; an award after a restart is refused.
    pub boot: BootId,
    /// Names the bid in that life.
    pub bid: u64,
    /// How many runs are offered, at most as many as were wanted.
    pub places: u32,
    /// Milliseconds for which the bid stands.
    pub ttl_ms: u32,
    /// Estimated milliseconds until a run would start.
    pub wait_ms: u32,
    /// Bytes of the inputs, and of the image, that lie here already.
    pub bytes_held: u64,
    /// What the image's name stands for here, if it is a container: the digest of what would run.
    pub image: Option<[u8; 32]>,
}

/// No, and why.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Decline {
    /// The ask answered.
    pub ask: FencingToken,
    /// Every reason, each a sentence.
    pub reasons: ListMax<TextMax<160>, 8>,
    /// Whether the node could run it at another time.
    pub later: bool,
}

/// How long an owner's word lasts, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Lease {
    /// Between beats.
    pub heartbeat_ms: u32,
    /// From a beat (or bid) that was answered.
    pub length_ms: u32,
    /// What the owner waits beyond the length.
    pub grace_ms: u32,
    /// How long a holder of a non-exclusive slot works on unheard.
    pub orphan_ms: u32,
}

impl Lease {
    /// How long after the last answered beat its owner may give the slot to another: the length, and the grace for clocks.
    #[must_use]
    pub fn whole(&self) -> Span {
        Span::millis(u64::from(self.length_ms) + u64::from(self.grace_ms))
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self { heartbeat_ms: 10_000, length_ms: 60_000, grace_ms: 15_000, orphan_ms: 3_600_000 }
    }
}

/// Run this.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Award {
    /// The attempt; the hash of job, slot, token and bidder.
    pub execution: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// Its slot.
    pub slot: u32,
    /// Orders the owner's awards.
    pub token: FencingToken,
    /// The life in which the bid was made.
    pub boot: BootId,
    /// The bid taken.
    pub bid: u64,
    /// The whole task.
    pub task: Task,
    /// How long this word lasts.
    pub lease: Lease,
    /// Only the owner can make it; echoed in the result.
    pub mac: [u8; 16],
}

/// How far an execution is, as its holder sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Phase {
    /// Not known here.
    Unknown,
    /// Has a place in the queue.
    Queued,
    /// Inputs are being fetched.
    Preparing,
    /// Running.
    Running,
    /// Its result is being stored.
    Publishing,
    /// It has ended, and its result waits for the operator's word: it was made of data that does not leave the node.
    Withheld,
    /// Ended; a result is on its way.
    Ended,
}

/// Why a program was stopped. Append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum FailureKind {
    /// The guest trapped.
    Trap,
    /// It wanted more memory than it may have.
    Memory,
    /// It ran longer than it may.
    Time,
    /// It printed more than it may.
    Logs,
    /// It left more, or other things, than it may.
    Output,
    /// What it was told to run cannot run.
    Program,
    /// The operator keeps the result back.
    Withheld,
    /// It started more processes than it may.
    Processes,
}

/// How an execution ended.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Outcome {
    /// The program ran to its own end.
    Completed {
        /// Its exit code.
        exit_code: i32,
    },
    /// Its own doing; trying elsewhere would not help.
    Failed {
        /// What kind of doing.
        kind: FailureKind,
        /// In words.
        cause: Text,
    },
    /// The node's doing; another node may do better.
    NodeFailed {
        /// Whether the program may have begun.
        began: bool,
        /// In words.
        cause: Text,
    },
    /// Stopped on the owner's word.
    Cancelled,
}

/// What an execution used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Usage {
    /// Milliseconds of CPU.
    pub cpu_ms: u64,
    /// Milliseconds from start to end.
    pub wall_ms: u64,
    /// Most bytes of guest memory at one time.
    pub memory_peak: u64,
    /// Input bytes that had to be fetched.
    pub bytes_in: u64,
    /// Input bytes that lay here already.
    pub bytes_held: u64,
    /// Bytes of the result.
    pub bytes_out: u64,
}

/// The first bytes of a stream the program wrote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Head {
    /// At most a kilobyte.
    pub bytes: BytesMax<1024>,
    /// Whether there was more.
    pub truncated: bool,
}

/// The signed part of a result.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ResultBody {
    /// The attempt that ended.
    pub execution: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// Its slot.
    pub slot: u32,
    /// Who ran it.
    pub maker: NodeId,
    /// The award's mark.
    pub mac: [u8; 16],
    /// When it ended, by the maker's clock.
    pub ended: UnixMillis,
    /// How.
    pub outcome: Outcome,
    /// The result folder; also after a failure, for what was printed until then.
    pub root: Option<Cid>,
    /// Bytes of files in it.
    pub size: u64,
    /// What it used.
    pub usage: Usage,
    /// The start of stdout.
    pub stdout: Head,
    /// The start of stderr.
    pub stderr: Head,
}

/// Bytes of an encoded [`ResultBody`].
pub const RESULT_BODY_BYTES_MAX: usize = 4096;

/// A block that travels with a message.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct InlineBlock {
    /// What its bytes hash to.
    pub cid: Cid,
    /// The block.
    pub bytes: BytesMax<INLINE_RESULT_BYTES_MAX>,
}

/// A result with its maker's signature and, if it is small, all its blocks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SignedResult {
    /// The attempt, readable without the body.
    pub execution: ExecutionId,
    /// The encoded [`ResultBody`].
    pub body: BytesMax<RESULT_BODY_BYTES_MAX>,
    /// Over `body`.
    pub signature: SignatureBytes,
    /// All blocks under the root, or none.
    pub blocks: ListMax<InlineBlock, INLINE_BLOCKS_MAX>,
}

/// One message of the market. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Market {
    /// Owner: who would run this?
    Ask(Ask),
    /// Node: I, in so long.
    Bid(Bid),
    /// Node: not I, because.
    Decline(Decline),
    /// Owner: your bid was not taken.
    BidRelease {
        /// The bidder's life.
        boot: BootId,
        /// Its bid.
        bid: u64,
    },
    /// Owner: run it.
    Award(Award),
    /// Node: the award is mine.
    AwardAck {
        /// The attempt.
        execution: ExecutionId,
    },
    /// Node: the award is not mine.
    AwardRefuse {
        /// The attempt.
        execution: ExecutionId,
        /// Why.
        reason: Text,
    },
    /// Node: the program runs.
    Started {
        /// The attempt.
        execution: ExecutionId,
        /// Where it answers.
        ports: ListMax<OpenPort, PORTS_MAX>,
    },
    /// Node: still here; also sent at each change of phase.
    Beat {
        /// The attempt.
        execution: ExecutionId,
        /// Rises by one, and never comes back: not in another life of the node either.
        beat: u64,
        /// How far it is.
        phase: Phase,
    },
    /// Owner: heard; the lease counts from the sending of that beat.
    BeatAck {
        /// The attempt.
        execution: ExecutionId,
        /// The beat heard.
        beat: u64,
    },
    /// Owner: how far is this? Answered by a beat, or a result.
    Query {
        /// The attempt.
        execution: ExecutionId,
    },
    /// Node: it ended.
    Result(SignedResult),
    /// Owner: I have the result's record.
    ResultAck {
        /// The attempt.
        execution: ExecutionId,
    },
    /// Owner: what became of the result.
    Verdict {
        /// The attempt.
        execution: ExecutionId,
        /// Whether it is the slot's accepted result.
        accepted: bool,
    },
    /// Owner: stop.
    Cancel {
        /// The attempt.
        execution: ExecutionId,
        /// Why.
        reason: Text,
    },
    /// Node: it is stopped, or never was.
    CancelAck {
        /// The attempt.
        execution: ExecutionId,
    },
    /// Owner: nothing more is wanted of you for this.
    Release {
        /// The attempt.
        execution: ExecutionId,
    },
    /// About who keeps an owner's jobs; to nodes of [`super::VERSION_GROUPS`] alone.
    Group(Box<Group>),
}

impl Market {
    /// Whether an owner says this to a holder (or a bidder), rather than the other way round.
    #[must_use]
    pub const fn is_from_owner(&self) -> bool {
        match self {
            Self::Ask(_)
            | Self::BidRelease { .. }
            | Self::Award(_)
            | Self::BeatAck { .. }
            | Self::Query { .. }
            | Self::ResultAck { .. }
            | Self::Verdict { .. }
            | Self::Cancel { .. }
            | Self::Release { .. } => true,
            Self::Bid(_)
            | Self::Decline(_)
            | Self::AwardAck { .. }
            | Self::AwardRefuse { .. }
            | Self::Started { .. }
            | Self::Beat { .. }
            | Self::Result(_)
            | Self::CancelAck { .. }
            | Self::Group(_) => false,
        }
    }
}

/// What one turn of a machine sends to one peer. An empty frame says that the sender is alive.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Frame {
    /// In order.
    pub messages: ListMax<Market, FRAME_MESSAGES_MAX>,
}

impl Message for Frame {
    const KIND: u16 = 2;
    const BYTES_MAX: usize = FRAME_BYTES_MAX;
}
