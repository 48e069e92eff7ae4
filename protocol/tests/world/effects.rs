//! What the machines want done, done.

use bacnode_protocol::compute::{self, Ended};
use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::id::{ExecutionId, NodeId};
use bacnode_protocol::outbox::{Outbox, When};
use bacnode_protocol::record::What;
use bacnode_protocol::time::Span;
use bacnode_protocol::wire::bounded::TextMax;
use bacnode_protocol::wire::call::Call;
use bacnode_protocol::wire::market::{Market, Outcome, Phase};
use bacnode_protocol::wire::task::{Engine, Resources};
use bacnode_protocol::{guardian, requester};
use rand::RngExt as _;

use super::{Deferred, Event, SYNC, World};

impl World {
    pub(super) fn perform_all(
        &mut self,
        node: usize,
        mut requester: Outbox<requester::Output>,
        mut compute: Outbox<compute::Output>,
    ) {
        let (mut deferred, mut quorum, mut guarded) = (Vec::new(), Vec::new(), Vec::new());
        for queued in requester.drain() {
            match queued.output {
                requester::Output::Guard(job) => _ = self.hosts[node].guarding.insert(job),
                requester::Output::Persist(record) => {
                    let job = record.job();
                    let host = &self.hosts[node];
                    let keeps = |job: &_| host.guarding.contains(job) || host.guardian().keeps(job);
                    if job.is_some_and(|job| keeps(&job)) {
                        guarded.push(record.clone());
                    }
                    self.hosts[node].disk.write(record);
                }
                output => match queued.when {
                    When::Now => self.perform_requester(node, output),
                    When::AfterSync => deferred.push(Deferred::Requester(output)),
                    When::AfterQuorum(tag) => quorum.push((tag, output)),
                },
            }
        }
        if !guarded.is_empty() {
            self.guardian_input(node, guardian::Input::Append(guarded));
        }
        for (tag, output) in quorum {
            let guardian = self.hosts[node].guardian();
            let index = guardian.position(&tag).map(|(index, _)| index);
            if guardian.charter(&tag).is_none() {
                deferred.push(Deferred::Requester(output));
            } else if let Some(index) = index {
                deferred.push(Deferred::Quorum(tag, index, output));
            }
        }
        for queued in compute.drain() {
            match queued.when {
                When::Now => self.perform_compute(node, queued.output),
                When::AfterSync | When::AfterQuorum(_) => deferred.push(Deferred::Compute(queued.output)),
            }
        }
        self.defer(node, deferred);
    }

    pub(super) fn defer(&mut self, node: usize, deferred: Vec<Deferred>) {
        if !deferred.is_empty() {
            let life = self.hosts[node].life;
            self.push(SYNC, Event::Synced { node, life, outputs: deferred });
        }
        self.wake_later(node);
    }

    pub(super) fn perform_deferred(&mut self, node: usize, output: Deferred) {
        match output {
            Deferred::Requester(output) => self.perform_requester(node, output),
            Deferred::Compute(output) => self.perform_compute(node, output),
            Deferred::Guardian(output) => self.perform_guardian(node, output),
            Deferred::Quorum(tag, index, output) => {
                self.hosts[node].quorum.entry(tag).or_default().push_back((index, output));
                let committed = self.hosts[node].guardian().position(&tag).map_or(0, |(_, committed)| committed);
                self.committed(node, tag, committed);
            }
        }
    }

    pub(super) fn wake_later(&mut self, node: usize) {
        if !std::mem::replace(&mut self.hosts[node].waking, true) {
            self.push(Span::millis(20), Event::Wake { node });
        }
    }

    pub(super) fn perform_requester(&mut self, node: usize, output: requester::Output) {
        let life = self.hosts[node].life;
        match output {
            requester::Output::Persist(record) => self.hosts[node].disk.write(record),
            requester::Output::Send { to, message } => self.send(node, &to, message),
            requester::Output::Call { engine, resources, want } => self.call(node, engine, resources, want),
            requester::Output::FindProviders(job, _) => {
                self.push(self.look_up, Event::LookedUp { node, life, job });
            }
            requester::Output::Fetch(fetch) => {
                let execution = fetch.execution;
                self.push(Span::millis(2), Event::Fetched { node, life, execution });
            }
            requester::Output::Drop(_) | requester::Output::Unpin { .. } | requester::Output::Guard(_) => {}
            requester::Output::Replicate(replica) => self.guardian_input(node, guardian::Input::Replicate(replica)),
            requester::Output::Answer(request, answer) => self.answers.push((request, answer)),
            requester::Output::Tell(job, _, event) => {
                let told = self.told.entry(job).or_default();
                match &event.what {
                    What::Ended { state, message } => told.ends.push((*state, message.to_string())),
                    What::Accepted { root } => _ = told.accepted.insert(event.execution.expect("an attempt"), *root),
                    _ => {}
                }
                told.events.push(event.what);
            }
        }
    }

    /// An open call reaches everybody; whoever answers sends its advert.
    fn call(&mut self, node: usize, engine: Engine, resources: Resources, want: u32) {
        let (now, owner) = (self.clock(), self.id(node));
        let call = Call { owner, issued: now.unix, wire: (1, 2), engine, resources, want };
        for other in 0..self.hosts.len() {
            let id = self.id(other);
            if self.hosts[other].up && self.hosts[other].view.answers(&call, &id, now.unix, &mut self.rng) {
                let advert = self.advert(other);
                let _ = self.hosts[node].view.offer(advert, now);
                self.requester_input(node, requester::Input::ViewGrew);
            }
        }
    }

    pub(super) fn perform_compute(&mut self, node: usize, output: compute::Output) {
        match output {
            compute::Output::Persist(record) => self.hosts[node].disk.write(record),
            compute::Output::Send { to, message } => self.send(node, &to, message),
            compute::Output::Start(run) => {
                *self.starts.entry(node).or_default() += 1;
                let who = self.running.entry((run.job, run.slot, run.task.version)).or_default();
                self.overlaps += u32::from(!who.is_empty());
                who.insert(node);
                let life = self.hosts[node].life;
                self.hosts[node].runs.insert(run.execution, (*run).clone());
                if self.break_early > 0 {
                    self.break_early -= 1;
                    let cause = TextMax::truncated("its input could not be fetched");
                    return self.end(node, run.execution, Outcome::NodeFailed { began: true, cause });
                }
                self.compute_input(node, compute::Input::Phase(run.execution, Phase::Running));
                self.push(self.run_for, Event::Ran { node, life, run });
            }
            compute::Output::Stop(execution) => self.end(node, execution, Outcome::Cancelled),
            compute::Output::Resume(run) => {
                let life = self.hosts[node].life;
                self.push(self.run_for, Event::Ran { node, life, run });
            }
            compute::Output::Extend(execution, until) => {
                if let Some(run) = self.hosts[node].runs.get_mut(&execution) {
                    run.until = until;
                }
            }
            compute::Output::Unpin(_) | compute::Output::Owner(..) => {}
            compute::Output::Consider(number, _) => {
                self.compute_input(node, compute::Input::Considered(number, Ok(compute::Facts::default())));
            }
        }
    }

    pub(super) fn end(&mut self, node: usize, execution: ExecutionId, outcome: Outcome) {
        let Some(run) = self.hosts[node].runs.remove(&execution) else { return };
        if let Some(who) = self.running.get_mut(&(run.job, run.slot, run.task.version)) {
            who.remove(&node);
        }
        let root = matches!(outcome, Outcome::Completed { .. }).then(|| Cid::of(Codec::Raw, b"result"));
        let ended = Ended { root, size: 6, read_private: self.private, ..Ended::bare(outcome) };
        self.compute_input(node, compute::Input::Ended(execution, Box::new(ended)));
    }

    pub(super) fn send(&mut self, from: usize, to: &NodeId, message: Market) {
        let host = &self.hosts[from];
        let (message, also) = match &host.guardian {
            Some(guardian) => guardian.dress(to, message, &host.view),
            None => (message, None),
        };
        let to = self.index(to);
        if let Some(also) = also {
            self.post(from, to, also);
        }
        self.post(from, to, message);
    }

    fn post(&mut self, from: usize, to: usize, message: Market) {
        if from == to {
            return self.push(Span::ZERO, Event::Deliver { from, to, message });
        }
        let copies = if self.rng.random_bool(self.faults.loss) {
            0
        } else {
            1 + usize::from(self.rng.random_bool(self.faults.repeat))
        };
        for _ in 0..copies {
            let far = self.holder.filter(|(holder, _)| *holder == from).map_or(Span::ZERO, |(_, far)| far);
            let latency = Span(far.0 + self.rng.random_range(100..=self.faults.latency_max.0.max(100)));
            self.push(latency, Event::Deliver { from, to, message: message.clone() });
        }
    }
}
