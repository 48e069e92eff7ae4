//! What one seed draws: the network, the work, and the bad luck. A plan says everything that is decided beforehand, so a
//! failing one can be made smaller and kept.

mod draw;

use bacnode_protocol::wire::task::JobKind;
use serde::{Deserialize, Serialize};

/// Microseconds of virtual time.
pub type Micros = u64;
/// One second.
pub const SECOND: Micros = 1_000_000;
/// One millisecond.
pub const MILLI: Micros = 1_000;

/// The time of a run that goes on until it is stopped.
pub const FOREVER: Micros = u64::MAX;
/// After the last fault, everything that is to be kept running runs.
pub const SETTLED: Micros = 400 * SECOND;

/// A whole trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where it came from, and what chance within the run grows from.
    pub seed: u64,
    /// The machines.
    pub nodes: Vec<NodePlan>,
    /// The work.
    pub jobs: Vec<JobPlan>,
    /// The links.
    pub links: LinkPlan,
    /// The bad luck, in order of time.
    pub faults: Vec<Fault>,
    /// How often executors misbehave, in thousandths of all runs.
    pub bad_runs: u32,
    /// For how long faults come.
    pub safety: Micros,
    /// Only owners keep a picture of the others: what the largest networks cost can be tried without a machine for each.
    #[serde(default)]
    pub lean: bool,
    /// Milliseconds after which a silent leader of a group may be replaced.
    #[serde(default)]
    pub ownership_ms: u64,
    /// Whether every signature is really made and checked, adverts included.
    pub real_signatures: bool,
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodePlan {
    /// Machines of one place are near to each other.
    pub place: u32,
    /// Thousandths of cores.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// How much faster its clock runs, in millionths.
    pub drift: i64,
    /// How far its wall clock is off, in milliseconds.
    pub skew: i64,
    /// How long a sync takes it.
    pub sync: Micros,
    /// What it does to others, if it is not honest.
    pub evil: Option<Evil>,
}

/// A way to be dishonest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evil {
    /// Says things about executions of others, as holder and as owner.
    Forge,
    /// Says again what it heard and said before, to anybody.
    Replay,
    /// Signs two results for one execution.
    Equivocate,
    /// Takes work, beats, and never delivers.
    Withhold,
    /// Claims much more than it has, and fails.
    Boast,
    /// Promises to follow everybody, and says that it holds, or does not hold, what it likes: as one of a group.
    Waver,
}

/// What kind of job it is; as the protocol's, but to be kept in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Kind {
    /// So many slots, each to its end.
    #[default]
    Batch,
    /// So many slots, each kept running.
    Service,
    /// Once on every node that matches.
    Ops,
    /// Kept running on every node that matches.
    Daemon,
}

impl From<Kind> for JobKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Batch => Self::Batch,
            Kind::Service => Self::Service,
            Kind::Ops => Self::Ops,
            Kind::Daemon => Self::Daemon,
        }
    }
}

/// A job, from its user's point of view.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobPlan {
    /// Of which kind.
    #[serde(default)]
    pub kind: Kind,
    /// When its user submits a new version of it, counted from its submission.
    #[serde(default)]
    pub update: Option<Micros>,
    /// Whether only every other node matches.
    #[serde(default)]
    pub picky: bool,
    /// What goes first of one owner's.
    #[serde(default)]
    pub priority: i32,
    /// When it is submitted.
    pub at: Micros,
    /// At which node.
    pub owner: usize,
    /// In how many parts.
    pub slots: u32,
    /// At most one live lease a slot.
    pub exclusive: bool,
    /// Thousandths of cores.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// How long a run takes.
    pub run: Micros,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// How it ends when nothing goes wrong.
    pub ends: Ends,
    /// When its user stops it, counted from its submission.
    pub stop: Option<Micros>,
    /// Whether the results travel inside messages.
    pub inline: bool,
    /// Whether inputs must be looked for.
    pub inputs: bool,
    /// How long it may wait for a place.
    pub queue_timeout: Micros,
    /// How long it may take in all.
    pub total_timeout: Option<Micros>,
    /// Seconds: heartbeat, lease, grace, orphan time.
    pub lease: [u32; 4],
    /// Whether a group keeps it.
    #[serde(default)]
    pub guarded: bool,
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ends {
    /// With this exit code.
    Exit(i32),
    /// By its own fault.
    Trap,
}

/// The links between machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkPlan {
    /// One way within a place.
    pub near: Micros,
    /// One way between places.
    pub far: Micros,
    /// Messages lost, in ten thousandths.
    pub loss: u32,
    /// Messages that come twice, in ten thousandths.
    pub repeat: u32,
    /// Messages that are held up, in ten thousandths.
    pub delay: u32,
    /// How long at most.
    pub delay_max: Micros,
}

/// One piece of bad luck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub at: Micros,
    /// What.
    pub what: What,
}

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The process is killed; what was written stays. It comes back after a while.
    Kill {
        /// Whose.
        node: usize,
        /// For how long it is down.
        down: Micros,
    },
    /// The machine loses power: a suffix of what was not synced is lost.
    PowerLoss {
        /// Whose.
        node: usize,
        /// For how long it is down.
        down: Micros,
    },
    /// The process is killed between two things that it does, so many from now.
    KillAtOutput {
        /// Whose.
        node: usize,
        /// After so many outputs.
        outputs: u32,
        /// For how long it is down.
        down: Micros,
        /// Whether the machine loses power with it.
        power: bool,
    },
    /// The machine is gone for good.
    Gone {
        /// Whose.
        node: usize,
    },
    /// The disk is lost: the node comes back with its key and nothing else.
    Wipe {
        /// Whose.
        node: usize,
        /// For how long it is down.
        down: Micros,
    },
    /// Nothing passes between these and the others.
    Split {
        /// One side.
        side: Vec<usize>,
        /// For how long.
        lasts: Micros,
    },
    /// Nothing passes from these to the others; the other way it does.
    OneWay {
        /// Who is not heard.
        side: Vec<usize>,
        /// For how long.
        lasts: Micros,
    },
    /// What passes to or from this node is held up, and then comes all at once in any order.
    Clog {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: Micros,
    },
    /// The link of one node, often the owner's own, goes down and up.
    Flap {
        /// Whose.
        node: usize,
        /// How often.
        times: u32,
        /// How long each time.
        each: Micros,
    },
    /// Syncs take this much longer.
    SlowDisk {
        /// Whose.
        node: usize,
        /// Times.
        factor: u32,
        /// For how long.
        lasts: Micros,
    },
    /// Nothing can be written: the node does not go on until it can.
    FullDisk {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: Micros,
    },
    /// The wall clock jumps by so many milliseconds.
    ClockJump {
        /// Whose.
        node: usize,
        /// How far.
        by: i64,
    },
    /// The machine sleeps; its clock that counts leases runs on.
    Suspend {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: Micros,
    },
}

impl What {
    /// Its name in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::PowerLoss { .. } => "power loss",
            Self::KillAtOutput { .. } => "kill at output",
            Self::Wipe { .. } => "wipe",
            Self::Split { .. } => "split",
            Self::OneWay { .. } => "one way",
            Self::Clog { .. } => "clog",
            Self::Flap { .. } => "flap",
            Self::SlowDisk { .. } => "slow disk",
            Self::FullDisk { .. } => "full disk",
            Self::ClockJump { .. } => "clock jump",
            Self::Suspend { .. } => "suspend",
            Self::Gone { .. } => "gone",
        }
    }

    /// Every name, in the order of tables.
    pub const NAMES: [&'static str; 13] = [
        "kill",
        "power loss",
        "kill at output",
        "wipe",
        "split",
        "one way",
        "clog",
        "flap",
        "slow disk",
        "full disk",
        "clock jump",
        "suspend",
        "gone",
    ];

    /// The nodes that it strikes.
    #[must_use]
    pub fn nodes(&self) -> &[usize] {
        match self {
            Self::Split { side, .. } | Self::OneWay { side, .. } => side,
            Self::Kill { node, .. }
            | Self::PowerLoss { node, .. }
            | Self::KillAtOutput { node, .. }
            | Self::Wipe { node, .. }
            | Self::Gone { node }
            | Self::Clog { node, .. }
            | Self::Flap { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::FullDisk { node, .. }
            | Self::ClockJump { node, .. }
            | Self::Suspend { node, .. } => std::slice::from_ref(node),
        }
    }
}
