//! Groups that keep jobs: what the guardian machines want done, and what waits for two disks.

use bacnode_protocol::guardian::{self, Replica};
use bacnode_protocol::id::{JobId, NodeId};
use bacnode_protocol::outbox::{Outbox, When};
use bacnode_protocol::record::Record;
use bacnode_protocol::requester;
use bacnode_protocol::wire::group::Group;
use bacnode_protocol::wire::market::Market;
use rand::RngExt as _;

use super::{Deferred, Event, World};
use crate::check::Invariant;
use crate::plan::{MILLI, SECOND};

/// How often absent holders are tried.
const HOLD_TRIES: u32 = 3;

/// What an ask or an award says, whoever it comes from.
pub(super) fn undressed(message: &Market) -> std::borrow::Cow<'_, Market> {
    use std::borrow::Cow;
    let Market::Group(group) = message else { return Cow::Borrowed(message) };
    match &**group {
        Group::Ask(_, ask) => Cow::Owned(Market::Ask((**ask).clone())),
        Group::Award(_, award) => Cow::Owned(Market::Award((**award).clone())),
        _ => Cow::Borrowed(message),
    }
}

impl World<'_> {
    /// Whether a record is of a job that a group keeps for this node.
    pub(super) fn is_guarded(&self, index: usize, record: &Record) -> bool {
        let host = &self.hosts[index];
        let Some(job) = record.job() else { return false };
        host.guarding.contains(&job) || host.guardian.as_ref().is_some_and(|guardian| guardian.keeps(&job))
    }

    /// Hands a step's records to the group, and has what binds wait for it.
    pub(super) fn guard(&mut self, index: usize, records: Vec<Record>, quorum: Vec<([u8; 5], requester::Output)>) {
        if !records.is_empty() {
            self.guardian_input(index, guardian::Input::Append(records));
        }
        for (tag, output) in quorum {
            let Some(guardian) = &self.hosts[index].guardian else { return };
            let deferred = match (guardian.charter(&tag), guardian.position(&tag)) {
                (None, _) => Deferred::Requester(output),
                (_, Some((entry, _))) => Deferred::Quorum(tag, entry, output),
                // Others decide by now.
                (Some(_), None) => continue,
            };
            self.write(index, Vec::new(), vec![deferred]);
        }
    }

    pub(super) fn guardian_input(&mut self, index: usize, input: guardian::Input) {
        let host = &mut self.hosts[index];
        let now = host.clock.now(self.now);
        let Some(machine) = &mut host.guardian else { return };
        let mut out = Outbox::default();
        machine.handle(input, now, &host.view, &mut out);
        self.perform_guardians(index, out);
    }

    pub(super) fn perform_guardians(&mut self, index: usize, mut out: Outbox<guardian::Output>) {
        let (mut records, mut now, mut deferred) = (Vec::new(), Vec::new(), Vec::new());
        for queued in out.drain() {
            match (queued.when, queued.output) {
                (_, guardian::Output::Persist(record)) => records.push(record),
                (When::Now, output) => now.push(output),
                (_, output) => deferred.push(Deferred::Guardian(output)),
            }
        }
        let life = self.hosts[index].life;
        if !records.is_empty() || !deferred.is_empty() {
            self.write(index, records, deferred);
        }
        for output in now {
            if self.burns(index) || self.hosts[index].life != life {
                return;
            }
            self.perform_guardian(index, output);
        }
        self.wake_later(index);
    }

    pub(super) fn perform_guardian(&mut self, index: usize, output: guardian::Output) {
        match output {
            guardian::Output::Persist(_) | guardian::Output::LetGo(_) | guardian::Output::Stop(..) => {}
            guardian::Output::Send { to, message } => self.send(index, &to, message),
            guardian::Output::Committed(tag, entry) => self.committed(index, tag, entry),
            guardian::Output::Lead(taken) => {
                self.trace.note(self.now, (index, None), "lead", &taken.owner.0, || {
                    format!("leads the jobs of {}", taken.owner.short())
                });
                self.stats.takeovers += u64::from(taken.from != self.hosts[index].id);
                self.books.taken_over(&taken.owner, self.hosts[index].id, &taken.everything);
                self.hosts[index].disk.append(taken.everything.clone());
                self.requester_input(index, requester::Input::Adopt(taken));
            }
            guardian::Output::Follow(tag) => {
                self.hosts[index].quorum.remove(&tag);
                self.requester_input(index, requester::Input::Abandon(tag));
            }
            guardian::Output::Unled(tag, executions) => {
                self.requester_input(index, requester::Input::Unled(tag, executions));
            }
            guardian::Output::Sure(tag, sure) => self.requester_input(index, requester::Input::Sure(tag, sure)),
            guardian::Output::Hold { replica, holders } => {
                let holders = holders.iter().filter_map(|holder| self.by_id.get(holder).copied()).collect();
                let (life, after) = (self.hosts[index].life, self.rng.random_range(MILLI..200 * MILLI));
                self.push(after, Event::Hold { host: index, life, replica, holders, tries: HOLD_TRIES });
            }
            guardian::Output::Replicated { job, root, others } => {
                self.requester_input(index, requester::Input::Replicated { job, root, others });
            }
            guardian::Output::Accuse(liar, proof) => {
                let honest = self.by_id.get(&liar).is_some_and(|liar| self.hosts[*liar].is_honest());
                self.stats.accused += u64::from(!honest);
                if honest {
                    self.books.fail(
                        Invariant::S15OnlyLiarsAreAccused,
                        format!("n{:?} is accused: {proof:?}", self.by_id.get(&liar)),
                    );
                }
            }
        }
    }

    /// A guardian fetches what it is to hold.
    pub(super) fn hold(&mut self, index: usize, life: u64, replica: Box<Replica>, holders: Vec<usize>, tries: u32) {
        if self.hosts[index].life != life {
            return;
        }
        let reached = holders.iter().any(|&holder| {
            let host = &self.hosts[holder];
            let up =
                host.up && host.frozen_until <= self.now && (holder == index || self.links.connects(index, holder));
            up && (host.kept.values().any(|root| *root == replica.root)
                || host.held.iter().any(|execution| Self::cid(execution) == replica.root))
        });
        if !reached && tries > 0 {
            let again = Event::Hold { host: index, life, replica, holders, tries: tries - 1 };
            return self.push(SECOND, again);
        }
        let Replica { job, root, .. } = *replica;
        self.guardian_input(index, guardian::Input::Held { job, root, held: reached });
    }

    pub(super) fn wait_for_quorum(&mut self, index: usize, tag: [u8; 5], entry: u64, output: requester::Output) {
        self.hosts[index].quorum.entry(tag).or_default().push_back((entry, output));
        let position = self.hosts[index].guardian.as_ref().and_then(|guardian| guardian.position(&tag));
        match position {
            Some((_, committed)) => self.committed(index, tag, committed),
            None => _ = self.hosts[index].quorum.remove(&tag),
        }
    }

    fn committed(&mut self, index: usize, tag: [u8; 5], committed: u64) {
        let life = self.hosts[index].life;
        loop {
            let waiting = self.hosts[index].quorum.get_mut(&tag);
            let Some((entry, output)) = waiting.and_then(|queue| queue.pop_front_if(|(entry, _)| *entry <= committed))
            else {
                return;
            };
            if self.burns(index) || self.hosts[index].life != life {
                return;
            }
            self.check_quorum(index, tag, entry);
            self.perform_requester(index, output);
        }
    }

    /// What is relied on now must be on two disks, for good.
    fn check_quorum(&mut self, index: usize, tag: [u8; 5], entry: u64) {
        let Some(charter) = self.hosts[index].guardian.as_ref().and_then(|guardian| guardian.charter(&tag)) else {
            return;
        };
        let holds = |node: &NodeId| {
            let host = self.by_id.get(node).map(|index| &self.hosts[*index]);
            host.and_then(|host| host.disk.holds(&charter.owner)).is_some_and(|held| held.index >= entry)
        };
        let disks = charter.members.iter().filter(|node| holds(node)).count();
        if disks < 2 {
            let text = format!("n{index} relies on entry {entry} of epoch {}, which {disks} disks have", charter.epoch);
            self.books.fail(Invariant::S13PersistBeforeSend, text);
        }
    }

    /// Where a user can ask for something about a job: at whoever decides on it.
    pub(super) fn decider(&self, job: usize) -> usize {
        let (owner, id): (usize, JobId) = (self.plan.jobs[job].owner, self.jobs[job]);
        let decides = |index: &usize| {
            let host = &self.hosts[*index];
            host.up && host.frozen_until <= self.now && host.requester.as_ref().is_some_and(|r| r.has_job(&id))
        };
        if !self.plan.jobs[job].guarded || decides(&owner) {
            return owner;
        }
        let leads = |index: &usize| self.hosts[*index].guardian.as_ref().is_some_and(|g| g.leads(&id.tag()));
        (0..self.hosts.len()).find(|index| decides(index) && leads(index)).unwrap_or(owner)
    }
}
