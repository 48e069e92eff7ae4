//! A disk that keeps what was synced, and may lose a suffix of the rest.

use std::collections::{BTreeMap, VecDeque};

use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::record::{
    ExecutionRecord, GroupRecord, HeldRecord, JobRecord, JobStateRecord, Record, Records, TargetRecord,
};
use bacnode_protocol::wire::group::{At, Charter, Entry};

/// What one node remembers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    kept: Kept,
    /// Steps that are written but not synced, in order, with their numbers.
    tail: VecDeque<(u64, Vec<Record>)>,
    next: u64,
    /// The last step that is synced.
    synced: u64,
    /// Lives of the node so far.
    pub(crate) epoch: u64,
}

#[derive(Debug, Default, Clone)]
struct Kept {
    jobs: BTreeMap<JobId, JobRecord>,
    states: BTreeMap<JobId, JobStateRecord>,
    executions: BTreeMap<ExecutionId, ExecutionRecord>,
    targets: BTreeMap<(JobId, u32), TargetRecord>,
    events: BTreeMap<JobId, u32>,
    held: BTreeMap<ExecutionId, HeldRecord>,
    wards: BTreeMap<NodeId, Charter>,
    groups: BTreeMap<NodeId, GroupRecord>,
    entries: BTreeMap<(NodeId, Vec<u8>), Entry>,
}

impl Kept {
    fn write(&mut self, record: Record) {
        match record {
            Record::Job(job) => _ = self.jobs.insert(job.id, *job),
            Record::JobState(state) => _ = self.states.insert(state.id, state),
            Record::Execution(execution) => _ = self.executions.insert(execution.id, *execution),
            Record::DropExecution(_, execution) => _ = self.executions.remove(&execution),
            Record::Target(target) => _ = self.targets.insert((target.job, target.slot), target),
            Record::DropEvent(..) => {}
            Record::Event(job, sequence, _) => _ = self.events.insert(job, sequence + 1),
            Record::Held(held) => _ = self.held.insert(held.execution, *held),
            Record::Forget(execution) => _ = self.held.remove(&execution),
            Record::Ward(charter) => _ = self.wards.insert(charter.owner, charter),
            Record::DropWard(owner) => _ = self.wards.remove(&owner),
            Record::Group(group) => _ = self.groups.insert(group.charter.owner, *group),
            Record::Kept(owner, key, Some(entry)) => _ = self.entries.insert((owner, key), *entry),
            Record::Kept(owner, key, None) => _ = self.entries.remove(&(owner, key)),
            Record::DropGroup(owner) => {
                self.groups.remove(&owner);
                self.entries.retain(|(of, _), _| *of != owner);
            }
        }
    }

    fn records(&self) -> Records {
        let open = |job: &JobRecord| !self.states.get(&job.id).is_some_and(|state| state.state.is_terminal());
        let jobs: Vec<_> = self.jobs.values().filter(|job| open(job)).collect();
        let mut executions: Vec<_> =
            self.executions.values().filter(|e| jobs.iter().any(|job| job.id == e.job)).cloned().collect();
        executions.sort_by_key(|execution| execution.token);
        Records {
            jobs: jobs.iter().map(|job| ((*job).clone(), self.states.get(&job.id).cloned())).collect(),
            executions,
            targets: self.targets.values().filter(|t| jobs.iter().any(|job| job.id == t.job)).cloned().collect(),
            events: self.events.iter().map(|(job, count)| (*job, *count)).collect(),
            held: self.held.values().cloned().collect(),
            wards: self.wards.values().copied().collect(),
            groups: self.groups.values().cloned().collect(),
            kept: self.entries.iter().map(|((owner, _), entry)| (*owner, entry.clone())).collect(),
        }
    }
}

impl Disk {
    /// Writes one step; gives its number.
    pub(crate) fn append(&mut self, records: Vec<Record>) -> u64 {
        self.next += 1;
        self.tail.push_back((self.next, records));
        self.next
    }

    /// The newest step that is written.
    pub(crate) fn written(&self) -> u64 {
        self.next
    }

    /// The newest step that is on the disk for good.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Everything up to `step` is on the disk for good.
    pub(crate) fn sync(&mut self, step: u64) {
        self.synced = self.synced.max(step);
        while self.tail.front().is_some_and(|(number, _)| *number <= step) {
            let Some((_, records)) = self.tail.pop_front() else { return };
            for record in records {
                self.kept.write(record);
            }
        }
    }

    /// How many steps could be lost.
    pub(crate) fn unsynced(&self) -> usize {
        self.tail.len()
    }

    /// The power goes: the last `lost` steps with it.
    pub(crate) fn lose(&mut self, lost: usize) {
        self.tail.truncate(self.tail.len().saturating_sub(lost));
    }

    /// A new life: what it remembers. What was written and not lost is found again, and synced with the new epoch, which
    /// begins with the time in seconds as on a real node.
    pub(crate) fn open(&mut self, seconds: u64) -> Records {
        self.sync(self.next);
        self.epoch = if self.epoch == 0 { seconds } else { self.epoch + 1 };
        self.kept.records()
    }

    /// Jobs that have ended, as its users can read it.
    pub(crate) fn ended(&self) -> impl Iterator<Item = &JobStateRecord> {
        self.kept.states.values().filter(|state| state.state.is_terminal())
    }

    /// Results that are accepted.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = &ExecutionRecord> {
        self.kept.executions.values().filter(|execution| execution.accepted)
    }

    /// How far this disk's copy of an owner's jobs is, for good.
    pub(crate) fn holds(&self, owner: &NodeId) -> Option<At> {
        self.kept.groups.get(owner).map(|group| group.at)
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        *self = Self::default();
    }

    /// Records of jobs, for checks: those written, synced or not.
    pub(crate) fn knows_job(&self, job: &JobId) -> bool {
        let in_tail = |record: &Record| matches!(record, Record::Job(known) if known.id == *job);
        self.kept.jobs.contains_key(job) || self.tail.iter().any(|(_, records)| records.iter().any(in_tail))
    }
}
