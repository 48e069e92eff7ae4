//! Rounds: ask a few nodes, wait for their bids, give each open slot to the best one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom as _;

use super::Output;
use super::job::{Execution, Job, Round, Slot, Unfit};
use super::state::{State, Timer};
use crate::id::{ExecutionId, JobId, NodeId};
use crate::job::state::{ExecutionState, JobState};
use crate::limits::{
    ASK_TIMEOUT, ASKED_PER_SLOT, ATTEMPTS_MAX, BID_WINDOW, CALL_AGAIN, CALL_PAUSE, CALL_WANT_MAX, HOLDER_WINDOW,
    NO_FIT_TIMEOUT, RESEND_MIN,
};
use crate::outbox::Outbox;
use crate::record::{ExecutionRecord, Record, What};
use crate::time::{Now, Span, Tick};
use crate::view::View;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::market::{Ask, Award, Bid, Decline, Market};
use crate::wire::task::{JobKind, Task};

/// First pause after a round in which nobody bid; it doubles up to [`PAUSE_MAX`].
pub(super) const PAUSE_MIN: Span = Span::millis(100);
pub(super) const PAUSE_MAX: Span = Span::secs(5);
/// Between two looks whether this node may decide again.
const PAUSE_MAX_UNSURE: Span = Span::millis(500);
/// Milliseconds that fetching an input costs at least, and bytes that come in each further one. A guess that is good
/// enough to prefer a node that has the data over one that has not, unless that one is much less busy.
const FETCH_MS: u64 = 20;
const FETCH_BYTES_PER_MS: u64 = 10_000;
/// What an attempt that a node lost lately adds to its bid.
const TROUBLE_MS: u64 = 500;
/// Bids that differ by less than this are alike, and chance decides.
const ALIKE_MS: u64 = 5;

impl State {
    /// The round's timer fired: start one, or close the one that is open.
    pub(super) fn round_due(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        if self.may_be_led_elsewhere(&id) {
            // Should another decide on it by now, it may have ended.
            self.leave_round(id, out);
            return self.timers.set(Timer::Round(id), now.tick + PAUSE_MAX_UNSURE);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.near_until = None;
        if job.round.is_some() {
            return self.close_round(id, now, view, out);
        }
        // What is more urgent has the first word, once; this one comes right after it.
        let yields = !std::mem::replace(&mut job.yielded, true);
        let priority = job.task.priority;
        if let Some(urgent) = self.most_urgent(priority).filter(|_| yields) {
            self.timers.set(Timer::Round(id), now.tick + PAUSE_MIN);
            return self.open_round(urgent, now, view, out);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.yielded = false;
        }
        self.open_round(id, now, view, out);
    }

    /// The most urgent job that waits for a place, has asked nobody just now, and is more urgent than this.
    fn most_urgent(&self, than: i32) -> Option<JobId> {
        let mut waiting = self.waiting.iter().take_while(|(priority, ..)| priority.0 > than).map(|(_, _, id)| *id);
        waiting.find(|id| self.jobs.get(id).is_some_and(|job| job.round.is_none() && job.near_until.is_none()))
    }

    /// Notes how long a job that found no place waits before it tries again; zero for one that does not wait.
    pub(super) fn set_pause(&mut self, id: JobId, pause: Span) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let key = (Reverse(job.task.priority), job.created, id);
        job.pause = pause;
        if pause > Span::ZERO {
            self.waiting.insert(key)
        } else {
            self.waiting.remove(&key)
        };
    }

    /// A place of this owner's became free somewhere: whoever is the most urgent tries to have it.
    pub(super) fn wake_waiting(&mut self, now: Now) {
        if let Some(id) = self.most_urgent(i32::MIN) {
            self.timers.set_earlier(Timer::Round(id), now.tick);
        }
    }

    /// Jobs that wait for a place try at once when somebody new is there, and daemons run on whoever it is.
    pub(super) fn view_grew(&mut self, now: Now) {
        let idle = self.jobs.values().filter(|job| job.round.is_none() && job.near_until.is_none());
        let wants = |job: &&Job| job.pause > Span::ZERO || job.task.kind == JobKind::Daemon;
        let waiting: Vec<JobId> = idle.filter(wants).map(|job| job.id).collect();
        for job in waiting {
            self.timers.set_earlier(Timer::Round(job), now.tick);
        }
    }

    fn open_round(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        self.survey(id, now, view, out);
        let Some(job) = self.jobs.get(&id) else { return };
        let unsurveyed = job.task.kind.is_everywhere() && job.slots.is_empty();
        let open = || (0..).zip(&job.slots).filter(|(_, slot)| slot.is_open(&self.executions));
        let due: Vec<u32> = open().filter(|(_, slot)| slot.not_before <= now.tick).map(|(index, _)| index).collect();
        if job.adopted && !job.task.env.is_empty() && (unsurveyed || !due.is_empty()) {
            return self.fail(id, super::group::ENV_LOST.into(), now, view, out);
        }
        if due.is_empty() && !unsurveyed {
            let daemon = job.task.kind == JobKind::Daemon;
            if let Some(next) = open().map(|(_, slot)| slot.not_before).min() {
                self.timers.set(Timer::Round(id), next);
            } else if daemon {
                self.timers.set(Timer::Round(id), now.tick + super::everywhere::LOOK_AGAIN);
            }
            self.set_pause(id, Span::ZERO);
            return;
        }
        if job.task.kind.is_everywhere() && !unsurveyed {
            let asked = self.targets(id, &due, now, view, out);
            if asked.is_empty() {
                return self.next_targets(id, now, view, out);
            }
            return self.ask(id, asked, 1, now, view, out);
        }
        self.ask_some(id, &due, now, view, out);
    }

    /// Asks a few nodes for the slots that are due.
    fn ask_some(&mut self, id: JobId, due: &[u32], now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let open: Vec<&Slot> = due.iter().filter_map(|slot| job.slots.get(*slot as usize)).collect();
        let want = open.len();
        let (mut fit, unfit) = job.fitting(&self.signer.node(), view, now);
        fit.retain(|node| !job.is_unfit(node, view));
        if !job.only_here && (fit.is_empty() || (fit.len() < want && job.pause > Span::ZERO)) {
            call(&job.task, [&mut job.called, &mut self.called], want.saturating_sub(fit.len()), now, out);
        }
        if fit.is_empty() {
            return self.nobody_fits(id, unfit, now, view, out);
        }
        job.unfit_since = None;
        // Nodes that already failed at every open slot come last: only when nobody else is left.
        let fresh: Vec<NodeId> =
            fit.iter().filter(|node| open.iter().any(|slot| !slot.tried.contains(node))).copied().collect();
        // Of nodes that are gone nobody may know yet that they are.
        let there = |node: &NodeId| view.is_connected(node) || *node == self.signer.node();
        let candidates = if fresh.iter().any(there) { fresh } else { fit };
        // Where many say that they never could, more are asked at a time.
        let count = ASKED_PER_SLOT.max(want.min(64) * 2).max(job.unfit.len().min(64)).min(candidates.len());
        let load = self.troubles.added_to(&self.own_load, now.tick);
        let asked = view.draw(&candidates, &job.near, &load, count, &mut self.rng);
        self.ask(id, asked, u32::try_from(want).unwrap_or(u32::MAX), now, view, out);
    }

    fn ask(&mut self, id: JobId, asked: Vec<NodeId>, want: u32, now: Now, view: &View, out: &mut Outbox<Output>) {
        let token = self.next_token(&id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let message = Market::Ask(Ask { ask: token, job: id, want, task: job.task.without_env_values() });
        for node in &asked {
            out.now(Output::Send { to: *node, message: message.clone() });
        }
        let nodes = u32::try_from(asked.len()).unwrap_or(u32::MAX);
        job.tell(now.unix, view, None, None, What::Asked { nodes, slots: want }, out);
        let unfit = job.unfit.len();
        job.round = Some(Round { ask: token, asked: asked.into_iter().collect(), bids: BTreeMap::new(), unfit });
        self.asks.insert(token, id);
        self.timers.set(Timer::Round(id), now.tick + ASK_TIMEOUT);
    }

    /// No known node could ever run it. Newcomers are waited for a moment, then the user is told why, node by node.
    fn nobody_fits(
        &mut self,
        id: JobId,
        unfit: BTreeMap<NodeId, String>,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // What somebody could run before is worth as much patience as a queue; a suspected holder is no reason to wait.
        let trusted = |id: &ExecutionId| self.executions.get(id).is_some_and(|execution| !execution.suspected);
        let busy = job.slots.iter().any(|slot| slot.live.iter().any(trusted))
            // What once ran is kept running when that is possible again; a daemon's nodes may all come later.
            || job.task.kind.is_endless() && (job.ran || job.task.kind == JobKind::Daemon);
        let since = *job.unfit_since.get_or_insert(now.tick);
        let patience = if job.fitted { job.queue_timeout } else { NO_FIT_TIMEOUT };
        if now.tick.since(since) < patience || busy {
            let wait = if busy { PAUSE_MAX } else { Span::millis(250) };
            self.set_pause(id, PAUSE_MIN);
            self.timers.set(Timer::Round(id), now.tick + wait);
            return;
        }
        let said = job.unfit.iter().map(|(node, unfit)| (*node, unfit.reason.clone())).collect::<Vec<_>>();
        for (node, reason) in unfit.into_iter().chain(said) {
            job.blame(node, reason);
        }
        let reasons = job.blames(view);
        let message = if reasons.is_empty() {
            "no node that runs jobs is known".to_owned()
        } else {
            format!("no known node can run this job:\n{reasons}")
        };
        self.fail(id, message, now, view, out);
    }

    pub(super) fn bid(&mut self, from: NodeId, bid: Bid, now: Now, view: &View, out: &mut Outbox<Output>) {
        let job = self.asks.get(&bid.ask).and_then(|id| self.jobs.get_mut(id));
        let round = job.and_then(|job| Some((job.id, job.round.as_mut()?)));
        let Some((id, round)) = round.filter(|(_, round)| round.asked.contains(&from)) else {
            // Too late: the node need not wait for an award.
            out.now(Output::Send { to: from, message: Market::BidRelease { boot: bid.boot, bid: bid.bid } });
            return;
        };
        if round.bids.contains_key(&from) {
            return;
        }
        let what = What::Bid { wait_ms: bid.wait_ms, bytes_held: bid.bytes_held };
        round.bids.insert(from, bid);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.fitted = true;
        job.tell(now.unix, view, None, Some(from), what, out);
        self.narrow_round(id, &from, now, view, out);
    }

    /// What `from` answered leaves less to wait for: nothing, or a short while for bids that are better than those here.
    fn narrow_round(&mut self, id: JobId, from: &NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(round) = &job.round else { return };
        if round.bids.len() == round.asked.len() {
            return self.close_round(id, now, view, out);
        }
        if round.bids.is_empty() {
            return;
        }
        let holder_owes = job.near.iter().any(|node| round.asked.contains(node) && !round.bids.contains_key(node));
        let least = if holder_owes { HOLDER_WINDOW } else { BID_WINDOW };
        let window = view.rtt(from).unwrap_or_default().times(2).max(least);
        self.timers.set_earlier(Timer::Round(id), now.tick + window);
    }

    pub(super) fn decline(&mut self, from: NodeId, decline: &Decline, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(id) = self.asks.get(&decline.ask).copied() else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(round) = job.round.as_mut().filter(|round| round.asked.contains(&from)) else { return };
        round.asked.remove(&from);
        round.bids.remove(&from);
        let reasons: Vec<&str> = decline.reasons.iter().map(|reason| &**reason).collect();
        let reason = if reasons.is_empty() { "gave no reason".into() } else { reasons.join("; ") };
        let everywhere = job.task.kind.is_everywhere();
        if decline.later {
            job.fitted = true;
        } else if !everywhere {
            let epoch = view.epoch(&from).unwrap_or_default();
            job.unfit.insert(from, Unfit { epoch, reason: reason.clone() });
        }
        job.blame(from, reason.clone());
        job.tell(now.unix, view, None, Some(from), What::Declined { reason: TextMax::truncated(&reason) }, out);
        if everywhere && !decline.later {
            self.unmatch(id, &from, &reason, now, view, out);
        }
        self.narrow_round(id, &from, now, view, out);
    }

    fn close_round(&mut self, id: JobId, now: Now, view: &View, out: &mut Outbox<Output>) {
        if self.may_be_led_elsewhere(&id) {
            return self.round_due(id, now, view, out);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(round) = job.round.take() else { return };
        self.timers.cancel(&Timer::Round(id));
        self.asks.remove(&round.ask);
        for silent in round.asked.iter().filter(|node| !round.bids.contains_key(node)) {
            job.blame(*silent, "did not answer");
        }
        let mut bids: Vec<(NodeId, Bid)> = round.bids.into_iter().collect();
        bids.shuffle(&mut self.rng);
        let inputs = job.task.content_inputs().count() as u64;
        let most = bids.iter().map(|(_, bid)| bid.bytes_held).max().unwrap_or(0);
        bids.sort_by_key(|(node, bid)| {
            let trouble = self.troubles.with(node, now.tick) * TROUBLE_MS;
            (cost(bid, inputs, most) + trouble) / ALIKE_MS
        });
        let learned = job.unfit.len() > round.unfit;
        self.give(id, bids, now, view, out);
        self.after_round(id, learned, now, view, out);
    }

    /// Gives open slots to bids, best first, at most as many to each as it offered, and releases what is left.
    fn give(&mut self, id: JobId, bids: Vec<(NodeId, Bid)>, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut open: Vec<u32> =
            (0..).zip(&job.slots).filter(|(_, s)| s.is_open(&self.executions)).map(|(i, _)| i).collect();
        // A slot that rests is not filled before; one of a node that was asked is that node's turn.
        open.retain(|slot| {
            let slot = &job.slots[*slot as usize];
            slot.target.is_some() || slot.not_before <= now.tick
        });
        open.reverse();
        // Whoever bids is alive: what it runs for a slot already, it will tell of in a moment.
        let holds = |slot: u32, node: &NodeId| {
            let live = job.slots.get(slot as usize).into_iter().flat_map(|slot| &slot.live);
            live.filter_map(|id| self.executions.get(id)).any(|execution| execution.record.node == *node)
        };
        // In a job that runs everywhere, each slot is one node's.
        let others = |slot: u32, node: &NodeId| {
            job.slots.get(slot as usize).and_then(|slot| slot.target).is_some_and(|target| target != *node)
        };
        let held: BTreeSet<(u32, NodeId)> = open
            .iter()
            .flat_map(|slot| bids.iter().map(|(node, _)| (*slot, *node)))
            .filter(|(slot, node)| holds(*slot, node) || others(*slot, node))
            .collect();
        let award_when = job.durable_if(job.task.exclusive);
        let rivals = bids.len();
        let best = bids.iter().map(|(_, bid)| bid.wait_ms).min().unwrap_or(0);
        // One place each in turn, so that many slots spread over many bidders instead of filling the first.
        let mut places: Vec<u32> = bids.iter().map(|(_, bid)| bid.places).collect();
        let mut used = vec![false; bids.len()];
        'slots: while !open.is_empty() {
            let before = open.len();
            for (index, (node, bid)) in bids.iter().enumerate() {
                if places[index] == 0 {
                    continue;
                }
                if open.is_empty() {
                    break 'slots;
                }
                let Some(next) = open.iter().rposition(|slot| !held.contains(&(*slot, *node))) else { continue };
                let slot = open.remove(next);
                places[index] -= 1;
                used[index] = true;
                let why = why(bid, rivals, best);
                self.award(id, slot, *node, bid, &why, now, view, out);
            }
            if open.len() == before {
                break;
            }
        }
        for (index, (node, bid)) in bids.iter().enumerate() {
            if !used[index] || places[index] > 0 {
                let release = Output::Send { to: *node, message: Market::BidRelease { boot: bid.boot, bid: bid.bid } };
                // Behind the award that uses another place of the same bid.
                out.push(award_when, release);
            }
        }
    }

    fn award(
        &mut self,
        id: JobId,
        slot: u32,
        node: NodeId,
        bid: &Bid,
        why: &str,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let token = self.next_token(&id);
        let execution = ExecutionId::new(&id, slot, token, &node);
        let mac = self.award_mac(&execution);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let award = Award {
            execution,
            job: id,
            slot,
            token,
            boot: bid.boot,
            bid: bid.bid,
            task: job.task.clone(),
            lease: job.lease,
            mac,
        };
        let record = ExecutionRecord {
            id: execution,
            job: id,
            slot,
            version: job.task.version,
            node,
            token,
            state: ExecutionState::Awarded,
            message: TextMax::default(),
            ports: ListMax::default(),
            accepted: false,
            created: now.unix,
            modified: now.unix,
            result: None,
        };
        out.now(Output::Persist(Record::Execution(Box::new(record.clone()))));
        job.tell(now.unix, view, Some(&record), None, What::Awarded { why: TextMax::truncated(why) }, out);
        let message = Output::Send { to: node, message: Market::Award(award.clone()) };
        out.push(job.durable_if(job.task.exclusive), message);
        job.ran = true;
        let state = &mut job.slots[slot as usize];
        state.tried.insert(node);
        state.live.insert(execution);
        self.executions.insert(execution, Execution::new(record, Some(award), now.tick));
        *self.own_load.entry(node).or_default() += 1;
        self.timers.set(Timer::Award(execution), now.tick + RESEND_MIN);
        self.arm_lease(execution);
        self.arm_attempt(execution, now);
        self.watch(node, now);
    }

    /// Slots that nobody took wait a little longer each time, until the queue's patience ends.
    fn after_round(&mut self, id: JobId, learned: bool, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.task.kind.is_everywhere() {
            return self.next_targets(id, now, view, out);
        }
        if !job.slots.iter().any(|slot| slot.is_open(&self.executions)) {
            return self.set_pause(id, Span::ZERO);
        }
        let trusted = |id: &ExecutionId| self.executions.get(id).is_some_and(|execution| !execution.suspected);
        let running = job.slots.iter().any(|slot| slot.live.iter().any(trusted));
        if running || job.ran && job.task.kind.is_endless() {
            job.waiting_since = now.tick;
        } else if now.tick.since(job.waiting_since) > job.queue_timeout {
            let waited = job.queue_timeout.as_millis() / 1_000;
            let message = format!("no place was free for {waited} s (QueueTimeout):\n{}", job.blames(view));
            return self.fail(id, message, now, view, out);
        }
        let (fit, _) = job.fitting(&self.signer.node(), view, now);
        let all_unfit = fit.iter().all(|node| job.is_unfit(node, view));
        if !all_unfit && job.state == JobState::Pending {
            let reason = job.blames(view).replace('\n', "; ");
            job.tell(now.unix, view, None, None, What::Queued { reason: TextMax::truncated(&reason) }, out);
            self.set_state(id, JobState::Queued, &reason, now, out);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // Whoever could never run it is out of the way now: the others are asked at once.
        let pause = if all_unfit || learned {
            PAUSE_MIN
        } else {
            Span(job.pause.0.saturating_mul(2)).clamp(PAUSE_MIN, PAUSE_MAX)
        };
        self.set_pause(id, pause);
        self.timers.set(Timer::Round(id), now.tick + pause);
    }

    /// A slot lost an attempt by a node's doing: try elsewhere, unless it was one time too many.
    pub(super) fn try_again(&mut self, id: JobId, slot: u32, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let failures = job.slots.get(slot as usize).map_or(0, |slot| slot.failures);
        let idle = job.slots.get(slot as usize).is_none_or(|slot| slot.live.is_empty());
        if failures >= ATTEMPTS_MAX && idle && !job.task.kind.is_endless() {
            if job.task.kind.is_everywhere() {
                return self.give_up(id, slot, "it was tried too often", now, view, out);
            }
            let message = format!("it was tried {failures} times:\n{}", job.blames(view));
            return self.fail(id, message, now, view, out);
        }
        if job.round.is_none() {
            job.waiting_since = now.tick;
            let rested = job.slots.get(slot as usize).map_or(now.tick, |slot| slot.not_before);
            self.timers.set_earlier(Timer::Round(id), rested.max(now.tick));
        }
    }
}

/// Calls for nodes that the view lacks, not too often: for one job, and in all.
fn call(task: &Task, called: [&mut Option<Tick>; 2], want: usize, now: Now, out: &mut Outbox<Output>) {
    let rested = |at: &Option<Tick>, pause| at.is_none_or(|at| now.tick.since(at) >= pause);
    let [for_job, in_all] = called;
    if !rested(for_job, CALL_AGAIN) || !rested(in_all, CALL_PAUSE) {
        return;
    }
    (*for_job, *in_all) = (Some(now.tick), Some(now.tick));
    let want = u32::try_from(want).unwrap_or(u32::MAX).clamp(1, CALL_WANT_MAX);
    out.now(Output::Call { engine: task.engine.engine(), resources: task.resources, want });
}

/// Milliseconds until a bidder could have the program running, as far as one can guess: its queue, and the fetching of
/// what it lacks of the `most` input bytes that any bidder holds.
fn cost(bid: &Bid, inputs: u64, most: u64) -> u64 {
    let lacking = most.saturating_sub(bid.bytes_held);
    let fetch = match (lacking, bid.bytes_held) {
        (0, 1..) => 0,
        (0, 0) => inputs.min(1) * FETCH_MS,
        _ => FETCH_MS + lacking / FETCH_BYTES_PER_MS,
    };
    u64::from(bid.wait_ms) + fetch
}

/// Why a bid won, for people.
fn why(bid: &Bid, rivals: usize, best_wait: u32) -> String {
    let mut reasons = Vec::new();
    if bid.bytes_held > 0 {
        reasons.push(format!("holds {} of what it needs", crate::job::format_bytes(bid.bytes_held)));
    }
    if bid.wait_ms == 0 {
        reasons.push("is free".into());
    } else if bid.wait_ms == best_wait {
        reasons.push(format!("shortest queue (about {} ms)", bid.wait_ms));
    }
    if rivals == 1 {
        reasons.push("the only bid".into());
    }
    if let Some([a, b, c, d, ..]) = bid.image {
        reasons.push(format!("image sha256:{a:02x}{b:02x}{c:02x}{d:02x}…"));
    }
    reasons.join(", ")
}
