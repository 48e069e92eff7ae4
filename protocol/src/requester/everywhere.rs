//! Jobs that run on every node that matches: once on each for ops, kept running on each for daemons.
//!
//! Each slot is one node's. Who matches, the nodes themselves say: all that could be meant are asked, and one that declines
//! for good does not match. For ops the nodes are those known when the first of them is; for daemons whoever comes later is
//! asked then, and whoever comes back, since its labels may be others now.

use std::collections::{BTreeMap, BTreeSet};

use super::Output;
use super::job::{Job, Slot};
use super::round::{PAUSE_MAX, PAUSE_MIN};
use super::state::{State, Timer};
use crate::id::{ExecutionId, JobId, NodeId};
use crate::limits::{TARGETS_ASKED_MAX, TARGETS_MAX};
use crate::outbox::Outbox;
use crate::record::What;
use crate::time::{Now, Span, Tick};
use crate::view::View;
use crate::wire::task::JobKind;

/// Between two looks of a daemon for nodes on which it does not run yet.
pub(super) const LOOK_AGAIN: Span = Span::secs(30);

impl State {
    /// Finds the nodes on which such a job runs.
    pub(super) fn survey(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.signer.node();
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.task.kind.is_everywhere()) else { return };
        if job.task.kind == JobKind::Ops && !job.slots.is_empty() {
            job.task.slots = u32::try_from(job.slots.len()).unwrap_or(u32::MAX);
            return;
        }
        let (fit, _) = job.fitting(&me, view, now);
        let known: BTreeMap<NodeId, usize> =
            job.slots.iter().enumerate().filter_map(|(index, slot)| Some((slot.target?, index))).collect();
        for node in fit {
            let epoch = view.epoch(&node).unwrap_or_default();
            let index = match known.get(&node) {
                Some(&index) if job.slots[index].unmatched.is_some_and(|then| then != epoch) => index,
                Some(_) => continue,
                None => {
                    let Some(index) = job.room_for_target(view) else { break };
                    index
                }
            };
            let Slot { past, former, live, .. } = std::mem::take(&mut job.slots[index]);
            job.slots[index] = Slot { target: Some(node), past, former, live, not_before: now.tick, ..Slot::default() };
            job.persist_target(index, "", out);
        }
        job.task.slots = u32::try_from(job.slots.len()).unwrap_or(u32::MAX);
    }

    /// Nodes to ask for the slots that are due: as many as there are, up to a limit. None if all of them are away.
    pub(super) fn targets(
        &mut self,
        id: JobId,
        due: &[u32],
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) -> Vec<NodeId> {
        let me = self.signer.node();
        let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
        let (fit, _) = job.fitting(&me, view, now);
        let fit: BTreeSet<NodeId> = fit.into_iter().collect();
        let (mut asked, mut unmatched) = (Vec::new(), Vec::new());
        for slot in due {
            let Some(slot) = job.slots.get_mut(*slot as usize) else { continue };
            let Some(node) = slot.target else { continue };
            if asked.len() == TARGETS_ASKED_MAX {
                break;
            }
            slot.asked(now.tick);
            if fit.contains(&node) {
                asked.push(node);
            } else if let Some(reason) = view.mismatch(&node, &job.task) {
                unmatched.push((node, reason));
            } else {
                job.blame(node, "is not heard of any more");
            }
        }
        for (node, reason) in unmatched {
            self.unmatch(id, &node, &reason, now, view, out);
        }
        asked
    }

    /// A node does not match.
    pub(super) fn unmatch(
        &mut self,
        id: JobId,
        node: &NodeId,
        cause: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(index) = job.slot_of(node) else { return };
        job.slots[index].unmatched = Some(view.epoch(node).unwrap_or_default());
        job.persist_target(index, cause, out);
        job.blame(*node, cause);
        // What it matched before, it runs no more either.
        let former: Vec<ExecutionId> = job.slots[index].former.iter().copied().collect();
        self.call_off(&former, "the node does not match any more", now, view, out);
    }

    /// When such a job asks again; it may be done by now.
    pub(super) fn next_targets(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        // Somebody may have come while others were asked.
        self.survey(id, now, view, out);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let ops = job.task.kind == JobKind::Ops;
        if ops && now.tick.since(job.created) > job.queue_timeout {
            let open = (0..).zip(&job.slots).filter(|(_, slot)| slot.is_open(&self.executions));
            let late: Vec<u32> = open.map(|(index, _)| index).collect();
            for slot in late {
                self.give_up(id, slot, "could not be had in time (QueueTimeout)", now, view, out);
            }
        }
        let Some(job) = self.jobs.get(&id) else { return };
        if job.is_done() {
            return self.conclude(id, now, view, out);
        }
        let open = job.slots.iter().filter(|slot| slot.is_open(&self.executions));
        let next = open.map(|slot| slot.not_before).min();
        // A daemon looks for newcomers whenever the view grows; and now and then, since whoever is in it may have become fit.
        match next {
            Some(at) => self.timers.set(Timer::Round(id), at.max(now.tick)),
            None if job.task.kind == JobKind::Daemon => self.timers.set(Timer::Round(id), now.tick + LOOK_AGAIN),
            None => self.timers.cancel(&Timer::Round(id)),
        }
    }

    /// A slot of an ops job stays empty; the others go on.
    pub(super) fn give_up(
        &mut self,
        id: JobId,
        slot: u32,
        cause: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(held) = job.slots.get_mut(slot as usize).filter(|held| !held.is_settled()) else { return };
        held.given_up = true;
        let Some(node) = held.target else { return };
        // What it said last is the real cause.
        let cause = job.causes.get(&node).cloned().unwrap_or_else(|| cause.to_owned());
        job.persist_target(slot as usize, &cause, out);
        job.blame(node, cause);
        job.tell(now.unix, view, None, Some(node), What::GivenUp, out);
        if job.is_done() {
            self.conclude(id, now, view, out);
        }
    }
}

impl Job {
    /// The slot of a node.
    pub(super) fn slot_of(&self, node: &NodeId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.target.as_ref() == Some(node))
    }

    /// A slot for one more node: a new one, or that of a node that is gone.
    fn room_for_target(&mut self, view: &View) -> Option<usize> {
        if self.slots.len() < TARGETS_MAX {
            self.slots.push(Slot::default());
            return Some(self.slots.len() - 1);
        }
        let gone = |slot: &Slot| slot.target.is_none_or(|node| view.get(&node).is_none());
        self.slots.iter().position(|slot| gone(slot) && slot.all_live().next().is_none())
    }

    /// How an ops job ended: with what failed, node by node, if anything did.
    pub(super) fn outcome_everywhere(&self, view: &View) -> Result<(), String> {
        let done = self.slots.iter().filter(|slot| slot.accepted.is_some()).count();
        let failed: BTreeSet<NodeId> =
            self.slots.iter().filter(|slot| slot.given_up).filter_map(|slot| slot.target).collect();
        if done == 0 && failed.is_empty() {
            return Err(format!("no known node can run this job:\n{}", self.blames(view)));
        }
        if failed.is_empty() {
            return Ok(());
        }
        let line = |node: &NodeId| Some(format!("{}: {}", view.label(node), self.causes.get(node)?));
        let lines: Vec<String> =
            self.cause_order.iter().filter(|node| failed.contains(node)).filter_map(line).collect();
        Err(format!("{} of {} nodes failed:\n{}", failed.len(), failed.len() + done, lines.join("\n")))
    }
}

impl Slot {
    /// Its node is asked; should nothing come of it, it is asked again, after a longer pause each time.
    fn asked(&mut self, now: Tick) {
        let pause = PAUSE_MIN.0.checked_shl(self.asks).unwrap_or(u64::MAX);
        self.asks = (self.asks + 1).min(16);
        self.not_before = now + Span(pause).min(PAUSE_MAX);
    }
}
