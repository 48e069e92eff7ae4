//! Jobs that a group keeps: taken over from another node, given up to one, held twice.

use super::job::Job;
use super::state::{State, Timer};
use super::{Answer, Output};
use crate::content::Cid;
use crate::guardian::{Replica, Taken};
use crate::id::{ExecutionId, JobId, NodeId};
use crate::limits::{REPLICA_BYTES_MAX, REPLICA_TIMEOUT};
use crate::outbox::Outbox;
use crate::record::What;
use crate::time::{Now, Span};
use crate::view::View;
use crate::wire::bounded::TextMax;

/// Why a job fails that was taken over before anybody ran it to its end.
pub(super) const ENV_LOST: &str = "it has to be run anew, and the values of its environment, which guardians never see, \
     are known only to the node at which it was submitted";

impl State {
    /// This node leads from now: its machine goes on where the one before it was.
    pub(super) fn adopt(&mut self, taken: Taken, now: Now, view: &View, out: &mut Outbox<Output>) {
        let tag = taken.owner.tag();
        self.abandon(&tag);
        self.unled.remove(&tag);
        self.epochs.insert(tag, taken.epoch);
        let from = view.label(&taken.from);
        let jobs: Vec<JobId> = taken.open.jobs.iter().map(|(job, _)| job.id).collect();
        let other = taken.from != self.signer.node();
        self.replay(taken.open, true, now, view, out);
        for id in jobs.into_iter().filter(|_| other) {
            if let Some(job) = self.jobs.get_mut(&id) {
                let what = What::Adopted { from: TextMax::truncated(&from) };
                job.tell(now.unix, view, None, Some(self.signer.node()), what, out);
            }
        }
    }

    /// Others decide now: what is known here of these jobs is of no more use.
    pub(super) fn abandon(&mut self, tag: &[u8; 5]) {
        let gone: Vec<JobId> =
            self.jobs.values().filter(|job| job.guarded && job.id.tag() == *tag).map(|job| job.id).collect();
        self.epochs.remove(tag);
        for id in gone {
            self.timers.cancel(&Timer::Round(id));
            self.timers.cancel(&Timer::JobLimit(id));
            self.set_pause(id, Span::ZERO);
            let Some(job) = self.jobs.remove(&id) else { continue };
            if let Some(round) = &job.round {
                self.asks.remove(&round.ask);
            }
            let live: Vec<ExecutionId> = job.slots.iter().flat_map(super::job::Slot::all_live).collect();
            for id in live {
                self.forget_attempt(id);
            }
        }
    }

    /// Nobody else decides: what had to wait goes on.
    pub(super) fn sure_again(&mut self, tag: &[u8; 5], now: Now) {
        if self.unsure.remove(tag) {
            let waiting = self.jobs.values().filter(|job| job.guarded && job.id.tag() == *tag);
            for id in waiting.map(|job| job.id).collect::<Vec<_>>() {
                self.timers.set_earlier(Timer::Round(id), now.tick);
            }
        }
    }

    /// Whether a group keeps this job, of which somebody else may be deciding by now.
    pub(super) fn may_be_led_elsewhere(&self, job: &JobId) -> bool {
        self.unsure.contains(&job.tag()) && self.jobs.get(job).is_some_and(|job| job.guarded)
    }

    fn forget_attempt(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.remove(&id) else { return };
        for timer in [Timer::Award(id), Timer::Lease(id), Timer::Attempt(id)] {
            self.timers.cancel(&timer);
        }
        let node = execution.record.node;
        if let Some(load) = self.own_load.get_mut(&node) {
            *load -= 1;
            if *load == 0 {
                self.own_load.remove(&node);
                self.unwatch(&node);
            }
        }
    }

    /// A result is held here. If a group keeps its job, another node shall hold it, too, before anybody is told.
    pub(super) fn held_here(&mut self, id: ExecutionId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let Some(job) = self.jobs.get_mut(&execution.record.job).filter(|job| job.guarded) else {
            return self.decide(id, now, view, out);
        };
        let Some((root, size)) = execution.result.as_ref().and_then(|body| Some((body.root?, body.size))) else {
            return self.decide(id, now, view, out);
        };
        let others = job.replicas.map_or(1, |replicas| replicas - 1);
        if size > REPLICA_BYTES_MAX && job.replicas.is_none() {
            job.tell(now.unix, view, Some(&execution.record), None, What::OneCopy { size }, out);
            return self.decide(id, now, view, out);
        }
        if others == 0 {
            return self.decide(id, now, view, out);
        }
        if std::mem::replace(&mut execution.replicating, true) {
            return;
        }
        let blocks = std::mem::take(&mut execution.blocks);
        let (job, maker) = (job.id, execution.record.node);
        // A mebibyte a second is little; what is small is held in a moment, or not at all.
        let patience = Span(REPLICA_TIMEOUT.0 + Span::millis(size.saturating_sub(REPLICA_BYTES_MAX) >> 10).0);
        out.now(Output::Replicate(Box::new(Replica { job, root, size, maker, blocks, others, patience })));
        self.timers.set(Timer::Attempt(id), now.tick + patience + patience);
    }

    /// Another node holds it, too, or none could in time.
    pub(super) fn replicated(
        &mut self,
        id: JobId,
        root: Cid,
        others: u8,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.unheld.remove(&root) {
            if others == 0 {
                job.tell(now.unix, view, None, None, What::OneCopy { size: 0 }, out);
            }
            if job.unheld.is_empty()
                && let Some((request, answer)) = job.answer.take()
            {
                out.push(job.durable(), Output::Answer(request, answer));
            }
        }
        let waits = |execution: &&super::job::Execution| {
            let result = execution.result.as_ref().and_then(|body| body.root);
            execution.record.job == id && execution.replicating && result == Some(root)
        };
        let waiting: Vec<_> =
            self.executions.values().filter(waits).map(|execution| execution.record.clone()).collect();
        for record in waiting {
            if let Some(job) = self.jobs.get_mut(&id) {
                let wanted = job.replicas.unwrap_or(2);
                let what = match others {
                    0 => Some(What::OneCopy { size: record.body().map_or(0, |body| body.size) }),
                    others if others + 1 < wanted => Some(What::FewCopies { copies: others + 1, wanted }),
                    _ => None,
                };
                if let Some(what) = what {
                    job.tell(now.unix, view, Some(&record), None, what, out);
                }
            }
            self.decide(record.id, now, view, out);
        }
    }
}

impl Job {
    /// Answers its user when what it reads is not only here, as far as a group keeps it.
    pub(super) fn answer_when_held(
        &mut self,
        request: u64,
        answer: Answer,
        here: Vec<(Cid, u64)>,
        me: NodeId,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let size = here.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        if !self.guarded || here.is_empty() {
            return out.push(self.durable(), Output::Answer(request, answer));
        }
        if size > REPLICA_BYTES_MAX {
            self.tell(now.unix, view, None, None, What::OneCopy { size }, out);
            return out.push(self.durable(), Output::Answer(request, answer));
        }
        for (root, size) in here {
            if self.unheld.insert(root) {
                let (blocks, patience) = (Vec::new(), REPLICA_TIMEOUT);
                let replica = Replica { job: self.id, root, size, maker: me, blocks, others: 1, patience };
                out.now(Output::Replicate(Box::new(replica)));
            }
        }
        self.answer = Some((request, answer));
    }
}
