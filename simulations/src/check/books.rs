//! The checker's own books, from what is sent, started, told and written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bacnode_protocol::compute::{self, Run};
use bacnode_protocol::id::{ExecutionId, FencingToken, JobId, NodeId};
use bacnode_protocol::job::state::{ExecutionState, JobState};
use bacnode_protocol::limits::{BID_TTL, HELD_MAX};
use bacnode_protocol::outbox::When;
use bacnode_protocol::record::{ExecutionRecord, JobEvent, JobStateRecord, Record, What};
use bacnode_protocol::requester::{self, Answer};
use bacnode_protocol::time::{Span, Tick};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::market::{Award, Bid, Market, RESULT_BODY_BYTES_MAX, ResultBody};
use bacnode_protocol::wire::signed::{Domain, verify};
use bacnode_protocol::wire::task::Resources;

use super::{Invariant, Violation};
use crate::world::{Disk, Host};

/// How long a run may go on after it was told to stop.
const KILL_GRACE: Span = Span::millis(1_500);
/// Awards that are worth forging something about.
const RECENT_MAX: usize = 16;
/// The longest that any trial's operator keeps what nobody asks for.
pub(crate) const ORPHAN_MAX: Span = Span::secs(3_600);
/// The most awards that wait at a node, of one owner and of all.
pub(crate) const QUEUE_MAX: u32 = 32;
/// The longest that any trial's operator lets a task run.
pub(crate) const TIMEOUT_MAX: Span = Span::secs(3_600);

/// An award of an honest owner.
#[derive(Debug, Clone)]
struct Sent {
    award: Award,
    to: NodeId,
}

/// How long an owner's word lasts for a holder.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// From when it counts: the sending of the bid or beat that was answered.
    from: Tick,
    /// How long a run may go on, and its result is kept at least.
    lasts: Span,
}

/// Everything that is remembered to tell right from wrong.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) violation: Option<Violation>,
    now: u64,
    awards: BTreeMap<ExecutionId, Sent>,
    /// The last of them.
    recent: VecDeque<ExecutionId>,
    bids: BTreeMap<(usize, u64, u64), (NodeId, Tick)>,
    beats: BTreeMap<(usize, ExecutionId, u64), Tick>,
    words: BTreeMap<(usize, ExecutionId), Word>,
    running: BTreeMap<(JobId, u32), BTreeSet<(usize, ExecutionId)>>,
    tokens: BTreeMap<(usize, JobId), FencingToken>,
    accepted: BTreeMap<(JobId, u32), ExecutionId>,
    pub(crate) ended: BTreeMap<JobId, (JobState, String)>,
    /// Of these, those whose end was told, and not only found in records.
    told_ended: BTreeSet<JobId>,
    pub(crate) acknowledged: BTreeSet<JobId>,
    stopped: BTreeSet<JobId>,
    let_go: BTreeSet<(usize, ExecutionId)>,
    /// Owners that lost their disks, and what they had promised with it.
    pub(crate) wiped: BTreeSet<usize>,
    /// Who leads, or led, the jobs with an owner's tag.
    leaders: BTreeMap<[u8; 5], BTreeSet<NodeId>>,
    /// Whether one of a group lies. Groups bear members that crash, and no others: then it is held only that whoever is
    /// accused lied.
    pub(crate) wavering: bool,
}

impl Books {
    pub(crate) fn at(&mut self, now: u64) {
        self.now = now;
    }

    pub(crate) fn fail(&mut self, invariant: Invariant, text: impl Into<String>) {
        if self.wavering && invariant != Invariant::S15OnlyLiarsAreAccused {
            return;
        }
        let violation = Violation { invariant, at: self.now, text: text.into() };
        self.violation.get_or_insert(violation);
    }

    /// What binds must wait for the disk.
    pub(crate) fn queued_requester(&mut self, when: When, output: &requester::Output) {
        let binds = match output {
            requester::Output::Send { message: Market::Award(award), .. } => award.task.exclusive,
            requester::Output::Send { message: Market::Verdict { .. }, .. }
            | requester::Output::Answer(_, Answer::Accepted { .. } | Answer::Unchanged(_) | Answer::Stopped) => true,
            requester::Output::Tell(_, _, event) => {
                matches!(event.what, What::Ended { .. } | What::Accepted { .. })
            }
            _ => false,
        };
        if binds && when == When::Now {
            self.fail(Invariant::S13PersistBeforeSend, format!("said before it was written: {output:?}"));
        }
    }

    /// The same for a compute machine; `exclusive` tells of which executions.
    pub(crate) fn queued_compute(&mut self, when: When, output: &compute::Output) {
        let exclusive =
            |execution: &ExecutionId| self.awards.get(execution).is_some_and(|sent| sent.award.task.exclusive);
        let binds = match output {
            compute::Output::Send { message: Market::AwardAck { execution }, .. } => exclusive(execution),
            compute::Output::Send { message: Market::CancelAck { .. }, .. } => true,
            compute::Output::Start(run) => run.task.exclusive,
            _ => false,
        };
        if binds && when == When::Now {
            self.fail(Invariant::S13PersistBeforeSend, format!("done before it was written: {output:?}"));
        }
    }

    /// A deferred output is done: is what it relies on on the disk?
    pub(crate) fn released(&mut self, step: u64, synced: u64) {
        if step > synced {
            self.fail(Invariant::S13PersistBeforeSend, format!("step {step} is done, the disk has {synced}"));
        }
    }

    pub(crate) fn written(&mut self, host: &Host, index: usize, record: &Record) {
        let Record::Execution(record) = record else { return };
        if record.state == ExecutionState::Awarded && !self.wiped.contains(&index) {
            let key = (index, record.job);
            let newest = self.tokens.get(&key).copied();
            if newest.is_some_and(|newest| record.token <= newest) {
                self.fail(Invariant::S1SlotUniqueness, format!("token {:?} after {newest:?}", record.token));
            }
            self.tokens.insert(key, record.token);
        }
        if record.accepted {
            self.check_binding(host, record);
        }
    }

    fn check_binding(&mut self, host: &Host, record: &bacnode_protocol::record::ExecutionRecord) {
        let bound = || {
            let (bytes, signature) = record.result.as_ref()?;
            let body: ResultBody = codec::decode(bytes, RESULT_BODY_BYTES_MAX).ok()?;
            let award = self.awards.get(&record.id)?;
            let signed = verify(Domain::Result, &host.signer.network(), &record.node, bytes, signature);
            let same = body.execution == record.id
                && body.job == record.job
                && body.slot == record.slot
                && body.maker == record.node
                && award.to == record.node
                && body.mac == award.award.mac;
            Some(signed && same)
        };
        if bound() != Some(true) {
            self.fail(Invariant::S6ResultBinding, format!("{} was accepted from {}", record.id, record.node.short()));
        }
    }

    /// A message leaves an honest node.
    pub(crate) fn sent(&mut self, host: &Host, index: usize, to: &NodeId, message: &Market) {
        match message {
            Market::Award(award) => {
                if self.stopped.contains(&award.job) || self.ended.contains_key(&award.job) {
                    self.fail(Invariant::S10CancelWins, format!("{} is awarded after its end", award.job));
                }
                let sent = Sent { award: award.clone(), to: *to };
                if self.awards.insert(award.execution, sent).is_none() {
                    self.recent.push_back(award.execution);
                    if self.recent.len() > RECENT_MAX {
                        self.recent.pop_front();
                    }
                }
            }
            Market::Bid(Bid { boot, bid, .. }) => {
                let tick = host.clock.tick(self.now);
                self.bids.insert((index, boot.0, *bid), (*to, tick));
            }
            Market::Beat { execution, beat, .. } => {
                self.beats.insert((index, *execution, *beat), host.clock.tick(self.now));
            }
            _ => {}
        }
    }

    /// A message comes to an honest node.
    pub(crate) fn delivered(&mut self, index: usize, from: &NodeId, message: &Market) {
        match message {
            Market::Award(award) => {
                // The first time it comes; what is said again changes nothing.
                let bid = self.bids.get(&(index, award.boot.0, award.bid)).filter(|(owner, _)| owner == from);
                let Some((_, at)) = bid.copied() else { return };
                let length = Span::millis(u64::from(award.lease.length_ms));
                let kept = Span::millis(u64::from(award.lease.orphan_ms.max(award.lease.length_ms))).min(ORPHAN_MAX);
                let lasts = if award.task.exclusive { length } else { kept };
                self.words.entry((index, award.execution)).or_insert(Word { from: at, lasts });
            }
            Market::BeatAck { execution, beat } if self.is_owner(from, execution) => {
                // Of beats long past a holder need not know when it sent them.
                let of_run = (index, *execution, 0)..=(index, *execution, u64::MAX);
                let newest = self.beats.range(of_run).next_back().map_or(0, |((_, _, newest), _)| *newest);
                if newest.saturating_sub(*beat) >= 16 {
                    return;
                }
                if let Some(sent) = self.beats.get(&(index, *execution, *beat)).copied()
                    && let Some(word) = self.words.get_mut(&(index, *execution))
                {
                    word.from = word.from.max(sent);
                }
            }
            Market::Release { execution } | Market::Cancel { execution, .. } if self.is_owner(from, execution) => {
                self.let_go.insert((index, *execution));
            }
            _ => {}
        }
    }

    /// Whether `from` gave this award; anybody may have, if no honest owner did.
    fn is_owner(&self, from: &NodeId, execution: &ExecutionId) -> bool {
        self.awards.get(execution).is_none_or(|sent| self.may_decide(from, &sent.award.job))
    }

    /// Whether `node` is the owner of this job, or leads or led it for its group.
    fn may_decide(&self, node: &NodeId, job: &JobId) -> bool {
        node.tag() == job.tag() || self.leaders.get(&job.tag()).is_some_and(|leaders| leaders.contains(node))
    }

    /// A node goes on with the jobs of a group: what their records say of the end is what users see.
    pub(crate) fn taken_over(&mut self, owner: &NodeId, leader: NodeId, records: &[Record]) {
        self.leaders.entry(owner.tag()).or_default().insert(leader);
        for record in records {
            match record {
                Record::Execution(execution) if execution.accepted => self.found_accepted(execution),
                Record::JobState(state) if state.state.is_terminal() => self.found_ended(state),
                _ => {}
            }
        }
    }

    /// An honest node starts a run.
    pub(crate) fn started(&mut self, host: &Host, index: usize, run: &Run) {
        let tick = host.clock.tick(self.now);
        if self.awards.get(&run.execution).is_some_and(|sent| sent.to != host.id) {
            self.fail(Invariant::S3NoStartWithoutAward, format!("{} is another node's", run.execution));
        }
        match self.awards.get(&run.execution).map(|sent| sent.award.boot.0) {
            // Of a dishonest owner nothing is known but what the machine itself keeps.
            None => {
                let word = Word { from: tick, lasts: ORPHAN_MAX };
                self.words.insert((index, run.execution), word);
            }
            Some(boot) => {
                // The books open a word when an award comes that answers a bid of this node to this owner.
                if !self.words.contains_key(&(index, run.execution)) {
                    return self.fail(Invariant::S3NoStartWithoutAward, format!("{} has no bid", run.execution));
                }
                if boot != host.disk.epoch {
                    self.fail(Invariant::S3NoStartWithoutAward, format!("{} is of an earlier life", run.execution));
                }
                if !self.may_decide(&run.owner, &run.job) {
                    self.fail(Invariant::S3NoStartWithoutAward, format!("{} is not its owner's", run.execution));
                }
            }
        }
        self.running.entry((run.job, run.slot)).or_default().insert((index, run.execution));
        self.check_policy(host, run);
    }

    fn check_policy(&mut self, host: &Host, run: &Run) {
        let too_long = run.task.timeout_ms > TIMEOUT_MAX.as_millis();
        if !run.task.resources.fits(&host.total) || too_long || !run.task.is_plain() {
            self.fail(Invariant::S19Policy, format!("{} runs {:?}", host.id.short(), run.task.resources));
        }
        if let Some(sent) = self.awards.get(&run.execution)
            && (sent.award.task != run.task || sent.award.slot != run.slot || sent.award.job != run.job)
        {
            self.fail(Invariant::S19Policy, format!("{} is not what was awarded", run.execution));
        }
    }

    /// Runs of a job on honest nodes.
    pub(crate) fn runs_of(&self, job: &JobId) -> impl Iterator<Item = (u32, usize, ExecutionId)> {
        let slots = self.running.range((*job, 0)..=(*job, u32::MAX));
        slots.flat_map(|((_, slot), runs)| runs.iter().map(|(node, execution)| (*slot, *node, *execution)))
    }

    /// A run is over, however.
    pub(crate) fn over(&mut self, index: usize, job: &JobId, slot: u32, execution: &ExecutionId) {
        if let Some(running) = self.running.get_mut(&(*job, slot)) {
            running.remove(&(index, *execution));
        }
    }

    /// What an honest owner tells whoever watches a job.
    pub(crate) fn told(&mut self, host: &Host, job: JobId, event: &JobEvent) {
        match &event.what {
            What::Accepted { .. } => {
                let Some(execution) = event.execution else { return };
                let Some(sent) = self.awards.get(&execution) else {
                    return self.fail(Invariant::S6ResultBinding, format!("{execution} was never awarded"));
                };
                let slot = sent.award.slot;
                if !host.held.contains(&execution) {
                    self.fail(Invariant::S7Content, format!("{execution} is accepted, its bytes are not here"));
                }
                let known = self.accepted.contains_key(&(job, slot));
                let first = *self.accepted.entry((job, slot)).or_insert(execution);
                if first != execution {
                    let text = format!("{job} slot {slot} has {first} and {execution}");
                    self.fail(Invariant::S5SingleAcceptance, text);
                }
                // Who led before may tell late what whoever leads now knew.
                if self.told_ended.contains(&job) && !known {
                    self.fail(Invariant::S9TerminalIsFinal, format!("{job} goes on after its end"));
                }
            }
            What::Ended { state, message } => {
                let again = !self.told_ended.insert(job);
                if let Some((earlier, _)) = self.ended.get(&job).filter(|(earlier, _)| again || earlier != state) {
                    let text = format!("{job} ended {} and {}", earlier.name(), state.name());
                    self.fail(Invariant::S9TerminalIsFinal, text);
                }
                self.ended.insert(job, (*state, message.to_string()));
            }
            _ => {}
        }
    }

    /// What a node finds on its disk when it comes back is what its users see, but of jobs that a group keeps.
    pub(crate) fn found(&mut self, disk: &Disk, guarded: impl Fn(&JobId) -> bool) {
        disk.accepted()
            .filter(|execution| !guarded(&execution.job))
            .for_each(|execution| self.found_accepted(execution));
        disk.ended().filter(|state| !guarded(&state.id)).for_each(|state| self.found_ended(state));
    }

    fn found_accepted(&mut self, ExecutionRecord { job, slot, id, .. }: &ExecutionRecord) {
        let first = *self.accepted.entry((*job, *slot)).or_insert(*id);
        if first != *id {
            let text = format!("{job} slot {slot} had {first}, the disk has {id}");
            self.fail(Invariant::S5SingleAcceptance, text);
        }
    }

    fn found_ended(&mut self, JobStateRecord { id, state, message, .. }: &JobStateRecord) {
        let (told, _) = self.ended.entry(*id).or_insert_with(|| (*state, message.to_string()));
        if *told != *state {
            let text = format!("{id} had ended {}, the disk says {}", told.name(), state.name());
            self.fail(Invariant::S9TerminalIsFinal, text);
        }
    }

    /// Everything that was told is still so after a restart.
    pub(crate) fn open_again(&mut self, open: &BTreeSet<JobId>) {
        if let Some(job) = open.iter().find(|job| self.ended.contains_key(job)) {
            self.fail(Invariant::S14RecoveryEquality, format!("{job} had ended, and is open again"));
        }
    }

    pub(crate) fn answered(&mut self, job: JobId, answer: &Answer) {
        match answer {
            Answer::Accepted { .. } | Answer::Unchanged(_) => _ = self.acknowledged.insert(job),
            Answer::Stopped => _ = self.stopped.insert(job),
            Answer::Unlike(_) | Answer::NotOpen | Answer::Busy(_) => {}
        }
    }

    /// An honest node lets go of a result.
    pub(crate) fn unpinned(&mut self, host: &Host, index: usize, execution: &ExecutionId) {
        let let_go = self.let_go.contains(&(index, *execution));
        let tick = host.clock.tick(self.now);
        let expired = self.words.get(&(index, *execution)).is_none_or(|word| word.from + word.lasts <= tick);
        if !let_go && !expired {
            self.fail(Invariant::S18KeptUntilReleased, format!("{execution} is dropped before its owner let go"));
        }
    }

    /// After a step of an honest node.
    pub(crate) fn stepped(&mut self, host: &Host, index: usize) {
        if let Some(Err(error)) = host.requester.as_ref().map(requester::State::check) {
            self.fail(Invariant::S1SlotUniqueness, error);
        }
        let Some(compute) = &host.compute else { return };
        let waiting = compute.load().queued;
        if waiting > QUEUE_MAX {
            self.fail(Invariant::S16Bounds, format!("{waiting} awards wait"));
        }
        if let Err(error) = compute.check() {
            self.fail(Invariant::S11Capacity, error);
        }
        let used = host
            .runs
            .values()
            .filter(|running| !running.dead)
            .fold(Resources::default(), |sum, running| sum.plus(&running.run.task.resources));
        if !used.fits(&host.total) {
            self.fail(Invariant::S11Capacity, format!("{} runs {used:?} of {:?}", host.id.short(), host.total));
        }
        if compute.held_count() > HELD_MAX + 1 {
            self.fail(Invariant::S16Bounds, format!("{} awards and results are held", compute.held_count()));
        }
        // A step that is not over: its time comes first.
        if host.deadline().is_some_and(|due| due <= self.now) {
            return;
        }
        let late = host
            .runs
            .values()
            .find(|running| !running.stopping && self.is_expired(host, index, &running.run.execution));
        if let Some(late) = late {
            let text = format!("{} runs {} past its owner's word", host.id.short(), late.run.execution);
            self.fail(Invariant::S4SelfStop, text);
        }
    }

    /// The lease of an exclusive run is over, whether or not its node takes a step.
    pub(crate) fn is_expired(&self, host: &Host, index: usize, execution: &ExecutionId) -> bool {
        let tick = host.clock.tick(self.now);
        let word = self.words.get(&(index, *execution));
        word.is_some_and(|word| word.from + word.lasts + KILL_GRACE < tick)
    }

    /// How many slots of a job have their result.
    pub(crate) fn filled(&self, job: &JobId) -> usize {
        self.accepted.keys().filter(|(of, _)| of == job).count()
    }

    /// Who runs a slot.
    pub(crate) fn running(&self, job: &JobId, slot: u32) -> impl Iterator<Item = (usize, ExecutionId)> {
        self.running.get(&(*job, slot)).into_iter().flatten().copied()
    }

    /// An award that some honest owner gave lately, drawn by `chance`, and to whom.
    pub(crate) fn some_execution(&self, chance: u64) -> Option<(ExecutionId, NodeId)> {
        let execution = self.recent.get(chance.checked_rem(self.recent.len() as u64)? as usize)?;
        Some((*execution, self.awards.get(execution)?.to))
    }

    /// The last beat that an honest node sent of an execution.
    pub(crate) fn some_beat(&self, execution: &ExecutionId) -> Option<u64> {
        self.beats.keys().rev().find(|(_, of, _)| of == execution).map(|(_, _, beat)| *beat)
    }

    /// A node lost its disk: what it had promised is gone with it, and its new life is another matter.
    pub(crate) fn lose_disk(&mut self, index: usize, id: &NodeId) {
        self.wiped.insert(index);
        self.tokens.retain(|(of, _), _| *of != index);
        let of_node = |job: &JobId| job.0[..5] == id.tag();
        self.accepted.retain(|(job, _), _| !of_node(job));
        self.ended.retain(|job, _| !of_node(job));
        self.told_ended.retain(|job| !of_node(job));
        self.stopped.retain(|job| !of_node(job));
    }

    /// Bids that are too old to stand; the books need not keep them.
    pub(crate) fn forget_old(&mut self, hosts: &[Host]) {
        let now = self.now;
        let old = BID_TTL.times(30);
        self.bids.retain(|(index, _, _), (_, at)| hosts[*index].clock.tick(now).since(*at) < old);
        self.beats.retain(|(index, _, _), at| hosts[*index].clock.tick(now).since(*at) < old);
    }
}
