//! Attempts between award and result.

use super::Output;
use super::state::{State, Timer};
use crate::id::{ExecutionId, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::limits::{PORTS_MAX, RESEND_MAX, RESEND_MIN};
use crate::outbox::{Outbox, When};
use crate::record::{Record, What};
use crate::time::{Now, Span, Tick};
use crate::view::View;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::market::{Market, Outcome, Phase};
use crate::wire::task::{JobKind, OpenPort};

/// Why an attempt is called off that takes too long.
const OVERDUE: &str = "it did not end in its time";
/// Awards refused for one slot before it is given up: each is a bid that came to nothing.
const REFUSALS_MAX: u32 = 10;
/// The end of an attempt that has none.
const NEVER: Tick = Tick(u64::MAX);
/// How long a result may wait for the word of its node's operator.
const WITHHELD_MAX: Span = Span::secs(3 * 24 * 3_600);

impl State {
    pub(super) fn award_again(&mut self, id: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let job = self.executions.get(&id).map(|execution| execution.record.job);
        if job.is_some_and(|job| self.may_be_led_elsewhere(&job)) {
            return self.timers.set(Timer::Award(id), now.tick + RESEND_MIN);
        }
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let Some(award) = &execution.award else { return };
        let message = Output::Send { to: execution.record.node, message: Market::Award(award.clone()) };
        let job = self.jobs.get(&execution.record.job);
        let when = job.map_or(When::AfterSync, |job| job.durable_if(award.task.exclusive));
        out.push(when, message);
        execution.resend = Span(execution.resend.0.saturating_mul(2)).min(RESEND_MAX);
        self.timers.set(Timer::Award(id), now.tick + execution.resend);
    }

    pub(super) fn award_ack(&mut self, from: NodeId, id: ExecutionId, now: Now, out: &mut Outbox<Output>) {
        let Some(execution) = self.executions.get_mut(&id).filter(|e| e.record.node == from) else { return };
        if execution.award.take().is_none() {
            return;
        }
        execution.heard = now.tick;
        if execution.record.state == ExecutionState::Awarded {
            execution.become_state(ExecutionState::Accepted, "", now, out);
        }
        self.timers.cancel(&Timer::Award(id));
        self.arm_lease(id);
    }

    /// Where an attempt answers. Said again with each beat.
    pub(super) fn opened(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        ports: ListMax<OpenPort, PORTS_MAX>,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(execution) = self.executions.get_mut(&id).filter(|e| e.record.node == from) else { return };
        let Some(job) = self.jobs.get_mut(&execution.record.job) else { return };
        // Those that the task wants, once an attempt.
        let named = ports.iter().map(|port| &port.name).eq(job.task.ports.iter().map(|port| &port.name));
        if !execution.record.ports.is_empty() || ports.is_empty() || !named {
            return;
        }
        execution.record.ports.clone_from(&ports);
        out.now(Output::Persist(Record::Execution(Box::new(execution.record.clone()))));
        job.tell(now.unix, view, Some(&execution.record), None, What::Open { ports }, out);
    }

    pub(super) fn award_refuse(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        reason: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let known = self.executions.get(&id).filter(|e| e.record.node == from && e.award.is_some());
        let Some((job, slot)) = known.map(|e| (e.record.job, e.record.slot)) else { return };
        let what = What::Refused { reason: TextMax::truncated(reason) };
        self.drop_execution(id, ExecutionState::Refused, reason, what, now, view, out);
        self.refused(job, slot, Some(from), reason, now, view, out);
    }

    /// The award never left, or got lost: nothing was begun, and the node is not to blame.
    fn never_came(&mut self, id: ExecutionId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(execution) = self.executions.get(&id) else { return };
        let (job, slot, cause) = (execution.record.job, execution.record.slot, "it never got the award");
        let what = What::Refused { reason: TextMax::truncated(cause) };
        self.drop_execution(id, ExecutionState::Refused, cause, what, now, view, out);
        self.refused(job, slot, None, cause, now, view, out);
    }

    /// An award came to nothing, and nothing was begun.
    fn refused(
        &mut self,
        job: JobId,
        slot: u32,
        refuser: Option<NodeId>,
        reason: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(held) = self.jobs.get_mut(&job) else { return };
        let Some(state) = held.slots.get_mut(slot as usize) else { return };
        state.refusals += 1;
        if held.task.kind.is_endless() {
            // There is no end to what it may bid and refuse, so each takes longer; and others may do better.
            state.rest(Some(Span::ZERO), now.tick);
            if let Some(node) = refuser {
                self.troubles.lost(node, now.tick);
            }
        } else if state.refusals >= REFUSALS_MAX {
            state.failures = crate::limits::ATTEMPTS_MAX;
            if let Some(target) = state.target {
                held.blame(target, reason);
            }
        }
        self.try_again(job, slot, now, view, out);
    }

    pub(super) fn phase(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        phase: Phase,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(execution) = self.executions.get_mut(&id).filter(|e| e.record.node == from) else { return };
        // What reads no data can have read no private data.
        let reads = self.jobs.get(&execution.record.job).is_some_and(|job| !job.task.inputs.is_empty());
        let phase = if phase == Phase::Withheld && !reads { Phase::Publishing } else { phase };
        execution.heard = now.tick;
        execution.award = None;
        self.timers.cancel(&Timer::Award(id));
        let state = match phase {
            Phase::Running => ExecutionState::Running,
            Phase::Publishing | Phase::Withheld | Phase::Ended => ExecutionState::Publishing,
            Phase::Unknown | Phase::Queued | Phase::Preparing => ExecutionState::Accepted,
        };
        if execution.phase.is_some_and(|known| known >= phase) {
            return;
        }
        execution.phase = Some(phase);
        if state.number() > execution.record.state.number() {
            execution.become_state(state, "", now, out);
        }
        let record = execution.record.clone();
        let Some(job) = self.jobs.get_mut(&record.job) else { return };
        job.tell(now.unix, view, Some(&record), None, What::Phase(phase), out);
        if phase == Phase::Withheld {
            // It waits for a person, who may be asleep.
            self.end_by(id, now.tick + WITHHELD_MAX);
        }
        if phase == Phase::Running {
            if let Some(execution) = self.executions.get_mut(&id) {
                execution.running_since.get_or_insert(now.tick);
            }
            self.arm_attempt(id, now);
            self.set_state(record.job, JobState::Running, "", now, out);
            self.succeed(&record, now, view, out);
        }
    }

    /// A run of the present version runs: those of the one before are not needed any more.
    fn succeed(&mut self, record: &crate::record::ExecutionRecord, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(slot) = self.jobs.get(&record.job).and_then(|job| job.slots.get(record.slot as usize)) else { return };
        if slot.live.contains(&record.id) {
            let former: Vec<ExecutionId> = slot.former.iter().copied().collect();
            self.call_off(&former, super::submit::REPLACED, now, view, out);
        }
    }

    pub(super) fn beat(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        beat: u64,
        phase: Phase,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let known = self.executions.get(&id).filter(|e| e.record.node == from);
        let Some(execution) = known else {
            // Ended, or lost with our records: either way nobody waits for it.
            let reason = TextMax::truncated("its job has ended");
            if self.is_unled(&id) {
                return;
            }
            if phase != Phase::Unknown {
                out.now(Output::Send { to: from, message: Market::Cancel { execution: id, reason } });
            }
            return;
        };
        if phase == Phase::Unknown {
            let exclusive = self.jobs.get(&execution.record.job).is_some_and(|job| job.task.exclusive);
            match execution.record.state {
                // The award itself is still on its way.
                _ if execution.award.is_some() => {}
                // We went down before it left; the node is not to blame. An old copy of the award may still arrive while
                // its bid stands, so an exclusive slot waits for that.
                ExecutionState::Awarded if exclusive => {
                    if let Some(execution) = self.executions.get_mut(&id) {
                        execution.never_came = true;
                    }
                    self.timers.set_earlier(Timer::Lease(id), now.tick + crate::limits::BID_TTL);
                }
                ExecutionState::Awarded => self.never_came(id, now, view, out),
                _ => self.lose(id, "the node does not know of it any more", now, view, out),
            }
            return;
        }
        if execution.called_off {
            let reason = TextMax::truncated(OVERDUE);
            out.now(Output::Send { to: from, message: Market::Cancel { execution: id, reason } });
            return;
        }
        let exclusive = self.jobs.get(&execution.record.job).is_some_and(|job| job.task.exclusive);
        // Whose word may not be the last gives none that another would have to wait for.
        if !(exclusive && self.unsure.contains(&execution.record.job.tag())) {
            out.now(Output::Send { to: from, message: Market::BeatAck { execution: id, beat } });
        }
        self.phase(from, id, phase, now, view, out);
        if let Some(execution) = self.executions.get_mut(&id) {
            execution.heard = now.tick;
            if std::mem::take(&mut execution.silent) {
                let end_by = execution.end_by;
                self.end_by(id, end_by);
            }
        }
        self.trust_again(id);
        self.arm_lease(id);
    }

    /// Word about a suspected attempt itself: it goes on as if nothing had been, unless a copy has its place already.
    fn trust_again(&mut self, id: ExecutionId) {
        let Some(record) = self.executions.get(&id).filter(|e| e.suspected).map(|e| (e.record.job, e.record.slot))
        else {
            return;
        };
        let Some(slot) = self.jobs.get_mut(&record.0).and_then(|job| job.slots.get_mut(record.1 as usize)) else {
            return;
        };
        if slot.is_open(&self.executions) {
            slot.failures = slot.failures.saturating_sub(1);
            if let Some(execution) = self.executions.get_mut(&id) {
                execution.suspected = false;
                // It has the time again that it had before.
                let end_by = execution.end_by;
                self.end_by(id, end_by);
            }
        }
    }

    /// However a holder behaves, an attempt ends: after the queue's patience and the program's time when it was awarded,
    /// after the program's time once it runs; a suspected one when its lease would be over.
    pub(super) fn arm_attempt(&mut self, id: ExecutionId, now: Now) {
        let Some(execution) = self.executions.get(&id) else { return };
        let Some(job) = self.jobs.get(&execution.record.job) else { return };
        let lease = job.lease.whole();
        let running = execution.record.state == ExecutionState::Running;
        let queue = if running { Span::ZERO } else { job.queue_timeout };
        let time = Span::millis(job.task.timeout_ms);
        let endless = running && job.task.kind.is_endless();
        self.end_by(id, if endless { NEVER } else { now.tick + queue + time + lease });
    }

    fn end_by(&mut self, id: ExecutionId, at: Tick) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        execution.end_by = at;
        if at == NEVER {
            self.timers.cancel(&Timer::Attempt(id));
        } else {
            self.timers.set(Timer::Attempt(id), at);
        }
    }

    /// A result is coming home: at a megabyte a second at least.
    pub(super) fn arm_fetch(&mut self, id: ExecutionId, size: u64, now: Now) {
        self.end_by(id, now.tick + Span::secs(60) + Span(size.min(1 << 40)));
    }

    pub(super) fn attempt_over(&mut self, id: ExecutionId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let cause = if execution.silent { super::silence::FELL_SILENT } else { OVERDUE };
        let message = Market::Cancel { execution: id, reason: TextMax::truncated(OVERDUE) };
        out.now(Output::Send { to: execution.record.node, message });
        let exclusive = self.jobs.get(&execution.record.job).is_some_and(|job| job.task.exclusive);
        if exclusive && execution.result.is_none() {
            // Another may start when this one has surely stopped: at its word, or at the end of its lease, which no beat
            // extends any more.
            execution.called_off = true;
            self.arm_lease(id);
        } else {
            self.lose(id, cause, now, view, out);
        }
    }

    /// The holder has stopped what was called off.
    pub(super) fn cancel_ack(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        if self.executions.get(&id).is_some_and(|e| e.record.node == from && e.called_off) {
            self.lose(id, OVERDUE, now, view, out);
        }
    }

    /// An exclusive attempt is not replaced before its holder has surely stopped: its lease, and the grace after it.
    pub(super) fn arm_lease(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.get(&id) else { return };
        let Some(job) = self.jobs.get(&execution.record.job).filter(|job| job.task.exclusive) else { return };
        self.timers.set(Timer::Lease(id), execution.heard + job.lease.whole());
    }

    pub(super) fn lease_over(&mut self, id: ExecutionId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let unheard = |e: &super::job::Execution| e.never_came && e.record.state == ExecutionState::Awarded;
        if self.executions.get(&id).is_some_and(unheard) {
            // Nor can it come any more.
            return self.never_came(id, now, view, out);
        }
        self.lose(id, "its lease ran out unheard", now, view, out);
    }

    /// Gives an attempt up by its node's doing, and tries elsewhere.
    pub(super) fn lose(&mut self, id: ExecutionId, cause: &str, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(execution) = self.executions.get(&id) else { return };
        let (job, slot, node) = (execution.record.job, execution.record.slot, execution.record.node);
        let outcome = execution.result.as_ref().map(|result| &result.outcome);
        let never_began = matches!(outcome, Some(Outcome::NodeFailed { began: false, .. }));
        let (suspected, ran) = (execution.suspected, execution.running_since.map(|since| now.tick.since(since)));
        let of_slot = self.jobs.get(&job).and_then(|job| job.slots.get(slot as usize));
        if of_slot.is_some_and(|slot| slot.former.contains(&id)) {
            // It was to end anyway.
            let (state, reason) = (ExecutionState::Cancelled, TextMax::truncated(super::submit::REPLACED));
            self.drop_execution(id, state, super::submit::REPLACED, What::Cancelled { reason }, now, view, out);
            return self.try_again(job, slot, now, view, out);
        }
        self.drop_execution(id, ExecutionState::Failed, cause, What::Lost, now, view, out);
        let Some(held) = self.jobs.get_mut(&job) else { return };
        held.blame(node, cause);
        self.troubles.lost(node, now.tick);
        match held.task.kind {
            JobKind::Ops if never_began => {
                if let Some(slot) = held.slots.get_mut(slot as usize) {
                    slot.failures += 1;
                    slot.rest(Some(Span::ZERO), now.tick);
                }
                self.try_again(job, slot, now, view, out);
            }
            // It may have begun there, and it is to run there once.
            JobKind::Ops => self.give_up(job, slot, cause, now, view, out),
            JobKind::Service | JobKind::Daemon => self.run_again(job, slot, ran, now, view, out),
            JobKind::Batch => {
                if let Some(slot) = held.slots.get_mut(slot as usize).filter(|_| !suspected) {
                    slot.failures += 1;
                }
                self.try_again(job, slot, now, view, out);
            }
        }
    }

    /// Takes an attempt out of the books.
    pub(super) fn drop_execution(
        &mut self,
        id: ExecutionId,
        state: ExecutionState,
        message: &str,
        what: What,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(mut execution) = self.executions.remove(&id) else { return };
        execution.become_state(state, message, now, out);
        let node = execution.record.node;
        if let Some(load) = self.own_load.get_mut(&node) {
            *load -= 1;
            if *load == 0 {
                self.own_load.remove(&node);
                self.unwatch(&node);
            }
        }
        self.timers.cancel(&Timer::Award(id));
        self.timers.cancel(&Timer::Lease(id));
        self.timers.cancel(&Timer::Attempt(id));
        if execution.result.is_some() && state != ExecutionState::Completed {
            out.now(Output::Drop(id));
        }
        self.keep_ended(&execution.record, out);
        self.wake_waiting(now);
        let Some(job) = self.jobs.get_mut(&execution.record.job) else { return };
        if let Some(slot) = job.slots.get_mut(execution.record.slot as usize) {
            slot.live.remove(&id);
            slot.former.remove(&id);
        }
        // That a result counts is told when nothing can take it back any more.
        let when = job.durable_if(matches!(what, What::Accepted { .. }));
        job.tell_when(when, now.unix, view, Some(&execution.record), None, what, out);
    }

    /// Calls off every live attempt of a job, or of one slot of it.
    pub(super) fn cancel_live(
        &mut self,
        job: JobId,
        slot: Option<u32>,
        reason: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let of_slot =
            |record: &crate::record::ExecutionRecord| record.job == job && slot.is_none_or(|s| s == record.slot);
        let Some(held) = self.jobs.get(&job) else { return };
        let live = held.slots.iter().flat_map(super::job::Slot::all_live);
        let live = live.filter(|id| self.executions.get(id).is_some_and(|execution| of_slot(&execution.record)));
        let live: Vec<ExecutionId> = live.collect();
        self.call_off(&live, reason, now, view, out);
    }

    /// Calls these attempts off, and waits for none of them.
    pub(super) fn call_off(
        &mut self,
        attempts: &[ExecutionId],
        reason: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        for &id in attempts {
            let Some(execution) = self.executions.get(&id) else { continue };
            let to = execution.record.node;
            let finished = execution.result.is_some();
            let reason = TextMax::truncated(reason);
            // A finished one is released; a running one is stopped. Should the word be lost, the next beat asks again.
            let message = if finished {
                Market::Release { execution: id }
            } else {
                Market::Cancel { execution: id, reason: reason.clone() }
            };
            // After an award that waits for the disk, so that it does not overtake it.
            let waits = execution.award.as_ref().is_some_and(|award| award.task.exclusive);
            let message = Output::Send { to, message };
            let job = self.jobs.get(&execution.record.job);
            let when = if waits { job.map_or(When::AfterSync, super::job::Job::durable) } else { When::Now };
            out.push(when, message);
            self.drop_execution(
                id,
                ExecutionState::Cancelled,
                &reason,
                What::Cancelled { reason: reason.clone() },
                now,
                view,
                out,
            );
        }
    }

    /// Whoever comes back may have missed what was said meanwhile.
    pub(super) fn resend_to(&mut self, peer: NodeId, now: Now, out: &mut Outbox<Output>) {
        for (id, execution) in &mut self.executions {
            if execution.record.node != peer {
                continue;
            }
            execution.resend = RESEND_MIN;
            if execution.award.is_some() {
                self.timers.set(Timer::Award(*id), now.tick);
            } else {
                out.now(Output::Send { to: peer, message: Market::Query { execution: *id } });
            }
        }
    }
}
