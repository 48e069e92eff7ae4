//! What users ask for: a job, a new version of one, its end.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::job::{Slot, forget_execution};
use super::state::{State, Timer, new_job};
use super::{Answer, Output, Submission};
use crate::content::Cid;
use crate::id::{ExecutionId, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::outbox::{Outbox, When};
use crate::record::{JobRecord, JobStateRecord, Record, What};
use crate::time::{Now, Span, UnixMillis};
use crate::view::View;
use crate::wire::bounded::{BytesMax, TextMax};
use crate::wire::market::{Market, Phase};
use crate::wire::task::Task;

impl State {
    pub(super) fn submit(&mut self, submission: Submission, now: Now, view: &View, out: &mut Outbox<Output>) {
        let request = submission.request;
        if let Some(job) = self.jobs.get(&submission.id) {
            if job.task.kind.is_endless() {
                return self.replace(submission, now, view, out);
            }
            let version = job.task.version;
            return out.push(job.durable(), Output::Answer(request, Answer::Accepted { version, linger: false }));
        }
        if self.jobs.len() >= self.config.open_jobs_max {
            let message = format!("{} jobs are open, as many as this node keeps", self.jobs.len());
            return out.now(Output::Answer(request, Answer::Busy(message)));
        }
        let Some(record) = record_of(&submission, 1, now.unix, now) else { return too_long(request, out) };
        let Submission { id, total_timeout, elsewhere, waits, guarded, here, .. } = submission;
        let mut job = new_job(&record, now.tick);
        job.guarded = guarded;
        if guarded {
            out.now(Output::Guard(id));
        }
        out.now(Output::Persist(Record::Job(Box::new(record))));
        if job.task.kind.is_endless() {
            // One of that name may have ended this moment.
            let (state, message) = (JobState::Pending, TextMax::default());
            out.now(Output::Persist(Record::JobState(JobStateRecord { id, state, message, modified: now.unix })));
        }
        job.tell(now.unix, view, None, None, What::Submitted, out);
        let answer = Answer::Accepted { version: 1, linger: waits };
        job.answer_when_held(request, answer, here, self.signer.node(), now, view, out);
        if let Some(total) = total_timeout {
            self.timers.set(Timer::JobLimit(id), now.tick + total);
        }
        self.jobs.insert(id, job);
        self.first_round(id, elsewhere, now, view, out);
    }

    /// Asks for bids when it is known who holds the inputs, of which `elsewhere` are not held here.
    fn first_round(&mut self, id: JobId, elsewhere: Vec<Cid>, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if elsewhere.is_empty() {
            if job.task.content_inputs().next().is_some() {
                job.near.insert(self.signer.node());
            }
            return self.round_due(id, now, view, out);
        }
        let until = now.tick + self.config.providers_wait;
        job.near_until = Some(until);
        out.now(Output::FindProviders(id, elsewhere));
        self.timers.set(Timer::Round(id), until);
    }

    /// A new version of an endless job takes the place of the one that is there. What runs of that goes on until its
    /// successor runs, unless two must never run at one time.
    fn replace(&mut self, submission: Submission, now: Now, view: &View, out: &mut Outbox<Output>) {
        let (request, id) = (submission.request, submission.id);
        let Some(job) = self.jobs.get(&id) else { return };
        let same = job.spec_hash == <[u8; 32]>::from(Sha256::digest(&submission.spec));
        let version = job.task.version;
        if same && !submission.force {
            return out.push(job.durable(), Output::Answer(request, Answer::Unchanged(version)));
        }
        if job.task.kind != submission.task.kind {
            let (is, wanted) = (job.task.kind.name(), submission.task.kind.name());
            let message = format!("it is a {is} and cannot become a {wanted}; stop it first");
            return out.now(Output::Answer(request, Answer::Unlike(message)));
        }
        let created = job.created_at;
        let Some(record) = record_of(&submission, version + 1, created, now) else { return too_long(request, out) };
        self.leave_round(id, out);
        let Some(mut old) = self.jobs.remove(&id) else { return };
        let mut job = new_job(&record, old.created);
        out.now(Output::Persist(Record::Job(Box::new(record))));
        (job.state, job.ran, job.events, job.waiting_since) = (old.state, old.ran, old.events, now.tick);
        // As it is submitted here, its environment is known, whoever led it before.
        job.guarded = old.guarded;
        if let Some((request, answer)) = old.answer.take() {
            out.push(job.durable(), Output::Answer(request, answer));
        }
        job.tell(now.unix, view, None, None, What::Version { number: version + 1 }, out);
        let surplus = old.slots.split_off(old.slots.len().min(job.slots.len().max(old_targets(&old.slots))));
        let past = surplus.iter().flat_map(|slot| slot.past.iter().copied()).collect::<Vec<_>>();
        let surplus: Vec<ExecutionId> = surplus.iter().flat_map(Slot::all_live).collect();
        for (index, slot) in old.slots.into_iter().enumerate() {
            if index >= job.slots.len() {
                job.slots.push(Slot::default());
            }
            let former = slot.all_live().collect();
            job.slots[index] = Slot { target: slot.target, past: slot.past, former, ..Slot::default() };
            // Whoever did not match the version before may match this one.
            job.persist_target(index, "", out);
        }
        self.jobs.insert(id, job);
        self.make_way(id, now, view, out);
        self.call_off(&surplus, "its job has fewer slots now", now, view, out);
        let gone = past.into_iter().chain(surplus.into_iter().map(|execution| (execution, None)));
        gone.for_each(|(execution, root)| forget_execution(id, execution, root, out));
        let answer = Answer::Accepted { version: version + 1, linger: submission.waits };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.answer_when_held(request, answer, submission.here, self.signer.node(), now, view, out);
        }
        self.first_round(id, submission.elsewhere, now, view, out);
    }

    /// Attempts of a version that has been replaced: those that run go on for now, or are called off if no two may run at
    /// one time; all others are called off at once.
    fn make_way(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (strict, durable, mut idle) = (job.strict, job.durable(), Vec::new());
        let former: BTreeSet<ExecutionId> = job.slots.iter().flat_map(|slot| slot.former.iter().copied()).collect();
        for attempt in former {
            let Some(execution) = self.executions.get_mut(&attempt) else { continue };
            // After a restart of ours only the record tells.
            let running = execution.record.state == ExecutionState::Running;
            let runs = (running || execution.phase == Some(Phase::Running)) && execution.result.is_none();
            if !strict && !runs {
                idle.push(attempt);
            } else if strict {
                execution.called_off = true;
                // Behind an award that waits for the disk, and instead of saying that again.
                let waits = execution.award.take().is_some();
                let message = Market::Cancel { execution: attempt, reason: TextMax::truncated(REPLACED) };
                let message = Output::Send { to: execution.record.node, message };
                out.push(if waits { durable } else { When::Now }, message);
                self.timers.cancel(&Timer::Award(attempt));
                self.arm_lease(attempt);
            }
        }
        self.call_off(&idle, REPLACED, now, view, out);
    }

    /// Gives up the round that is open, and the bids in it.
    pub(super) fn leave_round(&mut self, id: JobId, out: &mut Outbox<Output>) {
        self.timers.cancel(&Timer::Round(id));
        self.set_pause(id, Span::ZERO);
        let Some(round) = self.jobs.get_mut(&id).and_then(|job| job.round.take()) else { return };
        self.asks.remove(&round.ask);
        for (node, bid) in &round.bids {
            out.now(Output::Send { to: *node, message: Market::BidRelease { boot: bid.boot, bid: bid.bid } });
        }
    }

    pub(super) fn providers(&mut self, id: JobId, nodes: BTreeSet<NodeId>, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.near.extend(nodes);
        if job.near_until.take().is_some() {
            self.timers.set(Timer::Round(id), now.tick);
        }
    }

    pub(super) fn stop(
        &mut self,
        request: u64,
        id: JobId,
        reason: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(durable) = self.jobs.get(&id).map(super::job::Job::durable) else {
            out.now(Output::Answer(request, Answer::NotOpen));
            return;
        };
        let reason = if reason.is_empty() { "stopped by its user" } else { reason };
        self.end(id, JobState::Stopped, reason.into(), now, view, out);
        out.push(durable, Output::Answer(request, Answer::Stopped));
    }
}

/// Why runs of a former version end.
pub(super) const REPLACED: &str = "a new version takes its place";

fn too_long(request: u64, out: &mut Outbox<Output>) {
    out.now(Output::Answer(request, Answer::Busy("the spec is too long to be kept".into())));
}

/// Slots that are some node's, which a new version keeps.
fn old_targets(slots: &[Slot]) -> usize {
    if slots.iter().any(|slot| slot.target.is_some()) { slots.len() } else { 0 }
}

fn record_of(submission: &Submission, version: u32, created: UnixMillis, now: Now) -> Option<JobRecord> {
    Some(JobRecord {
        id: submission.id,
        namespace: submission.namespace.clone(),
        name: submission.name.clone(),
        spec: BytesMax::new(submission.spec.clone()).ok()?,
        task: Task { slots: submission.slots, version, ..submission.task.clone() },
        lease: submission.lease,
        created,
        submitted: now.unix,
        strict: submission.strict,
        queue_timeout_ms: submission.queue_timeout.as_millis(),
        total_timeout_ms: submission.total_timeout.map(Span::as_millis),
        only_here: submission.only_here,
    })
}
