//! A disk: what was written, and what a restart reads of it.

use std::collections::BTreeMap;

use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::record::{GroupRecord, Record, Records, TargetRecord};
use bacnode_protocol::wire::group::{Charter, Entry};

#[derive(Debug, Default)]
pub(super) struct Disk {
    jobs: BTreeMap<JobId, Record>,
    states: BTreeMap<JobId, Record>,
    executions: BTreeMap<ExecutionId, Record>,
    targets: BTreeMap<(JobId, u32), TargetRecord>,
    events: BTreeMap<JobId, u32>,
    held: BTreeMap<ExecutionId, Record>,
    wards: BTreeMap<NodeId, Charter>,
    groups: BTreeMap<NodeId, GroupRecord>,
    kept: BTreeMap<(NodeId, Vec<u8>), Entry>,
}

impl Disk {
    pub(super) fn write(&mut self, record: Record) {
        match &record {
            Record::Job(job) => _ = self.jobs.insert(job.id, record),
            Record::JobState(state) => _ = self.states.insert(state.id, record),
            Record::Execution(execution) => _ = self.executions.insert(execution.id, record),
            Record::DropExecution(_, execution) => _ = self.executions.remove(execution),
            Record::Target(target) => _ = self.targets.insert((target.job, target.slot), target.clone()),
            Record::DropEvent(..) => {}
            Record::Event(job, sequence, _) => _ = self.events.insert(*job, sequence + 1),
            Record::Held(held) => _ = self.held.insert(held.execution, record),
            Record::Forget(execution) => _ = self.held.remove(execution),
            Record::Ward(charter) => _ = self.wards.insert(charter.owner, *charter),
            Record::DropWard(owner) => _ = self.wards.remove(owner),
            Record::Group(group) => _ = self.groups.insert(group.charter.owner, (**group).clone()),
            Record::Kept(owner, key, Some(entry)) => {
                self.kept.insert((*owner, key.clone()), (**entry).clone());
            }
            Record::Kept(owner, key, None) => _ = self.kept.remove(&(*owner, key.clone())),
            Record::DropGroup(owner) => {
                self.groups.remove(owner);
                self.kept.retain(|(of, _), _| of != owner);
            }
        }
    }

    pub(super) fn state(&self, job: &JobId) -> Option<JobState> {
        match self.states.get(job)? {
            Record::JobState(state) => Some(state.state),
            _ => None,
        }
    }

    pub(super) fn records(&self) -> Records {
        let mut records = Records::default();
        for record in self.jobs.values().chain(self.executions.values()).chain(self.held.values()) {
            match record.clone() {
                Record::Job(job) => {
                    let state = match self.states.get(&job.id) {
                        Some(Record::JobState(state)) => Some(state.clone()),
                        _ => None,
                    };
                    records.jobs.push((*job, state));
                }
                Record::Execution(execution) => records.executions.push(*execution),
                Record::Held(held) => records.held.push(*held),
                _ => {}
            }
        }
        records.executions.sort_by_key(|execution| execution.token);
        records.wards = self.wards.values().copied().collect();
        records.groups = self.groups.values().cloned().collect();
        records.kept = self.kept.iter().map(|((owner, _), entry)| (*owner, entry.clone())).collect();
        records.targets = self.targets.values().cloned().collect();
        records.events = self.events.iter().map(|(job, count)| (*job, *count)).collect();
        records
    }
}
