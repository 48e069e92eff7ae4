//! What the machine knows, and where its inputs go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng as _;
use rand::rngs::ChaCha12Rng;
use sha2::{Digest as _, Sha256};

use super::job::{Execution, Job, Slot};
use super::{Input, Output};
use crate::id::{ExecutionId, FencingToken, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::limits::OPEN_JOBS_MAX;
use crate::outbox::Outbox;
use crate::record::{ExecutionRecord, JobRecord, JobStateRecord, Record, Records, TargetRecord};
use crate::time::{Now, Span, Tick};
use crate::timers::Timers;
use crate::view::View;
use crate::wire::bounded::TextMax;
use crate::wire::codec;
use crate::wire::market::{Market, ResultBody};
use crate::wire::signed::Signer;

/// How patient the machine is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Jobs that may be open.
    pub open_jobs_max: usize,
    /// How long the look-up of who holds the inputs may delay the first ask.
    pub providers_wait: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { open_jobs_max: OPEN_JOBS_MAX, providers_wait: Span::secs(2) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Start a round, or end the one that is open.
    Round(JobId),
    /// The job has waited, or taken, too long.
    JobLimit(JobId),
    /// Send the award again.
    Award(ExecutionId),
    /// See whether the peer is still heard.
    Silence(NodeId),
    /// The lease of an exclusive attempt, and the grace after it, are over.
    Lease(ExecutionId),
    /// An attempt has had all the time that it could need.
    Attempt(ExecutionId),
}

/// The requester machine of one node.
#[derive(Debug)]
pub struct State {
    pub(super) signer: Signer,
    pub(super) config: Config,
    pub(super) rng: ChaCha12Rng,
    pub(super) epoch: u64,
    pub(super) counter: u64,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) executions: BTreeMap<ExecutionId, Execution>,
    /// Open rounds by ask.
    pub(super) asks: BTreeMap<FencingToken, JobId>,
    /// Jobs that found no place and try again, the most urgent first.
    pub(super) waiting: BTreeSet<(Reverse<i32>, Tick, JobId)>,
    /// Awards given to each node that have not ended.
    pub(super) own_load: BTreeMap<NodeId, u32>,
    /// What went wrong lately, and with whom.
    pub(super) troubles: super::trouble::Troubles,
    pub(super) peers: BTreeMap<NodeId, super::silence::Heard>,
    pub(super) speculation: super::silence::Bucket,
    /// When this node called last.
    pub(super) called: Option<Tick>,
    /// Owners' tags of whose jobs somebody else may be deciding.
    pub(super) unsure: BTreeSet<[u8; 5]>,
    /// Attempts of jobs of groups that this node is in and does not lead, by the owner's tag.
    pub(super) unled: BTreeMap<[u8; 5], BTreeSet<ExecutionId>>,
    /// Under which epochs it leads groups.
    pub(super) epochs: BTreeMap<[u8; 5], u64>,
    pub(super) timers: Timers<Timer>,
    /// When an input came last: a long pause since then was ours (a suspended machine), not our peers'.
    pub(super) last: Tick,
}

impl State {
    /// The machine of the node that signs with `signer`, in its life `epoch`, from what it remembers. Every holder of an
    /// open attempt is asked how far it is.
    #[must_use]
    pub fn restore(
        signer: Signer,
        epoch: u64,
        seed: [u8; 32],
        config: Config,
        records: Records,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) -> Self {
        let mut state = Self {
            signer,
            config,
            rng: ChaCha12Rng::from_seed(seed),
            epoch,
            counter: 0,
            jobs: BTreeMap::new(),
            executions: BTreeMap::new(),
            asks: BTreeMap::new(),
            waiting: BTreeSet::new(),
            own_load: BTreeMap::new(),
            troubles: super::trouble::Troubles::default(),
            peers: BTreeMap::new(),
            speculation: super::silence::Bucket::new(now.tick),
            called: None,
            unsure: BTreeSet::new(),
            unled: BTreeMap::new(),
            epochs: BTreeMap::new(),
            timers: Timers::default(),
            last: now.tick,
        };
        state.replay(records, false, now, view, out);
        state
    }

    /// Takes up the jobs of these records; `guarded` ones for the group that keeps them.
    pub(super) fn replay(&mut self, records: Records, guarded: bool, now: Now, view: &View, out: &mut Outbox<Output>) {
        let mut open = Vec::new();
        let events: BTreeMap<JobId, u32> = records.events.into_iter().collect();
        for (record, job_state) in records.jobs {
            let state = job_state.map_or(JobState::Pending, |s| s.state);
            if state.is_terminal() {
                continue;
            }
            let past = Span::millis(now.unix.0.saturating_sub(record.created.0));
            let mut job = new_job(&record, now.tick - past);
            job.state = state;
            job.waiting_since = now.tick;
            // It was taken when somebody was there; whoever it was may take a while to be found again.
            job.fitted = true;
            job.events = events.get(&record.id).copied().unwrap_or(0);
            (job.guarded, job.adopted) = (guarded, guarded && record.id.tag() != self.signer.node().tag());
            if let Some(total) = record.total_timeout_ms {
                self.timers.set(Timer::JobLimit(record.id), job.created + Span::millis(total));
            }
            self.jobs.insert(record.id, job);
            open.push(record.id);
        }
        for target in records.targets {
            self.replay_target(target);
        }
        for record in records.executions {
            self.replay_execution(record, now, out);
        }
        for job in open {
            if self.jobs.get(&job).is_some_and(Job::is_done) {
                self.conclude(job, now, view, out);
            } else {
                self.timers.set(Timer::Round(job), now.tick);
            }
        }
    }

    fn replay_target(&mut self, target: TargetRecord) {
        let Some(job) = self.jobs.get_mut(&target.job) else { return };
        let index = target.slot as usize;
        if index >= crate::limits::TARGETS_MAX {
            return;
        }
        if job.slots.len() <= index {
            job.slots.resize(index + 1, Slot::default());
        }
        let slot = &mut job.slots[index];
        (slot.target, slot.unmatched, slot.given_up) = (Some(target.node), target.unmatched, target.given_up);
        if !target.cause.is_empty() {
            job.blame(target.node, target.cause.to_string());
        }
    }

    fn replay_execution(&mut self, record: ExecutionRecord, now: Now, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&record.job) else { return };
        let (kind, version, exclusive) = (job.task.kind, job.task.version, job.strict);
        job.ran = true;
        let Some(slot) = job.slots.get_mut(record.slot as usize) else { return };
        let (id, node, former) = (record.id, record.node, record.version != version);
        slot.tried.insert(node);
        if record.accepted {
            slot.accepted = Some(id);
            return;
        }
        if record.state.is_terminal() {
            let failed = record.state == ExecutionState::Failed;
            if kind.is_endless() {
                slot.past.push_back((id, record.root()));
            } else if failed && kind.is_everywhere() {
                // One that was given up has it in writing; of others it is not known whether they began.
                slot.failures += 1;
                slot.given_up |= !record.never_began();
                job.blame(node, record.message.to_string());
            } else {
                slot.failures += u32::from(failed);
            }
            return;
        }
        // Of several the newest is a copy of those before, which were suspected then.
        for earlier in &slot.live {
            if let Some(execution) = self.executions.get_mut(earlier) {
                execution.suspected = true;
            }
        }
        if former {
            slot.former.insert(id)
        } else {
            slot.live.insert(id)
        };
        // A result without its bytes is asked for again rather than trusted to be fetchable.
        let mut execution = Execution::new(record, None, now.tick);
        execution.called_off = former && exclusive;
        self.executions.insert(id, execution);
        *self.own_load.entry(node).or_default() += 1;
        self.watch(node, now);
        self.arm_lease(id);
        self.arm_attempt(id, now);
        out.now(Output::Send { to: node, message: Market::Query { execution: id } });
    }

    /// When the machine wants to be handed the time next.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now, view: &View, out: &mut Outbox<Output>) {
        self.notice_suspend(now);
        match input {
            Input::Submit(submission) => self.submit(*submission, now, view, out),
            Input::Stop { request, job, reason } => self.stop(request, job, &reason, now, view, out),
            Input::Message { from, message } => {
                self.heard(from, now, view, out);
                self.message(from, message, now, view, out);
            }
            Input::Alive(peer) => self.heard(peer, now, view, out),
            Input::PeerUp(peer) => self.peer_up(peer, now, view, out),
            Input::PeerDown(peer) => self.peer_down(peer, now),
            Input::ViewGrew => self.view_grew(now),
            Input::Providers(job, nodes) => self.providers(job, nodes, now),
            Input::Fetched(execution, result) => self.fetched(execution, result, now, view, out),
            Input::Replicated { job, root, others } => self.replicated(job, root, others, now, view, out),
            Input::Adopt(taken) => self.adopt(*taken, now, view, out),
            Input::Abandon(tag) => self.abandon(&tag),
            Input::Unled(tag, executions) => _ = self.unled.insert(tag, executions),
            Input::Sure(tag, true) => self.sure_again(&tag, now),
            Input::Sure(tag, false) => _ = self.unsure.insert(tag),
            Input::Tick => self.tick(now, view, out),
        }
    }

    fn message(&mut self, from: NodeId, message: Market, now: Now, view: &View, out: &mut Outbox<Output>) {
        match message {
            Market::Bid(bid) => self.bid(from, bid, now, view, out),
            Market::Decline(decline) => self.decline(from, &decline, now, view, out),
            Market::AwardAck { execution } => self.award_ack(from, execution, now, out),
            Market::AwardRefuse { execution, reason } => self.award_refuse(from, execution, &reason, now, view, out),
            Market::Started { execution, ports } => {
                self.phase(from, execution, crate::wire::market::Phase::Running, now, view, out);
                self.opened(from, execution, ports, now, view, out);
            }
            Market::Beat { execution, beat, phase } => self.beat(from, execution, beat, phase, now, view, out),
            Market::Result(result) => self.result(from, result, now, view, out),
            Market::CancelAck { execution } => self.cancel_ack(from, execution, now, view, out),
            // What only a holder is told goes to the compute machine.
            Market::Ask(_)
            | Market::BidRelease { .. }
            | Market::Award(_)
            | Market::BeatAck { .. }
            | Market::Query { .. }
            | Market::ResultAck { .. }
            | Market::Verdict { .. }
            | Market::Cancel { .. }
            | Market::Release { .. }
            // What members of groups say goes to the guardian machine.
            | Market::Group(_) => {}
        }
    }

    fn tick(&mut self, now: Now, view: &View, out: &mut Outbox<Output>) {
        while let Some(timer) = self.timers.pop_due(now.tick) {
            match timer {
                Timer::Round(job) => self.round_due(job, now, view, out),
                Timer::JobLimit(job) => {
                    self.fail(job, "the job's time is over (TotalTimeout)".into(), now, view, out);
                }
                Timer::Award(execution) => self.award_again(execution, now, out),
                Timer::Silence(peer) => self.silence_due(peer, now, view, out),
                Timer::Lease(execution) => self.lease_over(execution, now, view, out),
                Timer::Attempt(execution) => self.attempt_over(execution, now, view, out),
            }
        }
    }

    /// Notes a new state of a job that goes on.
    pub(super) fn set_state(&mut self, id: JobId, state: JobState, message: &str, now: Now, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state == state {
            return;
        }
        job.state = state;
        let record = JobStateRecord { id, state, message: TextMax::truncated(message), modified: now.unix };
        out.now(Output::Persist(Record::JobState(record)));
    }

    /// The next token for this job's awards. Whoever led it before gave none of this epoch.
    pub(super) fn next_token(&mut self, job: &JobId) -> FencingToken {
        self.counter += 1;
        let epoch = self.epochs.get(&job.tag()).copied().filter(|_| self.jobs.get(job).is_some_and(|job| job.guarded));
        FencingToken { epoch: epoch.unwrap_or(self.epoch), counter: self.counter }
    }

    /// Whether somebody else decides on this attempt, or may: then nothing is said of it here.
    pub(super) fn is_unled(&self, execution: &ExecutionId) -> bool {
        self.unled.values().any(|executions| executions.contains(execution))
    }

    /// Peers with which attempts are open, which should be heard often.
    pub fn holders(&self) -> impl Iterator<Item = NodeId> {
        self.own_load.keys().copied()
    }

    /// The jobs that are open.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    /// Whether this job is open.
    #[must_use]
    pub fn has_job(&self, job: &JobId) -> bool {
        self.jobs.contains_key(job)
    }

    /// Whether something is being asked for, awarded, run elsewhere, fetched: what a simulator wants to have tried.
    #[must_use]
    pub fn stages(&self) -> [bool; 4] {
        let any = |wanted: fn(&Execution) -> bool| self.executions.values().any(wanted);
        [
            self.jobs.values().any(|job| job.round.is_some()),
            any(|execution| execution.award.is_some()),
            any(|execution| execution.phase == Some(crate::wire::market::Phase::Running) && execution.result.is_none()),
            any(|execution| execution.result.is_some()),
        ]
    }

    /// How many jobs are open.
    #[must_use]
    pub fn open_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the books agree with each other.
    ///
    /// # Errors
    /// With what is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut load: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (id, execution) in &self.executions {
            let record = &execution.record;
            let slot = self.jobs.get(&record.job).and_then(|job| job.slots.get(record.slot as usize));
            if !slot.is_some_and(|slot| slot.live.contains(id) || slot.former.contains(id)) {
                return Err(format!("{id} is live in no slot"));
            }
            *load.entry(record.node).or_default() += 1;
        }
        if load != self.own_load {
            return Err(format!("awards out: {load:?}, the books say {:?}", self.own_load));
        }
        for job in self.jobs.values() {
            for slot in &job.slots {
                let trusted = slot.live.iter().filter(|id| !self.executions[*id].suspected).count();
                if trusted > 1 || slot.live.iter().any(|id| !self.executions.contains_key(id)) {
                    return Err(format!("{} has {trusted} live awards in one slot", job.id));
                }
                if slot.accepted.is_some() && !slot.live.is_empty() {
                    return Err(format!("{} goes on after its slot was filled", job.id));
                }
                let elsewhere = |id: &ExecutionId| Some(self.executions[id].record.node) != slot.target;
                if slot.target.is_some() && slot.all_live().any(|id| elsewhere(&id)) {
                    return Err(format!("{} runs on another node than is the slot's", job.id));
                }
            }
        }
        Ok(())
    }

    /// The result of a live attempt, for tests.
    #[must_use]
    pub fn result_of(&self, execution: &ExecutionId) -> Option<&ResultBody> {
        self.executions.get(execution)?.result.as_ref()
    }

    /// What marks an award of ours.
    pub(super) fn award_mac(&self, execution: &ExecutionId) -> [u8; 16] {
        self.signer.mac(&codec::encode(execution))
    }
}

/// The job of this record, with its slots if their number is given.
pub(super) fn new_job(record: &JobRecord, created: Tick) -> Job {
    let slots = if record.task.kind.is_everywhere() { 0 } else { record.task.slots };
    Job {
        id: record.id,
        task: record.task.clone(),
        spec_hash: Sha256::digest(&*record.spec).into(),
        lease: record.lease,
        strict: record.strict,
        state: JobState::Pending,
        created,
        created_at: record.created,
        waiting_since: created,
        fitted: false,
        unfit_since: None,
        queue_timeout: Span::millis(record.queue_timeout_ms),
        ran: false,
        only_here: record.only_here,
        slots: vec![Slot::default(); slots as usize],
        near: BTreeSet::new(),
        near_until: None,
        round: None,
        called: None,
        yielded: false,
        pause: Span::ZERO,
        unfit: BTreeMap::new(),
        causes: BTreeMap::new(),
        cause_order: Vec::new(),
        events: 0,
        guarded: false,
        replicas: crate::job::replicas_in(&record.spec),
        adopted: false,
        unheld: BTreeSet::new(),
        answer: None,
    }
}
