//! Inputs to the machines, and what they want done, in the order in which a real node does it.

use std::rc::Rc;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::outbox::{Outbox, When};
use bacnode_protocol::record::Record;
use bacnode_protocol::requester::Answer;
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::market::Market;
use bacnode_protocol::{compute, guardian, requester};
use rand::RngExt as _;

use super::{Deferred, Event, World};
use crate::check::Invariant;
use crate::plan::{MILLI, Micros, SECOND};

/// One thing to do now.
enum Doing {
    Requester(requester::Output),
    Compute(compute::Output),
}

impl World<'_> {
    pub(super) fn requester_input(&mut self, index: usize, input: requester::Input) {
        let host = &mut self.hosts[index];
        let now = host.clock.now(self.now);
        let Some(machine) = &mut host.requester else { return };
        let mut out = Outbox::default();
        machine.handle(input, now, &host.view, &mut out);
        self.perform(index, out, Outbox::default());
    }

    pub(super) fn compute_input(&mut self, index: usize, input: compute::Input) {
        let host = &mut self.hosts[index];
        let now = host.clock.now(self.now);
        let Some(machine) = &mut host.compute else { return };
        let mut out = Outbox::default();
        machine.handle(input, now, &mut out);
        self.perform(index, Outbox::default(), out);
    }

    /// Writes the step's records, does what may be done now, and keeps the rest until the log is synced.
    pub(super) fn perform(
        &mut self,
        index: usize,
        mut requester: Outbox<requester::Output>,
        mut compute: Outbox<compute::Output>,
    ) {
        let honest = self.hosts[index].is_honest();
        let (mut records, mut now, mut deferred) = (Vec::new(), Vec::new(), Vec::new());
        let (mut guarded, mut quorum) = (Vec::new(), Vec::new());
        for queued in requester.drain() {
            if honest {
                self.books.queued_requester(queued.when, &queued.output);
            }
            match (queued.when, queued.output) {
                (_, requester::Output::Persist(record)) => {
                    if self.is_guarded(index, &record) {
                        guarded.push(record.clone());
                    }
                    records.push(record);
                }
                (_, requester::Output::Guard(job)) => _ = self.hosts[index].guarding.insert(job),
                (When::Now, output) => now.push(Doing::Requester(output)),
                (When::AfterSync, output) => deferred.push(Deferred::Requester(output)),
                (When::AfterQuorum(tag), output) => quorum.push((tag, output)),
            }
        }
        for queued in compute.drain() {
            if honest {
                self.books.queued_compute(queued.when, &queued.output);
            }
            match (queued.when, queued.output) {
                (_, compute::Output::Persist(record)) => records.push(record),
                (When::Now, output) => now.push(Doing::Compute(output)),
                (_, output) => deferred.push(Deferred::Compute(output)),
            }
        }
        let life = self.hosts[index].life;
        self.write(index, records, deferred);
        self.guard(index, guarded, quorum);
        for output in now {
            if self.burns(index) || self.hosts[index].life != life {
                return;
            }
            match output {
                Doing::Requester(output) => self.perform_requester(index, output),
                Doing::Compute(output) => self.perform_compute(index, output),
            }
        }
        if self.hosts[index].up && honest {
            self.books.stepped(&self.hosts[index], index);
        }
        self.wake_later(index);
    }

    pub(super) fn write(&mut self, index: usize, records: Vec<Record>, deferred: Vec<Deferred>) {
        if self.hosts[index].is_honest() {
            for record in &records {
                self.books.written(&self.hosts[index], index, record);
            }
        }
        self.stats.records += records.len() as u64;
        let disk = &mut self.hosts[index].disk;
        let step = if records.is_empty() { disk.written() } else { disk.append(records) };
        if deferred.is_empty() {
            return;
        }
        self.logs[index].waiting.extend(deferred.into_iter().map(|output| (step, output)));
        self.sync_later(index);
    }

    /// One sync at a time; each covers every step before it.
    fn sync_later(&mut self, index: usize) {
        if self.logs[index].syncing || self.logs[index].waiting.is_empty() {
            return;
        }
        self.logs[index].syncing = true;
        let host = &self.hosts[index];
        let takes = host.plan.sync * u64::from(host.slow);
        let takes = takes + self.rng.random_range(0..=takes / 2);
        let (life, step) = (host.life, host.disk.written());
        self.push(takes, Event::Synced { host: index, life, step });
    }

    pub(super) fn synced(&mut self, index: usize, life: u64, step: u64) {
        if self.hosts[index].life != life {
            return;
        }
        self.hosts[index].disk.sync(step);
        self.logs[index].syncing = false;
        while self.logs[index].waiting.front().is_some_and(|(needs, _)| *needs <= step) {
            let Some((needs, output)) = self.logs[index].waiting.pop_front() else { break };
            if self.burns(index) || self.hosts[index].life != life {
                return;
            }
            self.books.released(needs, self.hosts[index].disk.synced());
            match output {
                Deferred::Requester(output) => self.perform_requester(index, output),
                Deferred::Compute(output) => self.perform_compute(index, output),
                Deferred::Guardian(output) => self.perform_guardian(index, output),
                Deferred::Quorum(tag, entry, output) => self.wait_for_quorum(index, tag, entry, output),
            }
        }
        if self.hosts[index].life == life {
            self.sync_later(index);
            self.wake_later(index);
        }
    }

    /// Counts an output down; whether the node was killed at it.
    pub(super) fn burns(&mut self, index: usize) -> bool {
        let Some((left, down, power)) = &mut self.hosts[index].fuse else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        let (down, power) = (*down, *power);
        self.hosts[index].fuse = None;
        self.crash(index, down, power);
        true
    }

    pub(super) fn perform_requester(&mut self, index: usize, output: requester::Output) {
        match output {
            // Written with its step; and everybody is known anyway.
            requester::Output::Persist(_) | requester::Output::Call { .. } | requester::Output::Guard(_) => {}
            requester::Output::Send { to, message } => self.send(index, &to, message),
            requester::Output::FindProviders(job, _) => {
                let after = self.rng.random_range(0..SECOND);
                let life = self.hosts[index].life;
                self.push(after, Event::Providers { host: index, life, job });
            }
            requester::Output::Fetch(fetch) => self.fetch(index, fetch),
            requester::Output::Drop(execution) | requester::Output::Unpin { execution, .. } => {
                self.hosts[index].held.remove(&execution);
            }
            requester::Output::Replicate(replica) => {
                self.guardian_input(index, guardian::Input::Replicate(replica));
            }
            requester::Output::Answer(request, answer) => self.answer(index, request, &answer),
            requester::Output::Tell(job, sequence, event) => {
                let detail = [&job.0[..], &sequence.to_le_bytes()].concat();
                self.trace
                    .note(self.now, (index, None), "tell", &detail, || format!("tells of {job}: {:?}", event.what));
                self.stats.told(self.now, &event, &job);
                if self.hosts[index].is_honest() {
                    self.books.told(&self.hosts[index], job, &event);
                }
            }
        }
    }

    fn answer(&mut self, index: usize, request: u64, answer: &Answer) {
        // Requests of users are numbered from 1 by job; their stops have the next bit.
        let Some(job) = self.jobs.get((request >> 1) as usize).copied() else { return };
        self.trace
            .note(self.now, (index, None), "answer", &request.to_le_bytes(), || format!("answers {job}: {answer:?}"));
        if matches!(answer, Answer::Accepted { version: 2.., .. } | Answer::Unchanged(2..)) {
            self.updated.insert((request >> 1) as usize);
        }
        self.books.answered(job, answer);
    }

    fn perform_compute(&mut self, index: usize, output: compute::Output) {
        match output {
            compute::Output::Persist(_) | compute::Output::Owner(..) => {}
            compute::Output::Send { to, message } => self.send(index, &to, message),
            compute::Output::Consider(number, _) => self.consider(index, number),
            compute::Output::Start(run) => self.start_run(index, *run),
            compute::Output::Resume(run) => self.resume_run(index, &run),
            compute::Output::Extend(execution, until) => self.extend(index, &execution, until),
            compute::Output::Stop(execution) => self.stop_run(index, &execution),
            compute::Output::Unpin(execution) => {
                if self.hosts[index].kept.remove(&execution).is_some() && self.hosts[index].is_honest() {
                    self.books.unpinned(&self.hosts[index], index, &execution);
                }
            }
        }
    }

    /// A message leaves; a dishonest node may have another idea.
    pub(super) fn send(&mut self, from: usize, to: &NodeId, message: Market) {
        let Some(&to_index) = self.by_id.get(to) else { return };
        let message = if self.hosts[from].is_honest() {
            self.books.sent(&self.hosts[from], from, to, &message);
            let host = &self.hosts[from];
            let dressed = host.guardian.as_ref().map(|guardian| guardian.dress(to, message.clone(), &host.view));
            let (message, also) = dressed.unwrap_or((message, None));
            if let Some(also) = also {
                self.post(from, to_index, also);
            }
            message
        } else {
            match self.twist(from, message) {
                Some(message) => message,
                None => return,
            }
        };
        self.post(from, to_index, message);
    }

    pub(super) fn post(&mut self, from: usize, to: usize, message: Market) {
        self.stats.message(&message);
        let message = Rc::new(message);
        if from == to {
            return self.push(0, Event::Deliver { from, to, message });
        }
        if self.links.holds_up(from, to) {
            self.clogged.push((from, to, message));
            return;
        }
        let (arrivals, count) = self.links.arrivals(from, to, &mut self.rng);
        for after in &arrivals[..count] {
            self.push(*after, Event::Deliver { from, to, message: Rc::clone(&message) });
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, message: &Rc<Market>) {
        if !self.hosts[to].up || (from != to && !self.links.passes(from, to)) {
            return;
        }
        let digest = codec::encode(&**message);
        let head = &digest[..digest.len().min(32)];
        self.trace.note(self.now, (from, Some(to)), "message", head, || super::evil::describe(message));
        let sender = self.hosts[from].id;
        if self.hosts[to].is_honest() {
            self.books.delivered(to, &sender, &super::groups::undressed(message));
        } else {
            self.remember(to, message);
        }
        self.hand_over(to, sender, message);
        // Now and then the very same again: it must not change anything that is written.
        if !self.calm && self.hosts[to].is_honest() && self.rng.random_range(0..64) == 0 && self.hosts[to].up {
            self.tick(to);
            let before = (self.hosts[to].disk.written(), self.hosts[to].runs.len(), self.hosts[to].life);
            self.hand_over_now(to, sender, message);
            let after = (self.hosts[to].disk.written(), self.hosts[to].runs.len(), self.hosts[to].life);
            if before.2 == after.2 && (before.0, before.1) != (after.0, after.1) {
                let text = format!("the second {} changed something", super::evil::describe(message));
                self.books.fail(Invariant::S12ReplayImmunity, text);
            }
        }
    }

    fn hand_over(&mut self, to: usize, from: NodeId, message: &Rc<Market>) {
        // Time first: what has expired ends before anything is answered.
        self.tick(to);
        self.hand_over_now(to, from, message);
    }

    fn hand_over_now(&mut self, to: usize, from: NodeId, message: &Rc<Market>) {
        let message = Market::clone(message);
        if let Market::Group(group) = message {
            self.guardian_input(to, guardian::Input::Message { from, message: (*group).clone() });
            self.compute_input(to, compute::Input::Message { from, message: Market::Group(group) });
        } else if message.is_from_owner() {
            self.compute_input(to, compute::Input::Message { from, message });
        } else {
            self.requester_input(to, requester::Input::Message { from, message });
        }
    }

    pub(super) fn tick(&mut self, index: usize) {
        if self.hosts[index].deadline().is_some_and(|at| at <= self.now) {
            // What others may decide by now is known before anything is answered.
            self.guardian_input(index, guardian::Input::Tick);
            self.requester_input(index, requester::Input::Tick);
            self.compute_input(index, compute::Input::Tick);
        }
    }

    pub(super) fn wake(&mut self, index: usize) {
        if self.hosts[index].wake_at.is_some_and(|at| at <= self.now) {
            self.hosts[index].wake_at = None;
            if self.hosts[index].up {
                self.tick(index);
                self.wake_later(index);
            }
        }
    }

    pub(super) fn wake_later(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(at) = host.deadline() else { return };
        let at = at.max(self.now);
        if host.wake_at.is_none_or(|set| at < set || set < self.now) {
            host.wake_at = Some(at);
            self.push(at - self.now, Event::Wake { host: index });
        }
    }

    /// Peers with which something is open hear that we are alive.
    pub(super) fn say_alive(&mut self, index: usize) {
        self.push(super::ALIVE_EVERY, Event::SayAlive { host: index });
        let host = &self.hosts[index];
        let holders = host.requester.iter().flat_map(requester::State::holders);
        let owners = host.compute.iter().flat_map(compute::State::owners);
        let mut peers: Vec<usize> = holders
            .chain(owners)
            .filter_map(|peer| self.by_id.get(&peer).copied())
            .filter(|peer| *peer != index)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        for peer in peers {
            if !self.links.holds_up(index, peer) {
                let after: Micros = self.links.distance(index, peer) + self.rng.random_range(0..MILLI);
                self.push(after, Event::Alive { from: index, to: peer });
            }
        }
    }
}
