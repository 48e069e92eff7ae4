//! One machine of the trial: its clocks, its disk, its view, and the two protocol machines that run on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bacnode_protocol::compute::{self, Run};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::time::{Now, Tick, UnixMillis};
use bacnode_protocol::view::View;
use bacnode_protocol::wire::advert::SignedAdvert;
use bacnode_protocol::wire::market::Market;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::wire::task::Resources;
use bacnode_protocol::{guardian, requester};

use super::disk::Disk;
use crate::plan::{Evil, Micros, NodePlan};

/// Unix time at the beginning of every trial, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

/// A machine's clocks.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// What its own counter showed at the beginning.
    offset: u64,
    drift: i64,
    pub(crate) skew: i64,
}

impl Clock {
    pub(crate) fn now(&self, at: Micros) -> Now {
        let unix = EPOCH.saturating_add(at / 1_000).saturating_add_signed(self.skew);
        Now { tick: self.tick(at), unix: UnixMillis(unix) }
    }

    /// What the machine's counter shows at the true time `at`.
    pub(crate) fn tick(&self, at: Micros) -> Tick {
        let gained = i128::from(at) * i128::from(self.drift) / 1_000_000;
        Tick((i128::from(self.offset) + i128::from(at) + gained).max(0) as u64)
    }

    /// The first true time at which the counter shows `tick`, or later.
    pub(crate) fn when(&self, tick: Tick) -> Micros {
        let since = i128::from(tick.0) - i128::from(self.offset);
        (since * 1_000_000 / i128::from(1_000_000 + self.drift)).max(0) as u64 + 1
    }
}

/// A run in the machine's executor.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) run: Run,
    /// Told to stop.
    pub(crate) stopping: bool,
    /// Names this run among all of the trial, so that an end that is late does not end another.
    pub(crate) serial: u64,
    /// Until when its owner's word lasts, by its machine's clock.
    pub(crate) until: bacnode_protocol::time::Tick,
    /// Stopped by the executor itself; the machine will hear of it.
    pub(crate) dead: bool,
    /// Its machine slept through its end.
    pub(crate) excused: bool,
}

/// One machine.
pub(crate) struct Host {
    pub(crate) plan: NodePlan,
    pub(crate) signer: Signer,
    pub(crate) id: NodeId,
    pub(crate) total: Resources,
    pub(crate) clock: Clock,
    pub(crate) up: bool,
    /// Rises at each start and each crash: what belongs to an earlier life is void.
    pub(crate) life: u64,
    pub(crate) disk: Disk,
    /// Syncs take this much longer.
    pub(crate) slow: u32,
    /// Until when nothing goes on: asleep, or a full disk.
    pub(crate) frozen_until: Micros,
    pub(crate) view: View,
    pub(crate) requester: Option<requester::State>,
    pub(crate) compute: Option<compute::State>,
    pub(crate) guardian: Option<guardian::State>,
    /// Jobs that a group is to keep, from their first record on.
    pub(crate) guarding: BTreeSet<JobId>,
    /// What waits for another disk, too, by the owner's tag and the entry that it waits for.
    pub(crate) quorum: BTreeMap<[u8; 5], VecDeque<(u64, requester::Output)>>,
    /// When the machines are woken next.
    pub(crate) wake_at: Option<Micros>,
    pub(crate) runs: BTreeMap<ExecutionId, Running>,
    /// Results kept for their owners.
    pub(crate) kept: BTreeMap<ExecutionId, Cid>,
    /// Results held as an owner.
    pub(crate) held: BTreeSet<ExecutionId>,
    pub(crate) adverts: u64,
    pub(crate) advert: Option<SignedAdvert>,
    /// It is killed after so many more outputs; with a loss of power if so.
    pub(crate) fuse: Option<(u32, Micros, bool)>,
    /// The highest epoch that it ever had.
    pub(crate) epoch_max: u64,
    /// It lost its disk while its clock was behind: its adverts count less than those of its former life for a while.
    pub(crate) behind: bool,
    /// What a dishonest node remembers.
    pub(crate) memory: Vec<Market>,
}

impl Host {
    pub(crate) fn new(plan: NodePlan, signer: Signer, offset: u64) -> Self {
        let factor = if plan.evil == Some(Evil::Boast) { 16 } else { 1 };
        let total = Resources { cpu_milli: plan.cpu * factor, memory: plan.memory * factor, disk: 10 << 30, gpu: 0 };
        let clock = Clock { offset, drift: plan.drift, skew: plan.skew };
        let view = View::new(signer.network());
        Self {
            id: signer.node(),
            plan,
            signer,
            total,
            clock,
            up: false,
            life: 0,
            disk: Disk::default(),
            slow: 1,
            frozen_until: 0,
            view,
            requester: None,
            compute: None,
            guardian: None,
            guarding: BTreeSet::new(),
            quorum: BTreeMap::new(),
            wake_at: None,
            runs: BTreeMap::new(),
            kept: BTreeMap::new(),
            held: BTreeSet::new(),
            adverts: 0,
            advert: None,
            fuse: None,
            epoch_max: 0,
            behind: false,
            memory: Vec::new(),
        }
    }

    pub(crate) fn is_honest(&self) -> bool {
        self.plan.evil.is_none()
    }

    /// When the machines want to be woken, in true time.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        let requester = self.requester.as_ref().and_then(requester::State::deadline);
        let compute = self.compute.as_ref().and_then(compute::State::deadline);
        let guardian = self.guardian.as_ref().and_then(guardian::State::deadline);
        requester.into_iter().chain(compute).chain(guardian).min().map(|tick| self.clock.when(tick))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.id.short())
    }
}
