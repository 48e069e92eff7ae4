//! Jobs that go on until they are told to stop: whatever ends of theirs is started again, after a rest that grows while
//! it keeps ending soon.

use super::Output;
use super::job::forget_execution;
use super::state::{State, Timer};
use crate::id::{ExecutionId, JobId};
use crate::job::state::ExecutionState;
use crate::limits::ENDED_KEPT_MAX;
use crate::outbox::Outbox;
use crate::record::{ExecutionRecord, What};
use crate::time::{Now, Span};
use crate::view::View;
use crate::wire::market::{Outcome, Phase, ResultBody};

impl State {
    /// A run ended by its own doing, and what it left is held here as far as it can be had.
    pub(super) fn endless_ended(
        &mut self,
        id: ExecutionId,
        body: &ResultBody,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(execution) = self.executions.get(&id) else { return };
        let (job, slot, node) = (execution.record.job, execution.record.slot, execution.record.node);
        let ran = execution.running_since.map(|since| now.tick.since(since));
        let (state, cause) = match &body.outcome {
            Outcome::Completed { .. } => (ExecutionState::Completed, String::new()),
            Outcome::Failed { cause, .. } | Outcome::NodeFailed { cause, .. } => {
                (ExecutionState::Failed, cause.to_string())
            }
            Outcome::Cancelled => (ExecutionState::Cancelled, "it was stopped".to_owned()),
        };
        self.troubles.done(&node);
        let durable = self.jobs.get(&job).map_or(crate::outbox::When::AfterSync, super::job::Job::durable);
        super::accept::verdict(durable, node, id, true, out);
        if let Some(execution) = self.executions.get_mut(&id) {
            // Kept, not dropped.
            execution.result = None;
        }
        self.drop_execution(id, state, &cause, What::Phase(Phase::Ended), now, view, out);
        self.run_again(job, slot, ran, now, view, out);
    }

    /// A slot is to be filled again, after a rest.
    pub(super) fn run_again(
        &mut self,
        id: JobId,
        slot: u32,
        ran: Option<Span>,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(held) = job.slots.get_mut(slot as usize).filter(|held| held.live.is_empty()) else { return };
        let rest = held.rest(ran, now.tick);
        job.tell(now.unix, view, None, None, What::Again { rest_ms: rest.as_millis() }, out);
        if job.round.is_none() {
            self.timers.set_earlier(Timer::Round(id), now.tick + rest);
        }
    }

    /// Keeps the last few ended attempts of an endless job's slot, and lets go of those before.
    pub(super) fn keep_ended(&mut self, record: &ExecutionRecord, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&record.job).filter(|job| job.task.kind.is_endless()) else { return };
        let Some(slot) = job.slots.get_mut(record.slot as usize) else { return };
        slot.past.push_back((record.id, record.root()));
        while slot.past.len() > ENDED_KEPT_MAX {
            let Some((execution, root)) = slot.past.pop_front() else { return };
            forget_execution(record.job, execution, root, out);
        }
    }
}
