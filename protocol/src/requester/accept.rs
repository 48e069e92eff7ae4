//! Results: check, bring home, accept one, end the job.

use super::state::{State, Timer};
use super::{Fetch, Output};
use crate::id::{ExecutionId, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::outbox::{Outbox, When};
use crate::record::{JobStateRecord, Record, What};
use crate::time::Now;
use crate::view::View;
use crate::wire::bounded::TextMax;
use crate::wire::codec;
use crate::wire::market::{Market, Outcome, Phase, RESULT_BODY_BYTES_MAX, ResultBody, SignedResult, Text};
use crate::wire::signed::{Domain, verify};
use crate::wire::task::JobKind;

impl State {
    pub(super) fn result(
        &mut self,
        from: NodeId,
        result: SignedResult,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let id = result.execution;
        let Some(execution) = self.executions.get(&id).filter(|execution| execution.record.node == from) else {
            let body = codec::decode::<ResultBody>(&result.body, RESULT_BODY_BYTES_MAX);
            if self.is_unled(&id) || body.is_ok_and(|body| self.unled.contains_key(&body.job.tag())) {
                return;
            }
            // Decided long ago, or another's: in both cases the sender need not keep it for us.
            out.now(Output::Send { to: from, message: Market::Release { execution: id } });
            return;
        };
        if execution.result.is_some() {
            out.now(Output::Send { to: from, message: Market::ResultAck { execution: id } });
            return;
        }
        let body = match self.check_result(&result, from) {
            Ok(body) => body,
            Err(reason) => {
                self.lose(id, reason, now, view, out);
                return;
            }
        };
        self.take_result(body, result, now, view, out);
    }

    /// The body, if it is what the awarded peer signed about this very award.
    fn check_result(&self, result: &SignedResult, from: NodeId) -> Result<ResultBody, &'static str> {
        let body: ResultBody =
            codec::decode(&result.body, RESULT_BODY_BYTES_MAX).map_err(|_| "sent a malformed result")?;
        if !verify(Domain::Result, &self.signer.network(), &from, &result.body, &result.signature) {
            return Err("sent a result with a forged signature");
        }
        let record = &self.executions.get(&result.execution).ok_or("sent a result for nothing")?.record;
        let guarded = self.jobs.get(&record.job).is_some_and(|job| job.guarded);
        let bound = body.execution == record.id
            && body.job == record.job
            && body.slot == record.slot
            && body.maker == from
            // Whoever led before marked it, and no mark is needed of what is in the books.
            && (guarded || body.mac == self.award_mac(&record.id));
        match body.outcome {
            _ if !bound => Err("sent a result for another award"),
            Outcome::Completed { .. } if body.root.is_none() => Err("sent a result without content"),
            _ => Ok(body),
        }
    }

    fn take_result(&mut self, body: ResultBody, result: SignedResult, now: Now, view: &View, out: &mut Outbox<Output>) {
        let id = body.execution;
        let Some(execution) = self.executions.get_mut(&id) else { return };
        execution.award = None;
        execution.heard = now.tick;
        execution.record.result = Some((result.body, result.signature));
        execution.result = Some(body.clone());
        execution.blocks = result.blocks.to_vec();
        execution.become_state(ExecutionState::Publishing, "", now, out);
        let record = execution.record.clone();
        self.timers.cancel(&Timer::Award(id));
        // The holder has done its part; from here the time is the transfer's.
        self.timers.cancel(&Timer::Lease(id));
        self.arm_fetch(id, body.size, now);
        out.now(Output::Send { to: record.node, message: Market::ResultAck { execution: id } });
        let (exit_code, cause) = match &body.outcome {
            Outcome::Completed { exit_code } => (Some(*exit_code), Text::default()),
            Outcome::Failed { cause, .. } | Outcome::NodeFailed { cause, .. } => (None, cause.clone()),
            Outcome::Cancelled => (None, TextMax::truncated("it was stopped")),
        };
        if let Some(job) = self.jobs.get_mut(&record.job) {
            let what = What::Result { exit_code, cause: cause.clone(), size: body.size };
            job.tell(now.unix, view, Some(&record), None, what, out);
        }
        match body.outcome {
            Outcome::Completed { .. } | Outcome::Failed { .. } => match body.root {
                Some(root) => out.now(Output::Fetch(Box::new(Fetch {
                    execution: id,
                    job: record.job,
                    maker: record.node,
                    root,
                    size: body.size,
                    blocks: result.blocks.into_vec(),
                }))),
                None => self.decide(id, now, view, out),
            },
            Outcome::NodeFailed { .. } | Outcome::Cancelled => {
                out.now(Output::Send { to: record.node, message: Market::Release { execution: id } });
                self.lose(id, &cause, now, view, out);
            }
        }
    }

    pub(super) fn fetched(
        &mut self,
        id: ExecutionId,
        held: Result<(), String>,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(execution) = self.executions.get(&id) else {
            out.now(Output::Drop(id));
            return;
        };
        let failed_job = matches!(execution.result.as_ref().map(|r| &r.outcome), Some(Outcome::Failed { .. }))
            || self.jobs.get(&execution.record.job).is_some_and(|job| job.task.kind.is_endless());
        match held {
            Ok(()) => self.held_here(id, now, view, out),
            // What a failed program printed is worth having, but its job has failed without it too.
            Err(_) if failed_job => self.decide(id, now, view, out),
            Err(cause) => self.lose(id, &format!("its result could not be fetched: {cause}"), now, view, out),
        }
    }

    /// The bytes are here, and elsewhere if they should be: the slot is filled, or the job has failed.
    pub(super) fn decide(&mut self, id: ExecutionId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let Some(body) = execution.result.clone() else { return };
        let (job, slot, node) = (execution.record.job, execution.record.slot, execution.record.node);
        let kind = self.jobs.get(&job).map(|job| job.task.kind).unwrap_or_default();
        let durable = self.jobs.get(&job).map_or(When::AfterSync, super::job::Job::durable);
        if kind.is_endless() {
            return self.endless_ended(id, &body, now, view, out);
        }
        let Some(execution) = self.executions.get_mut(&id) else { return };
        if let Outcome::Failed { cause, .. } = &body.outcome {
            execution.become_state(ExecutionState::Failed, cause, now, out);
            execution.result = None;
            self.drop_execution(id, ExecutionState::Failed, cause, What::Phase(Phase::Ended), now, view, out);
            verdict(durable, node, id, false, out);
            if kind == JobKind::Ops {
                return self.give_up(job, slot, cause, now, view, out);
            }
            self.fail(job, cause.to_string(), now, view, out);
            return;
        }
        self.troubles.done(&node);
        execution.record.accepted = true;
        execution.become_state(ExecutionState::Completed, "", now, out);
        if let Some(state) = self.jobs.get_mut(&job).and_then(|job| job.slots.get_mut(slot as usize)) {
            state.accepted = Some(id);
        }
        verdict(durable, node, id, true, out);
        let what = body.root.map_or(What::Phase(Phase::Ended), |root| What::Accepted { root });
        self.drop_execution(id, ExecutionState::Completed, "", what, now, view, out);
        self.cancel_live(job, Some(slot), "another node was first", now, view, out);
        if self.jobs.get(&job).is_some_and(super::job::Job::is_done) {
            self.conclude(job, now, view, out);
        }
    }

    /// All slots are filled, or given up.
    pub(super) fn conclude(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get(&id) else { return };
        match if job.task.kind == JobKind::Ops { job.outcome_everywhere(view) } else { Ok(()) } {
            Ok(()) => self.end(id, JobState::Completed, String::new(), now, view, out),
            Err(message) => self.fail(id, message, now, view, out),
        }
    }

    pub(super) fn fail(&mut self, job: JobId, message: String, now: Now, view: &View, out: &mut Outbox<Output>) {
        self.end(job, JobState::Failed, message, now, view, out);
    }

    /// Ends a job. Whoever watches it is told when that is on disk.
    pub(super) fn end(
        &mut self,
        id: JobId,
        state: JobState,
        message: String,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        if !self.jobs.contains_key(&id) {
            return;
        }
        let reason = if state == JobState::Stopped { message.as_str() } else { "its job has ended" };
        self.cancel_live(id, None, reason, now, view, out);
        self.leave_round(id, out);
        self.timers.cancel(&Timer::JobLimit(id));
        let Some(mut job) = self.jobs.remove(&id) else { return };
        let message = TextMax::truncated(&message);
        let record = JobStateRecord { id, state, message: message.clone(), modified: now.unix };
        out.now(Output::Persist(Record::JobState(record)));
        if let Some((request, answer)) = job.answer.take() {
            out.push(job.durable(), Output::Answer(request, answer));
        }
        job.tell_when(job.durable(), now.unix, view, None, None, What::Ended { state, message }, out);
    }
}

/// Tells whoever made a result whether it counts, and that it need not be kept for us any more.
pub(super) fn verdict(when: When, maker: NodeId, execution: ExecutionId, accepted: bool, out: &mut Outbox<Output>) {
    out.push(when, Output::Send { to: maker, message: Market::Verdict { execution, accepted } });
    out.push(when, Output::Send { to: maker, message: Market::Release { execution } });
}
