//! A job, its slots and its attempts, as the machine holds them.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ExecutionId, FencingToken, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::limits::{HISTORY_MAX, PORTS_MAX, RESEND_MIN};
use crate::outbox::{Outbox, When};
use crate::record::{ExecutionRecord, JobEvent, Record, What};
use crate::requester::Output;
use crate::time::{Now, Span, Tick, UnixMillis};
use crate::view::View;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::market::{Bid, Lease, ResultBody};
use crate::wire::task::{OpenPort, Task};

/// A job that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) task: Task,
    pub(super) lease: Lease,
    pub(super) state: JobState,
    pub(super) created: Tick,
    /// Since when it has had an open slot that nobody runs.
    pub(super) waiting_since: Tick,
    pub(super) queue_timeout: Span,
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
    /// Pause before the next round, growing while nobody bids.
    pub(super) pause: Span,
    /// Nodes that said they could never run it, and why.
    pub(super) unfit: BTreeMap<NodeId, String>,
    /// Why attempts failed and nodes declined, newest per node; what the user is told if the job fails.
    pub(super) causes: BTreeMap<NodeId, String>,
    /// The order in which they came, so that the first real cause is told first.
    pub(super) cause_order: Vec<NodeId>,
    pub(super) events: u32,
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
}

/// One question to a few nodes.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) ask: FencingToken,
    pub(super) asked: BTreeSet<NodeId>,
    pub(super) bids: BTreeMap<NodeId, Bid>,
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
    /// The furthest phase that its holder told of.
    pub(super) phase: Option<crate::wire::market::Phase>,
    /// Where it answers.
    pub(super) ports: ListMax<OpenPort, PORTS_MAX>,
    /// The result, once it came.
    pub(super) result: Option<ResultBody>,
}

impl Slot {
    /// Whether somebody should run it: nobody unsuspected does.
    pub(super) fn is_open(&self, executions: &BTreeMap<ExecutionId, Execution>) -> bool {
        let trusted = |id: &ExecutionId| executions.get(id).is_some_and(|execution| !execution.suspected);
        self.accepted.is_none() && !self.live.iter().any(trusted)
    }
}

impl Job {
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
        if self.events >= HISTORY_MAX && !needed {
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

    /// Every known node that could ever run it, and why each other one could not; `me` alone, if only that one may.
    pub(super) fn fitting(&self, me: &NodeId, view: &View, now: Now) -> (Vec<NodeId>, BTreeMap<NodeId, String>) {
        let (mut fit, mut unfit) = view.fitting(&self.task, now.unix);
        if self.only_here {
            fit.retain(|node| node == me);
            unfit.retain(|node, _| node == me);
        }
        (fit, unfit)
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
        self.slots.iter().all(|slot| slot.accepted.is_some())
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
            phase: None,
            ports: ListMax::default(),
            result: None,
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
