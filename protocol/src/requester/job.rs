//! A job, its slots and its attempts, as the machine holds them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::content::Cid;
use crate::id::{ExecutionId, FencingToken, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::limits::{HISTORY_MAX, RESEND_MIN, REST_MAX, REST_MIN};
use crate::outbox::{Outbox, When};
use crate::record::{ExecutionRecord, JobEvent, Record, TargetRecord, What};
use crate::requester::Output;
use crate::time::{Now, Span, Tick, UnixMillis};
use crate::view::View;
use crate::wire::bounded::TextMax;
use crate::wire::market::{Bid, InlineBlock, Lease, ResultBody};
use crate::wire::task::Task;

/// A job that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) task: Task,
    /// What its user wrote, in short.
    pub(super) spec_hash: [u8; 32],
    pub(super) lease: Lease,
    /// Whether the runs of the version before must have ended before one of this version begins.
    pub(super) strict: bool,
    pub(super) state: JobState,
    pub(super) created: Tick,
    /// The same by the wall clock of then.
    pub(super) created_at: UnixMillis,
    /// Since when it has had an open slot that nobody runs.
    pub(super) waiting_since: Tick,
    pub(super) queue_timeout: Span,
    /// Whether any run of it was begun: an endless job of which one was is waited for, however long.
    pub(super) ran: bool,
    /// Whether only this node can run it.
    pub(super) only_here: bool,
    /// Whether some node could ever run it: then its absence is waited out.
    pub(super) fitted: bool,
    /// Since when no known node could.
    pub(super) unfit_since: Option<Tick>,
    pub(super) slots: Vec<Slot>,
    /// Nodes that hold inputs.
    pub(super) near: BTreeSet<NodeId>,
    /// Until when the answer to "who holds the inputs?" is waited for.
    pub(super) near_until: Option<Tick>,
    pub(super) round: Option<Round>,
    /// When nodes that are not known here were called for.
    pub(super) called: Option<Tick>,
    /// Whether it let something more urgent go first.
    pub(super) yielded: bool,
    /// Pause before the next round, growing while nobody bids.
    pub(super) pause: Span,
    /// Nodes that said they could never run it, and why.
    pub(super) unfit: BTreeMap<NodeId, Unfit>,
    /// Why attempts failed and nodes declined, newest per node; what the user is told if the job fails.
    pub(super) causes: BTreeMap<NodeId, String>,
    /// The order in which they came, so that the first real cause is told first.
    pub(super) cause_order: Vec<NodeId>,
    pub(super) events: u32,
    /// Whether a group keeps it.
    pub(super) guarded: bool,
    /// Nodes that shall hold a result of it, if its user said how many.
    pub(super) replicas: Option<u8>,
    /// Whether another node led it before: then the values of its environment are not known here.
    pub(super) adopted: bool,
    /// Inputs that nobody else is known to hold yet, and what its user is told when somebody does.
    pub(super) unheld: BTreeSet<Cid>,
    pub(super) answer: Option<(u64, super::Answer)>,
}

/// Why a node could never run it, by its word in this life of its: in another, its operator may say otherwise.
#[derive(Debug, Clone)]
pub(super) struct Unfit {
    pub(super) epoch: u64,
    pub(super) reason: String,
}

/// One slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    /// Attempts that failed by a node's doing.
    pub(super) failures: u32,
    /// Awards refused.
    pub(super) refusals: u32,
    /// Nodes that were tried.
    pub(super) tried: BTreeSet<NodeId>,
    /// Attempts that may still bring a result.
    pub(super) live: BTreeSet<ExecutionId>,
    /// The accepted one.
    pub(super) accepted: Option<ExecutionId>,
    /// The one node that may fill it, in a job that runs everywhere.
    pub(super) target: Option<NodeId>,
    /// That node said in this life that it does not match.
    pub(super) unmatched: Option<u64>,
    /// It stays empty, though others of its job go on.
    pub(super) given_up: bool,
    /// Nobody is asked to fill it before.
    pub(super) not_before: Tick,
    /// How often in a row its target was asked in vain, and how often what filled it ended soon.
    pub(super) asks: u32,
    pub(super) restarts: u32,
    /// Attempts of the version before, which go on until one of this version runs.
    pub(super) former: BTreeSet<ExecutionId>,
    /// Ended attempts of an endless job that are kept, the oldest first, and their results.
    pub(super) past: VecDeque<(ExecutionId, Option<Cid>)>,
}

/// One question to a few nodes.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) ask: FencingToken,
    pub(super) asked: BTreeSet<NodeId>,
    pub(super) bids: BTreeMap<NodeId, Bid>,
    /// How many nodes were known never to run it when it began.
    pub(super) unfit: usize,
}

/// An attempt.
#[derive(Debug, Clone)]
pub(super) struct Execution {
    pub(super) record: ExecutionRecord,
    /// The bid that the award names, while it may have to be sent again.
    pub(super) award: Option<crate::wire::market::Award>,
    pub(super) resend: Span,
    /// When its holder was last heard about it.
    pub(super) heard: Tick,
    pub(super) suspected: bool,
    /// However its holder behaves, it is over by then.
    pub(super) end_by: Tick,
    /// It was told to stop, and is replaced once it has.
    pub(super) called_off: bool,
    /// Its holder said that it has no such award, which was made in a former life of ours.
    pub(super) never_came: bool,
    /// Its holder is not heard; it is waited for, until its lease would be over.
    pub(super) silent: bool,
    /// When it began to run, as far as is known.
    pub(super) running_since: Option<Tick>,
    /// The furthest phase that its holder told of.
    pub(super) phase: Option<crate::wire::market::Phase>,
    /// The result, once it came.
    pub(super) result: Option<ResultBody>,
    /// All of its blocks, if they came along.
    pub(super) blocks: Vec<InlineBlock>,
    /// Whether another node is asked to hold it, too.
    pub(super) replicating: bool,
}

impl Slot {
    /// Whether somebody should run it: nobody unsuspected does.
    pub(super) fn is_open(&self, executions: &BTreeMap<ExecutionId, Execution>) -> bool {
        let trusted = |id: &ExecutionId| executions.get(id).is_some_and(|execution| !execution.suspected);
        // One that was called off must have stopped before another may begin.
        let ending = |id: &ExecutionId| executions.get(id).is_some_and(|execution| execution.called_off);
        !self.is_settled() && !self.live.iter().any(trusted) && !self.former.iter().any(ending)
    }

    /// Whether nothing more is to be done about it.
    pub(super) fn is_settled(&self) -> bool {
        self.accepted.is_some() || self.given_up || self.unmatched.is_some()
    }

    /// Every attempt that is not over.
    pub(super) fn all_live(&self) -> impl Iterator<Item = ExecutionId> {
        self.live.iter().chain(&self.former).copied()
    }

    /// What filled it ended after so long, if that is known. How long it rests now: not at all the first time, then longer
    /// with each that ends soon.
    pub(super) fn rest(&mut self, ran: Option<Span>, now: Tick) -> Span {
        if ran.is_none_or(|ran| ran >= REST_MAX) {
            self.restarts = 0;
        }
        let doubled = REST_MIN.0.checked_shl(self.restarts.saturating_sub(1)).unwrap_or(u64::MAX);
        let rest = if self.restarts == 0 { Span::ZERO } else { Span(doubled).min(REST_MAX) };
        // No more than makes the longest rest.
        self.restarts = (self.restarts + 1).min(16);
        self.not_before = now + rest;
        rest
    }
}

impl Job {
    /// When what somebody will rely on may be done.
    pub(super) fn durable(&self) -> When {
        if self.guarded { When::AfterQuorum(self.id.tag()) } else { When::AfterSync }
    }

    /// The same, or at once if nobody will.
    pub(super) fn durable_if(&self, relied_on: bool) -> When {
        if relied_on { self.durable() } else { When::Now }
    }

    /// Adds a line to the job's story.
    pub(super) fn tell(
        &mut self,
        now: UnixMillis,
        view: &View,
        of: Option<&ExecutionRecord>,
        node: Option<NodeId>,
        what: What,
        out: &mut Outbox<Output>,
    ) {
        self.tell_when(When::Now, now, view, of, node, what, out);
    }

    pub(super) fn tell_when(
        &mut self,
        when: When,
        at: UnixMillis,
        view: &View,
        of: Option<&ExecutionRecord>,
        node: Option<NodeId>,
        what: What,
        out: &mut Outbox<Output>,
    ) {
        let needed = matches!(what, What::Ended { .. } | What::Accepted { .. });
        if self.events >= HISTORY_MAX && self.task.kind.is_endless() {
            // What happened lately is what matters of a job that goes on and on.
            out.now(Output::Persist(Record::DropEvent(self.id, self.events - HISTORY_MAX)));
        } else if self.events >= HISTORY_MAX && !needed {
            return;
        }
        let node = node.or_else(|| of.map(|execution| execution.node));
        let label = node.map(|node| view.label(&node)).unwrap_or_default();
        let event = JobEvent { at, execution: of.map(|e| e.id), node, label: TextMax::truncated(&label), what };
        let sequence = self.events;
        self.events += 1;
        // Written with the step it tells of; told when that may be relied on.
        out.now(Output::Persist(Record::Event(self.id, sequence, event.clone())));
        let told = Output::Tell(self.id, sequence, event);
        out.push(when, told);
    }

    /// Remembers a slot that is one node's, and why it stays empty if it does. Nothing for a slot that is anybody's.
    pub(super) fn persist_target(&self, index: usize, cause: &str, out: &mut Outbox<Output>) {
        let Some(slot) = self.slots.get(index) else { return };
        let Some(node) = slot.target else { return };
        let (unmatched, given_up, cause) = (slot.unmatched, slot.given_up, TextMax::truncated(cause));
        let slot = u32::try_from(index).unwrap_or(u32::MAX);
        let record = TargetRecord { job: self.id, slot, node, unmatched, given_up, cause };
        out.now(Output::Persist(Record::Target(record)));
    }

    /// Every known node that could ever run it, and why each other one could not; `me` alone, if only that one may.
    pub(super) fn fitting(&self, me: &NodeId, view: &View, now: Now) -> (Vec<NodeId>, BTreeMap<NodeId, String>) {
        let (mut fit, mut unfit) = view.fitting(&self.task, now.unix);
        if self.only_here {
            fit.retain(|node| node == me);
            unfit.retain(|node, _| node == me);
        }
        (fit, unfit)
    }

    /// Whether this node said, in the life in which it is, that it could never run it.
    pub(super) fn is_unfit(&self, node: &NodeId, view: &View) -> bool {
        let epoch = view.epoch(node);
        self.unfit.get(node).is_some_and(|unfit| epoch.is_none_or(|epoch| epoch == unfit.epoch))
    }

    /// Remembers why `node` did not do it.
    pub(super) fn blame(&mut self, node: NodeId, cause: impl Into<String>) {
        if self.causes.insert(node, cause.into()).is_none() {
            self.cause_order.push(node);
        }
    }

    /// Every cause, a line per node, in the order in which they came.
    pub(super) fn blames(&self, view: &View) -> String {
        let line = |node: &NodeId| Some(format!("{}: {}", view.label(node), self.causes.get(node)?));
        self.cause_order.iter().filter_map(line).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn is_done(&self) -> bool {
        !self.slots.is_empty() && !self.task.kind.is_endless() && self.slots.iter().all(Slot::is_settled)
    }
}

/// Lets go of an ended attempt that was kept, and of what it left.
pub(super) fn forget_execution(job: JobId, execution: ExecutionId, root: Option<Cid>, out: &mut Outbox<Output>) {
    out.now(Output::Persist(Record::DropExecution(job, execution)));
    if let Some(root) = root {
        out.now(Output::Unpin { execution, job, root });
    }
}

impl Execution {
    /// An attempt whose holder is given from now on to be heard; with its award while that may have to be said again.
    pub(super) fn new(record: ExecutionRecord, award: Option<crate::wire::market::Award>, now: Tick) -> Self {
        Self {
            record,
            award,
            resend: RESEND_MIN,
            heard: now,
            suspected: false,
            end_by: now,
            called_off: false,
            never_came: false,
            silent: false,
            running_since: None,
            phase: None,
            result: None,
            blocks: Vec::new(),
            replicating: false,
        }
    }

    /// Moves to `state` and says so in a record.
    pub(super) fn become_state(&mut self, state: ExecutionState, message: &str, now: Now, out: &mut Outbox<Output>) {
        if self.record.state.is_terminal() {
            return;
        }
        self.record.state = state;
        self.record.message = TextMax::truncated(message);
        self.record.modified = now.unix;
        out.now(Output::Persist(Record::Execution(Box::new(self.record.clone()))));
    }
}
