//! Groups that keep jobs: what the guardian machines want done, and what waits for two disks.

use std::collections::VecDeque;

use bacnode_protocol::outbox::{Outbox, When};
use bacnode_protocol::time::Span;
use bacnode_protocol::{guardian, requester};

use super::{Deferred, Event, World};

impl World {
    pub(crate) fn guardian_input(&mut self, node: usize, input: guardian::Input) {
        let now = self.clock();
        let host = &mut self.hosts[node];
        let Some(machine) = &mut host.guardian else { return };
        let mut out = Outbox::default();
        machine.handle(input, now, &host.view, &mut out);
        self.perform_guardians(node, out);
    }

    /// How the group stands that keeps the jobs of `owner`, as `node` has it.
    pub(crate) fn group(&self, node: usize, owner: usize) -> Option<guardian::Status> {
        let owner = self.id(owner);
        self.hosts[node].guardian.as_ref()?.status().find(|status| status.charter.owner == owner)
    }

    /// The nodes that keep the jobs of `owner` beside it, by its own word.
    pub(crate) fn guardians(&self, owner: usize) -> Vec<usize> {
        let me = self.id(owner);
        let group = self.group(owner, owner).expect("a group");
        group.charter.others(&me).map(|node| self.index(&node)).collect()
    }

    pub(super) fn committed(&mut self, node: usize, tag: [u8; 5], committed: u64) {
        let ready = |host: &super::Host| host.quorum.get(&tag)?.front().map(|(index, _)| *index <= committed);
        while ready(&self.hosts[node]) == Some(true) {
            let next = self.hosts[node].quorum.get_mut(&tag).and_then(VecDeque::pop_front);
            let Some((_, output)) = next else { return };
            self.perform_requester(node, output);
        }
    }

    pub(super) fn perform_guardians(&mut self, node: usize, mut out: Outbox<guardian::Output>) {
        let mut deferred = Vec::new();
        for queued in out.drain() {
            match queued.when {
                When::Now => self.perform_guardian(node, queued.output),
                When::AfterSync | When::AfterQuorum(_) => deferred.push(Deferred::Guardian(queued.output)),
            }
        }
        self.defer(node, deferred);
    }

    pub(super) fn perform_guardian(&mut self, node: usize, output: guardian::Output) {
        let life = self.hosts[node].life;
        match output {
            guardian::Output::Persist(record) => self.hosts[node].disk.write(record),
            guardian::Output::Send { to, message } => self.send(node, &to, message),
            guardian::Output::Committed(tag, index) => self.committed(node, tag, index),
            guardian::Output::Lead(taken) => {
                self.takeovers.push((node, self.now));
                for record in taken.everything.clone() {
                    self.hosts[node].disk.write(record);
                }
                self.requester_input(node, requester::Input::Adopt(taken));
            }
            guardian::Output::Follow(tag) => {
                self.hosts[node].quorum.remove(&tag);
                self.requester_input(node, requester::Input::Abandon(tag));
            }
            guardian::Output::Unled(tag, executions) => {
                self.requester_input(node, requester::Input::Unled(tag, executions));
            }
            guardian::Output::Sure(tag, sure) => self.requester_input(node, requester::Input::Sure(tag, sure)),
            guardian::Output::Hold { replica, holders } => {
                let there = holders.iter().map(|holder| self.index(holder)).any(|holder| self.hosts[holder].up);
                self.push(
                    Span::millis(2),
                    Event::Held { node, life, job: replica.job, root: replica.root, held: there },
                );
            }
            guardian::Output::LetGo(_) | guardian::Output::Stop(..) => {}
            guardian::Output::Replicated { job, root, others } => {
                self.requester_input(node, requester::Input::Replicated { job, root, others });
            }
            guardian::Output::Accuse(liar, _) => self.accused.push((node, self.index(&liar))),
        }
    }
}
