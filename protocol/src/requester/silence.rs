//! Silence: when a holder is not heard any more, is it gone, or are we?
//!
//! Peers with live attempts are heard every second (the driver sees to it). One that is silent for `max(2 s, 8 round
//! trips)` with its connection gone, or three times as long with the connection seemingly up, is suspected: a copy of what
//! it runs is started elsewhere, as far as a token bucket allows. When more than half of all holders fall silent together,
//! the fault is more likely ours, and nothing is done until one of them is heard or the silence lasts.

use super::Output;
use super::state::{State, Timer};
use crate::id::{ExecutionId, NodeId};
use crate::limits::{SUSPECT_AFTER_MIN, SUSPECT_AFTER_RTTS};
use crate::outbox::Outbox;
use crate::record::What;
use crate::time::{Now, Span, Tick};
use crate::view::View;
use crate::wire::market::Phase;
use crate::wire::task::JobKind;

/// Holders from which a majority can tell something.
const HOLDERS_MIN: usize = 3;
/// For how long a common silence is put down to ourselves.
const SELF_SUSPICION: Span = Span::secs(15);
/// Time that passed unnoticed, timers and all, after which we know that we slept.
const SUSPENDED_AFTER: Span = Span::secs(5);
/// Copies that may be started at once, and the time that earns another.
const COPIES_MAX: u64 = 16;
const COPY_EARNED: Span = Span::millis(500);
/// How long a node may be silent that has a result which waits for its operator's word.
const WITHHELD_SILENCE: Span = Span::secs(900);
/// Why an attempt is given up of whose node nothing is heard.
pub(super) const FELL_SILENT: &str = "fell silent while it had the job";

/// What is known of a holder's voice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    at: Tick,
    down: bool,
    suspected: bool,
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: u64,
    earned: Tick,
}

impl Bucket {
    pub(super) fn new(now: Tick) -> Self {
        Self { tokens: COPIES_MAX, earned: now }
    }

    fn take(&mut self, now: Tick) -> bool {
        let earned = now.since(self.earned).0 / COPY_EARNED.0;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(COPIES_MAX);
            self.earned = now;
        }
        let some = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        some
    }
}

impl State {
    /// Begins to listen for `peer`, which has an award of ours.
    pub(super) fn watch(&mut self, peer: NodeId, now: Now) {
        // What this node runs itself ends with it.
        if peer == self.signer.node() {
            return;
        }
        self.peers.entry(peer).or_insert(Heard { at: now.tick, down: false, suspected: false });
        self.timers.set_earlier(Timer::Silence(peer), now.tick + SUSPECT_AFTER_MIN.times(3));
    }

    /// A machine that slept heard nobody; that is not its peers' silence.
    pub(super) fn notice_suspend(&mut self, now: Now) {
        if now.tick.since(self.last) > SUSPENDED_AFTER
            && self.deadline().is_some_and(|due| due + SUSPENDED_AFTER < now.tick)
        {
            for heard in self.peers.values_mut() {
                heard.at = now.tick;
            }
        }
        self.last = now.tick;
    }

    pub(super) fn unwatch(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
        self.timers.cancel(&Timer::Silence(*peer));
    }

    pub(super) fn heard(&mut self, peer: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(heard) = self.peers.get_mut(&peer) else { return };
        heard.at = now.tick;
        heard.down = false;
        if !std::mem::take(&mut heard.suspected) {
            return;
        }
        // Its copies go on: the first result wins. What it still runs may be told to stop then.
        for id in self.executions_of(&peer) {
            let Some(execution) = self.executions.get(&id) else { continue };
            let record = execution.record.clone();
            if let Some(job) = self.jobs.get_mut(&record.job) {
                job.tell(now.unix, view, Some(&record), None, What::Heard, out);
            }
            out.now(Output::Send { to: peer, message: crate::wire::market::Market::Query { execution: id } });
        }
    }

    pub(super) fn peer_up(&mut self, peer: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        self.heard(peer, now, view, out);
        self.resend_to(peer, now, out);
    }

    pub(super) fn peer_down(&mut self, peer: NodeId, now: Now) {
        if let Some(heard) = self.peers.get_mut(&peer) {
            heard.down = true;
            self.timers.set_earlier(Timer::Silence(peer), now.tick + SUSPECT_AFTER_MIN);
        }
    }

    pub(super) fn silence_due(&mut self, peer: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(&heard) = self.peers.get(&peer) else { return };
        let patience = view.rtt(&peer).unwrap_or_default().times(SUSPECT_AFTER_RTTS).max(SUSPECT_AFTER_MIN);
        let patience = if heard.down { patience } else { patience.times(3) };
        let silent = now.tick.since(heard.at);
        if silent < patience {
            self.timers.set(Timer::Silence(peer), heard.at + patience);
            return;
        }
        self.timers.set(Timer::Silence(peer), now.tick + SUSPECT_AFTER_MIN);
        if self.everybody_is_silent(now) && silent < SELF_SUSPICION {
            return;
        }
        self.suspect(peer, now, view, out);
    }

    fn everybody_is_silent(&self, now: Now) -> bool {
        let silent = self.peers.values().filter(|heard| now.tick.since(heard.at) >= SUSPECT_AFTER_MIN).count();
        self.peers.len() >= HOLDERS_MIN && silent * 2 > self.peers.len()
    }

    fn suspect(&mut self, peer: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        if let Some(heard) = self.peers.get_mut(&peer) {
            heard.suspected = true;
        }
        for id in self.executions_of(&peer) {
            let Some(execution) = self.executions.get_mut(&id) else { continue };
            let Some(job) = self.jobs.get_mut(&execution.record.job) else { continue };
            // A result that is being fetched speaks for itself; its transfer has a limit of its own.
            // So does, for a while, one that waits for its operator: others are unlikely to have the data.
            let waits = execution.phase == Some(Phase::Withheld) && now.tick.since(execution.heard) < WITHHELD_SILENCE;
            if job.task.kind == JobKind::Ops {
                // It runs nowhere else: it is waited for as long as its lease would last.
                if !std::mem::replace(&mut execution.silent, true) && execution.result.is_none() {
                    self.timers.set_earlier(Timer::Attempt(id), execution.heard + job.lease.whole());
                }
                continue;
            }
            let settled = execution.suspected || execution.result.is_some() || waits || job.task.exclusive;
            if settled || !self.speculation.take(now.tick) {
                continue;
            }
            execution.suspected = true;
            let give_up = execution.heard + job.lease.whole();
            self.timers.set_earlier(Timer::Attempt(id), give_up.max(now.tick + SUSPECT_AFTER_MIN));
            let record = execution.record.clone();
            job.blame(peer, FELL_SILENT);
            job.tell(now.unix, view, Some(&record), None, What::Suspected, out);
            if let Some(slot) = job.slots.get_mut(record.slot as usize) {
                slot.failures += 1;
            }
            self.copy_elsewhere(record.job, record.slot, now, view, out);
        }
    }

    fn copy_elsewhere(&mut self, job: crate::id::JobId, slot: u32, now: Now, view: &View, out: &mut Outbox<Output>) {
        let failures = self.jobs.get(&job).and_then(|job| job.slots.get(slot as usize)).map_or(0, |slot| slot.failures);
        // The last attempt is waited for rather than given up: it may only be slow.
        if failures < crate::limits::ATTEMPTS_MAX {
            self.try_again(job, slot, now, view, out);
        }
    }

    fn executions_of(&self, peer: &NodeId) -> Vec<ExecutionId> {
        let of_peer = self.executions.iter().filter(|(_, execution)| execution.record.node == *peer);
        of_peer.map(|(id, _)| *id).collect()
    }
}
