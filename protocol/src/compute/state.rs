//! What the machine knows, and where its inputs go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::awards::word_length;
use super::{Holdings, Input, Load, Output, Policy, Run};
use crate::id::{BootId, ExecutionId, NodeId};
use crate::job::format_bytes;
use crate::limits::{HOLDINGS_MAX, PORTS_MAX, RESEND_MAX, RESEND_MIN, RUN_RESOURCES_MIN};
use crate::outbox::Outbox;
use crate::record::{HeldRecord, Record};
use crate::time::{Now, Span, Tick};
use crate::timers::Timers;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::group::Charter;
use crate::wire::market::{Ask, Market, Outcome, Phase};
use crate::wire::signed::Signer;
use crate::wire::task::{Engines, OpenPort, Resources, Task};

/// What the operator lets this node do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Engines that work here.
    pub engines: Engines,
    /// What jobs may use in all.
    pub total: Resources,
    /// What constraints are held against.
    pub labels: BTreeMap<String, String>,
    /// Awards that may wait.
    pub queue_max: usize,
    /// Awards that one owner may have waiting or running.
    pub per_owner_max: usize,
    /// Local paths that tasks may read or write: (prefix, writable).
    pub local_paths: Vec<(String, bool)>,
    /// The longest that an unheard award or result is kept.
    pub orphan_max: Span,
    /// The longest that a task may run.
    pub timeout_max: Span,
    /// The operator's rules.
    pub policy: Policy,
}

/// A bid that stands.
#[derive(Debug, Clone)]
pub(super) struct StandingBid {
    pub(super) owner: NodeId,
    pub(super) job: crate::id::JobId,
    pub(super) task_digest: [u8; 32],
    pub(super) places: u32,
    pub(super) image: Option<[u8; 32]>,
    pub(super) sent: Tick,
}

/// An award, from acceptance to release.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) record: HeldRecord,
    /// The task, until it is started.
    pub(super) task: Option<Task>,
    pub(super) image: Option<[u8; 32]>,
    pub(super) resources: Resources,
    pub(super) exclusive: bool,
    /// Whether it is to go on until it is told to stop.
    pub(super) endless: bool,
    /// What comes first of its owner's that wait.
    pub(super) priority: i32,
    /// Why it was stopped for this node's own sake, if it was.
    pub(super) evicted: Option<&'static str>,
    pub(super) phase: Phase,
    pub(super) started: Option<Tick>,
    /// Where it answers.
    pub(super) ports: ListMax<OpenPort, PORTS_MAX>,
    /// From when the owner's word counts: the sending of the bid or beat that it last answered.
    pub(super) word_from: Tick,
    /// The number of its last beat. The upper half is this life's: what answers a beat of another one answers none of this.
    pub(super) beat: u64,
    /// The last beats and when they were sent.
    pub(super) beats: VecDeque<(u64, Tick)>,
    /// Called off: by its owner, or because nothing was heard of it.
    pub(super) cancelled: bool,
    pub(super) expired: bool,
    pub(super) resend: Span,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Consider(u64),
    Bid(u64),
    Beat(ExecutionId),
    Lease(ExecutionId),
    Resend(ExecutionId),
}

/// The compute machine of one node.
#[derive(Debug)]
pub struct State {
    pub(super) signer: Signer,
    pub(super) boot: BootId,
    /// When this life began.
    pub(super) since: Tick,
    pub(super) config: Config,
    pub(super) accepting: Result<(), String>,
    /// Whether the operator is emptying the node.
    pub(super) draining: bool,
    pub(super) next_bid: u64,
    pub(super) bids: BTreeMap<u64, StandingBid>,
    /// Asks that are being looked at, and whose they are.
    pub(super) considering: BTreeMap<u64, (NodeId, Ask)>,
    pub(super) held: BTreeMap<ExecutionId, Held>,
    pub(super) queue: VecDeque<ExecutionId>,
    pub(super) used: Resources,
    pub(super) holdings: Holdings,
    /// Who keeps the jobs of owners for whom something is held.
    pub(super) wards: super::wards::Wards,
    /// How long runs take, in milliseconds, as a moving average.
    pub(super) run_ms: u64,
    pub(super) timers: Timers<Timer>,
}

impl State {
    /// The machine of the node that signs with `signer`, in its life `boot`, from what it remembers. Awards that were
    /// running when the node went down go on if they are `left`, running, and their owners' word still counts; else they
    /// have failed by the node's doing. Finished ones wait for their owners.
    #[must_use]
    pub fn restore(
        signer: Signer,
        boot: BootId,
        config: Config,
        (held, wards): (Vec<HeldRecord>, Vec<Charter>),
        left: Vec<Run>,
        now: Now,
        out: &mut Outbox<Output>,
    ) -> Self {
        let mut state = Self {
            signer,
            boot,
            since: now.tick,
            config,
            accepting: Ok(()),
            draining: false,
            next_bid: 1,
            bids: BTreeMap::new(),
            considering: BTreeMap::new(),
            held: BTreeMap::new(),
            queue: VecDeque::new(),
            used: Resources::default(),
            holdings: Holdings::default(),
            wards: super::wards::Wards::new(wards),
            run_ms: 100,
            timers: Timers::default(),
        };
        let mut left: BTreeMap<ExecutionId, Run> = left.into_iter().map(|run| (run.execution, run)).collect();
        for record in held {
            match left.remove(&record.execution).filter(|run| state.may_go_on(&record, run, now)) {
                Some(run) => state.resume(record, run, now, out),
                None => state.readopt(record, now, out),
            }
        }
        state
    }

    /// Whether a run that was left running is the one that the record is of, and may have what it has.
    fn may_go_on(&self, record: &HeldRecord, run: &Run, now: Now) -> bool {
        // Its owner may be another by now.
        let same = (run.job, run.slot) == (record.job, record.slot);
        let resources = run.task.resources.at_least(&RUN_RESOURCES_MIN);
        let room = resources.fits(&self.config.total.minus(&self.used));
        same && room && record.result.is_none() && run.until > now.tick
    }

    fn resume(&mut self, record: HeldRecord, run: Run, now: Now, out: &mut Outbox<Output>) {
        let execution = record.execution;
        let mut held = Held {
            image: run.image,
            resources: run.task.resources.at_least(&RUN_RESOURCES_MIN),
            exclusive: run.task.exclusive,
            endless: run.task.kind.is_endless(),
            phase: Phase::Running,
            started: Some(now.tick),
            ..Held::new(record, self.boot, now.tick)
        };
        let length = word_length(&held, self.config.orphan_max);
        held.word_from = Tick(run.until.0.saturating_sub(length.0));
        self.used = self.used.plus(&held.resources);
        self.held.insert(execution, held);
        self.arm_lease(execution);
        // Its owner has heard nothing since the node went down.
        self.timers.set(Timer::Beat(execution), now.tick);
        out.now(Output::Resume(Box::new(run)));
    }

    /// Puts an award into the queue: behind those that came before it, but before those of the same owner that have less
    /// priority, in places that are that owner's anyway.
    pub(super) fn enqueue(&mut self, execution: ExecutionId) {
        self.queue.push_back(execution);
        let Some(owner) = self.held.get(&execution).map(|held| held.record.owner) else { return };
        let of_owner = |id: &ExecutionId| self.held.get(id).filter(|held| held.record.owner == owner);
        let mut own: Vec<(i32, ExecutionId)> =
            self.queue.iter().filter_map(|id| Some((of_owner(id)?.priority, *id))).collect();
        own.sort_by_key(|(priority, _)| Reverse(*priority));
        let places: Vec<usize> = (0..self.queue.len()).filter(|at| of_owner(&self.queue[*at]).is_some()).collect();
        for (at, (_, id)) in places.into_iter().zip(own) {
            self.queue[at] = id;
        }
    }

    /// The operator empties the node, or takes that back: nothing new is taken, what has an end runs to it, and what has
    /// none is given back to its owner, who has it run elsewhere.
    fn drain(&mut self, draining: bool, now: Now, out: &mut Outbox<Output>) {
        self.draining = draining;
        if !draining {
            return;
        }
        // What was offered is not any more.
        for bid in std::mem::take(&mut self.bids).into_keys() {
            self.timers.cancel(&Timer::Bid(bid));
        }
        let endless: Vec<ExecutionId> = self.held.iter().filter(|(_, held)| held.endless).map(|(id, _)| *id).collect();
        for execution in endless {
            self.evict(execution, "the node is being drained", now, out);
        }
    }

    /// Gives an endless run back to its owner.
    pub(super) fn evict(&mut self, execution: ExecutionId, why: &'static str, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution).filter(|held| !held.cancelled && held.evicted.is_none()) else {
            return;
        };
        held.evicted = Some(why);
        if held.running() {
            self.stop_run(execution, out);
        } else if held.record.result.is_none() {
            self.queue.retain(|queued| *queued != execution);
            self.ended(execution, super::Ended::bare(Outcome::Cancelled), now, out);
        }
    }

    /// What runs.
    pub fn runs(&self) -> impl Iterator<Item = ExecutionId> {
        self.held.iter().filter(|(_, held)| held.running()).map(|(execution, _)| *execution)
    }

    fn readopt(&mut self, record: HeldRecord, now: Now, out: &mut Outbox<Output>) {
        let (execution, finished, withheld) = (record.execution, record.result.is_some(), record.withheld);
        let phase = if withheld { Phase::Withheld } else { Phase::Ended };
        let held = Held { phase, ..Held::new(record, self.boot, now.tick) };
        self.held.insert(execution, held);
        self.arm_lease(execution);
        if withheld {
            self.timers.set(Timer::Beat(execution), now.tick);
        } else if finished {
            self.timers.set(Timer::Resend(execution), now.tick + RESEND_MIN);
        } else {
            let cause = TextMax::truncated("the node went down while it ran this");
            let ended = super::Ended::bare(Outcome::NodeFailed { began: true, cause });
            self.ended(execution, ended, now, out);
        }
    }

    /// When the machine wants to be handed the time next.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Outbox<Output>) {
        match input {
            Input::Message { from, message } => self.message(from, message, now, out),
            Input::Tick => self.tick(now, out),
            Input::PeerUp(peer) => self.peer_up(peer, now),
            Input::Phase(execution, phase) => self.phase(execution, phase, now, out),
            Input::Open(execution, ports) => self.opened(execution, ports),
            Input::Ended(execution, ended) => self.ended(execution, *ended, now, out),
            Input::Holding(holding) => {
                let known = self.holdings.of_kind(holding.private);
                known.insert(holding.root, holding);
                while known.len() > HOLDINGS_MAX {
                    known.pop_first();
                }
            }
            Input::Unheld(holding) => _ = self.holdings.of_kind(holding.private).remove(&holding.root),
            Input::LetOut { execution, granted } => self.let_out(execution, granted, now, out),
            Input::Considered(number, found) => self.considered(number, found, now, out),
            Input::Accepting(accepting) => self.accepting = accepting,
            Input::Drain(draining) => self.drain(draining, now, out),
        }
    }

    fn message(&mut self, from: NodeId, message: Market, now: Now, out: &mut Outbox<Output>) {
        self.correct(from, &message, out);
        match message {
            Market::Ask(ask) => self.ask(from, ask, now, out),
            Market::BidRelease { boot, bid } => self.bid_release(from, boot, bid),
            Market::Award(award) => self.award(from, award, now, out),
            Market::BeatAck { execution, beat } => self.beat_ack(from, execution, beat, out),
            Market::Query { execution } => self.query(from, execution, now, out),
            Market::ResultAck { execution } => self.result_ack(from, execution, now),
            Market::Cancel { execution, .. } => self.cancel(from, execution, now, out),
            Market::Release { execution } => self.release(from, execution, out),
            // What only an owner is told goes to the requester machine; a verdict asks for nothing.
            Market::Verdict { .. }
            | Market::Bid(_)
            | Market::Decline(_)
            | Market::AwardAck { .. }
            | Market::AwardRefuse { .. }
            | Market::Started { .. }
            | Market::Beat { .. }
            | Market::Result(_)
            | Market::CancelAck { .. } => {}
            Market::Group(group) => self.group(from, *group, now, out),
        }
    }

    fn tick(&mut self, now: Now, out: &mut Outbox<Output>) {
        while let Some(timer) = self.timers.pop_due(now.tick) {
            match timer {
                Timer::Consider(number) => _ = self.considering.remove(&number),
                Timer::Bid(bid) => _ = self.bids.remove(&bid),
                Timer::Beat(execution) => self.beat(execution, now, out),
                Timer::Lease(execution) => self.lease_ended(execution, now, out),
                Timer::Resend(execution) => self.resend(execution, now, out),
            }
        }
    }

    /// Whoever comes back may have missed what was said meanwhile.
    fn peer_up(&mut self, peer: NodeId, now: Now) {
        for (execution, held) in &mut self.held {
            if held.record.owner == peer {
                held.resend = RESEND_MIN;
                let timer =
                    if held.phase == Phase::Ended { Timer::Resend(*execution) } else { Timer::Beat(*execution) };
                self.timers.set_earlier(timer, now.tick);
            }
        }
    }

    pub(super) fn resend(&mut self, execution: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution) else { return };
        let Some(result) = held.record.result.as_ref().filter(|_| !held.record.withheld) else { return };
        out.now(Output::Send { to: held.record.owner, message: Market::Result(result.clone()) });
        let (job, unheard) = (held.record.job, held.resend > RESEND_MIN);
        held.resend = Span(held.resend.0.saturating_mul(2)).min(RESEND_MAX);
        self.timers.set(Timer::Resend(execution), now.tick + held.resend);
        if unheard {
            self.seek(&job, out);
        }
    }

    /// Forgets an award and everything kept for it.
    pub(super) fn forget(&mut self, execution: ExecutionId, out: &mut Outbox<Output>) {
        let Some(held) = self.held.remove(&execution) else { return };
        self.queue.retain(|queued| *queued != execution);
        if held.running() {
            self.used = self.used.minus(&held.resources);
        }
        for timer in [Timer::Beat(execution), Timer::Lease(execution), Timer::Resend(execution)] {
            self.timers.cancel(&timer);
        }
        out.now(Output::Persist(Record::Forget(execution)));
        out.now(Output::Unpin(execution));
    }

    /// Peers with which awards are open, which should be heard often.
    pub fn owners(&self) -> impl Iterator<Item = NodeId> {
        self.held.values().filter(|held| held.phase != Phase::Ended).map(|held| held.record.owner)
    }

    /// How busy the machine is.
    #[must_use]
    pub fn load(&self) -> Load {
        let share = |used: u64, total: u64| used.saturating_mul(100).checked_div(total).unwrap_or(0);
        let queued = self.queue.len() as u64;
        let busy = share(self.used.cpu_milli, self.config.total.cpu_milli)
            .max(share(self.used.memory, self.config.total.memory));
        Load {
            running: u32::try_from(self.held.values().filter(|held| held.running()).count()).unwrap_or(u32::MAX),
            queued: u32::try_from(queued).unwrap_or(u32::MAX),
            percent: u16::try_from(busy.saturating_add(queued * 10)).unwrap_or(u16::MAX),
            available: self.config.total.minus(&self.used),
        }
    }

    /// Everything held, and for whom.
    pub fn held(&self) -> impl Iterator<Item = (&ExecutionId, &NodeId)> {
        self.held.iter().map(|(execution, held)| (execution, &held.record.owner))
    }

    /// How many awards and results are held.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// What is in use; for checks of the capacity invariant.
    #[must_use]
    pub fn used(&self) -> Resources {
        self.used
    }

    /// Whether what is in use is what the running awards use, and no more than there is.
    ///
    /// # Errors
    /// With the difference, in words.
    pub fn check(&self) -> Result<(), String> {
        let running = self.held.values().filter(|held| held.running());
        let sum = running.fold(Resources::default(), |sum, held| sum.plus(&held.resources));
        if sum != self.used {
            return Err(format!("running awards use {sum:?}, the books say {:?}", self.used));
        }
        if !self.used.fits(&self.config.total) {
            return Err(format!("{} of memory in use, more than there is", format_bytes(self.used.memory)));
        }
        if self.queue.len() > self.config.queue_max {
            return Err(format!("{} awards wait", self.queue.len()));
        }
        Ok(())
    }
}

impl Held {
    /// An award of which nothing is known but what was written.
    pub(super) fn new(record: HeldRecord, boot: BootId, word_from: Tick) -> Self {
        Self {
            record,
            task: None,
            image: None,
            resources: Resources::default(),
            // Whatever is said about it waits for the disk.
            exclusive: true,
            endless: false,
            priority: 0,
            evicted: None,
            phase: Phase::Ended,
            started: None,
            ports: ListMax::default(),
            word_from,
            beat: boot.0 << 32,
            beats: VecDeque::new(),
            cancelled: false,
            expired: false,
            resend: RESEND_MIN,
        }
    }

    pub(super) fn running(&self) -> bool {
        self.started.is_some() && self.phase < Phase::Withheld
    }
}
