//! Awards: queue, run, beat, report, release.

use super::state::{Held, State, Timer};
use super::{Ended, Output, Run, inline_blocks};
use crate::id::{ExecutionId, NodeId};
use crate::limits::{PORTS_MAX, RUN_RESOURCES_MIN, TEXT_BYTES_MAX};
use crate::outbox::{Outbox, When};
use crate::record::{HeldRecord, Record};
use crate::time::{Now, Span};
use crate::wire::bounded::{BytesMax, ListMax, TextMax};
use crate::wire::codec;
use crate::wire::market::{Award, Head, Market, Outcome, Phase, ResultBody, SignedResult, Usage};
use crate::wire::signed::Domain;
use crate::wire::task::OpenPort;

impl State {
    pub(super) fn award(&mut self, from: NodeId, award: Award, now: Now, out: &mut Outbox<Output>) {
        let execution = award.execution;
        if let Some(held) = self.held.get(&execution) {
            // Said twice because our answer was lost.
            if held.record.owner == from {
                let ack = Output::Send { to: from, message: Market::AwardAck { execution } };
                out.push(When::after_sync_if(held.exclusive), ack);
                self.timers.set_earlier(
                    if held.phase == Phase::Ended { Timer::Resend(execution) } else { Timer::Beat(execution) },
                    now.tick,
                );
            }
            return;
        }
        let named = ExecutionId::new(&award.job, award.slot, award.token, &self.signer.node());
        let sent = match named == execution {
            true if self.may_speak(&from, &award.job) => self.take_bid(from, &award),
            true => Err("the job is another node's to give away"),
            false => Err("the award is for another node"),
        };
        let (sent, image) = match sent {
            Ok(taken) => taken,
            Err(reason) => {
                let message = Market::AwardRefuse { execution, reason: TextMax::truncated(reason) };
                out.now(Output::Send { to: from, message });
                return;
            }
        };
        let record = HeldRecord {
            execution,
            owner: from,
            job: award.job,
            slot: award.slot,
            mac: award.mac,
            awarded: now.unix,
            lease: award.lease,
            result: None,
            withheld: false,
        };
        let held = Held {
            resources: award.task.resources.at_least(&RUN_RESOURCES_MIN),
            exclusive: award.task.exclusive,
            endless: award.task.kind.is_endless(),
            priority: award.task.priority,
            task: Some(award.task),
            image,
            phase: Phase::Queued,
            ..Held::new(record.clone(), self.boot, sent)
        };
        let when = if held.exclusive { When::AfterSync } else { When::Now };
        self.held.insert(execution, held);
        self.enqueue(execution);
        out.now(Output::Persist(Record::Held(Box::new(record))));
        let ack = Output::Send { to: from, message: Market::AwardAck { execution } };
        out.push(when, ack);
        self.arm_lease(execution);
        let heartbeat = Span::millis(u64::from(award.lease.heartbeat_ms).max(500));
        self.timers.set(Timer::Beat(execution), now.tick + heartbeat);
        self.start_queued(now, out);
    }

    /// Starts what fits, in the order of award. An award that does not fit yet holds back those behind it, so that a
    /// large one is not starved by small ones.
    fn start_queued(&mut self, now: Now, out: &mut Outbox<Output>) {
        while let Some(&execution) = self.queue.front() {
            let free = self.config.total.minus(&self.used);
            let Some(held) = self.held.get_mut(&execution) else {
                self.queue.pop_front();
                continue;
            };
            if !held.resources.fits(&free) {
                return self.make_room_for(execution, now, out);
            }
            self.queue.pop_front();
            let Some(task) = held.task.take() else { continue };
            held.phase = Phase::Preparing;
            held.started = Some(now.tick);
            self.used = self.used.plus(&held.resources);
            let HeldRecord { owner, job, slot, .. } = held.record;
            let until = held.word_from + word_length(held, self.config.orphan_max);
            let run = Output::Start(Box::new(Run { execution, owner, job, slot, task, image: held.image, until }));
            out.push(When::after_sync_if(held.exclusive), run);
        }
    }

    /// An endless award that does not fit takes the place of the version before it, which would never end by itself.
    fn make_room_for(&mut self, execution: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let Some(new) = self.held.get(&execution).filter(|held| held.endless) else { return };
        let key = |record: &HeldRecord| (record.owner, record.job, record.slot);
        let before = |(_, held): &(&ExecutionId, &Held)| held.running() && key(&held.record) == key(&new.record);
        if let Some((before, _)) = self.held.iter().find(before) {
            self.evict(*before, "a new version takes its place", now, out);
        }
    }

    pub(super) fn phase(&mut self, execution: ExecutionId, phase: Phase, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution) else { return };
        if held.phase >= phase || held.phase == Phase::Ended {
            return;
        }
        held.phase = phase;
        let to = held.record.owner;
        if phase == Phase::Running {
            let ports = held.ports.clone();
            out.now(Output::Send { to, message: Market::Started { execution, ports } });
        } else {
            self.beat(execution, now, out);
        }
    }

    pub(super) fn opened(&mut self, execution: ExecutionId, ports: ListMax<OpenPort, PORTS_MAX>) {
        if let Some(held) = self.held.get_mut(&execution) {
            held.ports = ports;
        }
    }

    pub(super) fn beat(&mut self, execution: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution) else { return };
        if held.phase == Phase::Ended || held.expired {
            return;
        }
        held.beat = held.beat.wrapping_add(1);
        held.beats.push_back((held.beat, now.tick));
        if held.beats.len() > BEATS_MAX {
            held.beats.pop_front();
        }
        let message = Market::Beat { execution, beat: held.beat, phase: held.phase };
        out.now(Output::Send { to: held.record.owner, message });
        if held.phase == Phase::Running && !held.ports.is_empty() {
            // Nobody acknowledges a start: what only that says is said again.
            let message = Market::Started { execution, ports: held.ports.clone() };
            out.now(Output::Send { to: held.record.owner, message });
        }
        let heartbeat = Span::millis(u64::from(held.record.lease.heartbeat_ms).max(500));
        let job = held.record.job;
        let unheard = now.tick.since(held.word_from) > heartbeat.times(2);
        self.timers.set(Timer::Beat(execution), now.tick + heartbeat);
        if unheard {
            self.seek(&job, out);
        }
    }

    pub(super) fn beat_ack(&mut self, from: NodeId, execution: ExecutionId, beat: u64, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution).filter(|held| held.record.owner == from) else { return };
        let Some(&(_, sent)) = held.beats.iter().find(|(known, _)| *known == beat) else { return };
        // Acknowledgements may overtake each other, and a round trip may be longer than a heartbeat.
        if held.cancelled || sent <= held.word_from {
            return;
        }
        held.word_from = sent;
        if held.running() {
            let until = sent + word_length(held, self.config.orphan_max);
            out.now(Output::Extend(execution, until));
        }
        self.arm_lease(execution);
    }

    pub(super) fn arm_lease(&mut self, execution: ExecutionId) {
        let Some(held) = self.held.get(&execution) else { return };
        let length = word_length(held, self.config.orphan_max);
        self.timers.set(Timer::Lease(execution), held.word_from + length);
    }

    /// The owner's word has run out: stop and forget. Nobody waits for this any more.
    pub(super) fn lease_ended(&mut self, execution: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution) else { return };
        if held.running() {
            // Its place is taken until it has really stopped, and only then may the owner hear of it.
            (held.cancelled, held.expired) = (true, true);
            self.timers.cancel(&Timer::Beat(execution));
            self.stop_run(execution, out);
            return;
        }
        let owner = held.record.owner;
        self.forget(execution, out);
        // Should the owner be there after all, it need not wait.
        out.now(Output::Send { to: owner, message: Market::Beat { execution, beat: 0, phase: Phase::Unknown } });
        self.start_queued(now, out);
    }

    /// Stops a run; one that waits for the disk to start, too, by saying it again behind that.
    pub(super) fn stop_run(&self, execution: ExecutionId, out: &mut Outbox<Output>) {
        out.now(Output::Stop(execution));
        if self.held.get(&execution).is_some_and(|held| held.exclusive) {
            out.after_sync(Output::Stop(execution));
        }
    }

    pub(super) fn query(&mut self, from: NodeId, execution: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        match self.held.get(&execution) {
            None => {
                let message = Market::Beat { execution, beat: 0, phase: Phase::Unknown };
                out.now(Output::Send { to: from, message });
            }
            // Who leads now may be told later than it asks: then it hears of this one when that is known.
            Some(held) if held.record.owner != from => {
                let job = held.record.job;
                self.seek(&job, out);
            }
            Some(held) if held.phase == Phase::Ended => self.timers.set(Timer::Resend(execution), now.tick),
            Some(_) => self.beat(execution, now, out),
        }
    }

    pub(super) fn ended(&mut self, execution: ExecutionId, ended: Ended, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get_mut(&execution) else {
            // Forgotten while it ran: its result is nobody's.
            out.now(Output::Unpin(execution));
            return;
        };
        if held.record.result.is_some() {
            return;
        }
        if held.running() {
            self.used = self.used.minus(&held.resources);
        }
        let (ran, endless) = (held.started.map(|started| now.tick.since(started)), held.endless);
        // It knows best; a phase that it forgot may have been any.
        let may_have_begun = held.phase >= Phase::Running || held.started.is_none();
        held.phase = Phase::Ended;
        let outcome = match ended.outcome.clone() {
            _ if held.cancelled => Outcome::Cancelled,
            Outcome::NodeFailed { began, cause } => Outcome::NodeFailed { began: began && may_have_begun, cause },
            Outcome::Cancelled => match held.evicted {
                Some(why) => Outcome::NodeFailed { began: may_have_begun, cause: TextMax::truncated(why) },
                None => Outcome::Cancelled,
            },
            outcome => outcome,
        };
        let owner = held.record.owner;
        let private = ended.read_private && self.config.policy.withholds_from(&self.signer.node(), &owner);
        let withheld = private && !matches!(outcome, Outcome::Cancelled | Outcome::NodeFailed { .. });
        // Without a result there is nothing to wait for; and nothing that the program may have had a hand in is told.
        let (outcome, ended) = if private && !withheld { unspoken(outcome) } else { (outcome, ended) };
        let Some(held) = self.held.get_mut(&execution) else { return };
        let body = ResultBody {
            execution,
            job: held.record.job,
            slot: held.record.slot,
            maker: self.signer.node(),
            mac: held.record.mac,
            ended: now.unix,
            outcome,
            root: ended.root,
            size: ended.size,
            usage: ended.usage,
            stdout: ended.stdout,
            stderr: ended.stderr,
        };
        let (body, signature) = self.sign(body);
        let result = SignedResult { execution, body, signature, blocks: inline_blocks(ended.blocks) };
        // What has no end says nothing of how long others take.
        if let Some(ran) = ran.filter(|_| !endless) {
            self.learn_run(ran);
        }
        let held = self.held.get_mut(&execution).expect("looked up above");
        held.record.result = Some(result);
        held.record.withheld = withheld;
        // As with results that were there before: what was promised in another life may have been longer than is known.
        held.word_from = held.word_from.max(self.since);
        out.now(Output::Persist(Record::Held(Box::new(held.record.clone()))));
        if withheld {
            // Its owner goes on hearing of it, as of one that runs.
            held.phase = Phase::Withheld;
            self.arm_lease(execution);
            self.beat(execution, now, out);
            return self.start_queued(now, out);
        }
        self.timers.cancel(&Timer::Beat(execution));
        let cancelled = self.held.get(&execution).filter(|held| held.cancelled);
        if let Some((owner, expired)) = cancelled.map(|held| (held.record.owner, held.expired)) {
            self.forget(execution, out);
            out.after_sync(Output::Send { to: owner, message: Market::CancelAck { execution } });
            if expired {
                let message = Market::Beat { execution, beat: 0, phase: Phase::Unknown };
                out.after_sync(Output::Send { to: owner, message });
            }
        } else {
            self.arm_lease(execution);
            self.resend(execution, now, out);
        }
        self.start_queued(now, out);
    }

    pub(super) fn sign(
        &self,
        mut body: ResultBody,
    ) -> (BytesMax<{ crate::wire::market::RESULT_BODY_BYTES_MAX }>, crate::wire::signed::SignatureBytes) {
        let bytes = BytesMax::new(codec::encode(&body)).unwrap_or_else(|_| {
            // Cannot happen while heads and texts are bounded as they are; a result without them is still a result.
            (body.stdout, body.stderr, body.usage) = (Head::default(), Head::default(), Usage::default());
            BytesMax::new(codec::encode(&body)).unwrap_or_default()
        });
        let signature = self.signer.sign(Domain::Result, &bytes);
        (bytes, signature)
    }

    /// The owner has the result's record; it may still need the bytes.
    pub(super) fn result_ack(&mut self, from: NodeId, execution: ExecutionId, now: Now) {
        // One that comes before there was a result to have is nobody's who means well.
        let sent = |held: &&mut Held| held.record.owner == from && held.phase == Phase::Ended;
        let Some(held) = self.held.get_mut(&execution).filter(sent) else { return };
        held.word_from = now.tick;
        held.resend = held.resend.max(Span::secs(15));
        let again = now.tick + held.resend;
        self.timers.set(Timer::Resend(execution), again);
        self.arm_lease(execution);
    }

    pub(super) fn cancel(&mut self, from: NodeId, execution: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let known = self.held.get(&execution).is_none_or(|held| held.record.owner == from);
        if !known {
            return;
        }
        match self.held.get_mut(&execution) {
            // Acknowledged when it has stopped: then, and not before, may another start.
            Some(held) if held.running() => {
                if !held.cancelled {
                    held.cancelled = true;
                    self.stop_run(execution, out);
                }
            }
            _ => {
                self.forget(execution, out);
                out.after_sync(Output::Send { to: from, message: Market::CancelAck { execution } });
            }
        }
        self.start_queued(now, out);
    }

    pub(super) fn release(&mut self, from: NodeId, execution: ExecutionId, out: &mut Outbox<Output>) {
        let done = |held: &&Held| held.record.owner == from && held.record.result.is_some();
        if self.held.get(&execution).as_ref().is_some_and(done) {
            self.forget(execution, out);
        }
    }
}

/// An end of which nothing is told but that it came.
fn unspoken(outcome: Outcome) -> (Outcome, Ended) {
    let cause = TextMax::truncated("the node could not finish it, and keeps why to its operator: the data is private");
    let outcome = if outcome == Outcome::Cancelled { outcome } else { Outcome::NodeFailed { began: true, cause } };
    let ended = Ended { read_private: true, ..Ended::bare(outcome.clone()) };
    (outcome, ended)
}

/// How long a holder goes on after its owner's last word. Never shorter than a lease: the owner must have had a chance to
/// answer a beat.
pub(super) fn word_length(held: &Held, orphan_max: Span) -> Span {
    let lease = held.record.lease;
    let length = Span::millis(u64::from(lease.length_ms));
    let exclusive = held.exclusive && held.phase < Phase::Withheld;
    let kept = Span::millis(u64::from(lease.orphan_ms.max(lease.length_ms)));
    if exclusive { length } else { kept }.min(orphan_max)
}

/// Beats whose acknowledgement still counts.
const BEATS_MAX: usize = 16;

const _: () = assert!(TEXT_BYTES_MAX + 2 * 1024 + 512 < crate::wire::market::RESULT_BODY_BYTES_MAX);
