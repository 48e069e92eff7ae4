//! What a group keeps of its owner's jobs: the newest of each thing, by its key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::id::JobId;
use crate::job::state::JobState;
use crate::limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, GUARDED_SPEC_BYTES_MAX, LEDGER_BYTES_MAX, LEDGER_ENDED_MAX};
use crate::record::{Record, Records};
use crate::time::UnixMillis;
use crate::wire::bounded::{BytesMax, ListMax};
use crate::wire::codec;
use crate::wire::group::Entry;

/// A change to what is written: the entry under this key, or none.
pub(super) type Change = (Vec<u8>, Option<Box<Entry>>);

/// One owner's jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Vec<u8>, Entry>,
    bytes: usize,
    jobs: BTreeSet<JobId>,
    /// Those that have ended, the oldest first.
    ended: BTreeSet<(UnixMillis, JobId)>,
}

impl Entry {
    /// The entry of a record, if groups keep that: without the values of its environment.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        Some(match record {
            Record::Job(job) => {
                let mut job = job.clone();
                job.task = job.task.without_env_values();
                job.spec = BytesMax::new(without_env_values(&job.spec)).unwrap_or_default();
                Self::Job(job)
            }
            Record::JobState(state) => Self::State(state.clone()),
            Record::Execution(execution) => Self::Execution(execution.clone()),
            Record::DropExecution(job, execution) => Self::DropExecution(*job, *execution),
            Record::Target(target) => Self::Target(target.clone()),
            Record::Event(job, sequence, event) => Self::Event(*job, *sequence, event.clone()),
            Record::DropEvent(job, sequence) => Self::DropEvent(*job, *sequence),
            _ => return None,
        })
    }

    /// The record that this is of; none for a job that is forgotten.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        Some(match self {
            Self::Job(job) => Record::Job(job.clone()),
            Self::State(state) => Record::JobState(state.clone()),
            Self::Execution(execution) => Record::Execution(execution.clone()),
            Self::DropExecution(job, execution) => Record::DropExecution(*job, *execution),
            Self::Target(target) => Record::Target(target.clone()),
            Self::Event(job, sequence, event) => Record::Event(*job, *sequence, event.clone()),
            Self::DropEvent(job, sequence) => Record::DropEvent(*job, *sequence),
            Self::Forget(_) => return None,
        })
    }

    /// The job that it is about.
    #[must_use]
    pub fn job(&self) -> JobId {
        match self {
            Self::Job(job) => job.id,
            Self::State(state) => state.id,
            Self::Execution(execution) => execution.job,
            Self::Target(target) => target.job,
            Self::DropExecution(job, _) | Self::Event(job, ..) | Self::DropEvent(job, _) | Self::Forget(job) => *job,
        }
    }

    fn key(&self) -> Vec<u8> {
        let (kind, rest): (u8, Vec<u8>) = match self {
            Self::Job(_) | Self::Forget(_) => (0, Vec::new()),
            Self::State(_) => (1, Vec::new()),
            Self::Execution(execution) => (2, execution.id.0.to_vec()),
            Self::DropExecution(_, execution) => (2, execution.0.to_vec()),
            Self::Target(target) => (3, target.slot.to_be_bytes().to_vec()),
            Self::Event(_, sequence, _) | Self::DropEvent(_, sequence) => (4, sequence.to_be_bytes().to_vec()),
        };
        [&self.job().0[..], &[kind], &rest].concat()
    }
}

/// A spec without the values of its tasks' environments, which nobody needs who only keeps it; in short if it is too long.
fn without_env_values(spec: &[u8]) -> Vec<u8> {
    fn blank(value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value {
                Value::Object(env) if name == "Env" || name == "EnvironmentVariables" => {
                    env.values_mut().for_each(|value| *value = "".into());
                }
                Value::Array(env) if name == "EnvironmentVariables" => {
                    for pair in env {
                        let name = pair.as_str().and_then(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned());
                        *pair = format!("{}=", name.unwrap_or_default()).into();
                    }
                }
                value => blank(value),
            }),
            Value::Array(items) => items.iter_mut().for_each(blank),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(spec) else { return b"{}".to_vec() };
    blank(&mut value);
    let bytes = serde_json::to_vec(&value).unwrap_or_default();
    if bytes.len() <= GUARDED_SPEC_BYTES_MAX {
        return bytes;
    }
    let kept = ["Name", "Namespace", "Type", "Count", "Priority", "Labels"];
    let short = value.as_object().into_iter().flatten().filter(|(name, _)| kept.contains(&name.as_str()));
    let short: serde_json::Map<String, Value> = short.map(|(name, value)| (name.clone(), value.clone())).collect();
    serde_json::to_vec(&short)
        .ok()
        .filter(|bytes| bytes.len() <= GUARDED_SPEC_BYTES_MAX)
        .unwrap_or_else(|| b"{}".to_vec())
}

impl Ledger {
    /// Does what an entry says; gives what changed.
    pub(super) fn apply(&mut self, entry: Entry) -> Vec<Change> {
        match entry {
            Entry::Forget(job) => self.forget(&job),
            Entry::DropExecution(..) | Entry::DropEvent(..) => {
                let key = entry.key();
                self.remove(&key);
                vec![(key, None)]
            }
            entry => {
                let key = entry.key();
                self.remove(&key);
                match &entry {
                    Entry::Job(job) => _ = self.jobs.insert(job.id),
                    Entry::State(state) if state.state.is_terminal() => {
                        self.ended.insert((state.modified, state.id));
                    }
                    _ => {}
                }
                self.bytes += weight(&entry);
                self.entries.insert(key.clone(), entry.clone());
                vec![(key, Some(Box::new(entry)))]
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.bytes -= weight(&entry);
        match &entry {
            Entry::Job(job) => _ = self.jobs.remove(&job.id),
            Entry::State(state) => _ = self.ended.remove(&(state.modified, state.id)),
            _ => {}
        }
    }

    fn forget(&mut self, job: &JobId) -> Vec<Change> {
        let of_job = self.entries.range(job.0.to_vec()..).map(|(key, _)| key).take_while(|key| key.starts_with(&job.0));
        let keys: Vec<Vec<u8>> = of_job.cloned().collect();
        for key in &keys {
            self.remove(key);
        }
        keys.into_iter().map(|key| (key, None)).collect()
    }

    /// The ended job that is to be forgotten next, if there are too many, or they take too much room.
    pub(super) fn surplus(&self) -> Option<JobId> {
        let many = self.ended.len() > LEDGER_ENDED_MAX || self.bytes > LEDGER_BYTES_MAX / 2;
        self.ended.first().filter(|_| many).map(|(_, job)| *job)
    }

    /// Whether no more fits.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > LEDGER_BYTES_MAX
    }

    pub(super) fn has_job(&self, job: &JobId) -> bool {
        self.jobs.contains(job)
    }

    /// Jobs of which it is not known that they ended.
    pub(super) fn open(&self) -> impl Iterator<Item = JobId> {
        self.jobs().filter(|job| {
            let state = self.entries.get(&[&job.0[..], &[1]].concat());
            !matches!(state, Some(Entry::State(state)) if state.state.is_terminal())
        })
    }

    pub(super) fn open_count(&self) -> usize {
        self.jobs.len().saturating_sub(self.ended.len())
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.iter().copied()
    }

    /// Bytes of all that is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        self.entries.iter().map(|(key, entry)| (key.clone(), Some(Box::new(entry.clone()))))
    }

    /// Everything, in parts that fit into messages. At least one, if an empty one.
    pub(super) fn parts(&self) -> Vec<ListMax<Entry, APPEND_ENTRIES_MAX>> {
        let mut parts = chunks(self.entries.values().cloned());
        if parts.is_empty() {
            parts.push(ListMax::default());
        }
        parts
    }

    /// What a requester is rebuilt from.
    pub(super) fn records(&self) -> Records {
        let mut records = Records::default();
        let mut states = BTreeMap::new();
        let mut events: BTreeMap<JobId, u32> = BTreeMap::new();
        for entry in self.entries.values() {
            match entry {
                Entry::State(state) => _ = states.insert(state.id, state.clone()),
                Entry::Execution(execution) => records.executions.push((**execution).clone()),
                Entry::Target(target) => records.targets.push(target.clone()),
                Entry::Event(job, sequence, _) => _ = events.insert(*job, sequence + 1),
                Entry::Job(_) | Entry::DropExecution(..) | Entry::DropEvent(..) | Entry::Forget(_) => {}
            }
        }
        for entry in self.entries.values() {
            let Entry::Job(job) = entry else { continue };
            let state = states.remove(&job.id);
            if !state.as_ref().is_some_and(|state| JobState::is_terminal(state.state)) {
                records.jobs.push(((**job).clone(), state));
            }
        }
        // The newest of a slot's attempts is its last.
        records.executions.sort_by_key(|execution| (execution.created, execution.token));
        records.events = events.into_iter().collect();
        records
    }
}

pub(super) fn weight(entry: &Entry) -> usize {
    codec::encode(entry).len()
}

/// Entries in lists that fit into messages.
pub(super) fn chunks(entries: impl Iterator<Item = Entry>) -> Vec<ListMax<Entry, APPEND_ENTRIES_MAX>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let len = weight(&entry);
        if !chunk.is_empty() && (bytes + len > APPEND_BYTES_MAX || chunk.len() == APPEND_ENTRIES_MAX) {
            chunks.push(ListMax::truncated(std::mem::take(&mut chunk)));
            bytes = 0;
        }
        bytes += len;
        chunk.push(entry);
    }
    if !chunk.is_empty() {
        chunks.push(ListMax::truncated(chunk));
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_keeps_a_job_sees_the_values_of_its_environment() {
        let spec = br#"{"Name":"a","Tasks":[{"Env":{"TOKEN":"secret"},"Engine":{"Type":"docker","Params":
            {"Image":"i","EnvironmentVariables":["KEY=secret","ODD"]}},"Meta":{"note":"kept"}}]}"#;
        let kept = String::from_utf8(without_env_values(spec)).expect("text");
        assert!(!kept.contains("secret"), "{kept}");
        for part in ["TOKEN", "KEY=", "\"Image\":\"i\"", "\"note\":\"kept\""] {
            assert!(kept.contains(part), "{part}: {kept}");
        }
        let long = format!(r#"{{"Name":"a","Tasks":[{{"Env":{{"T":"s"}},"Args":"{}"}}]}}"#, "x".repeat(200_000));
        assert_eq!(without_env_values(long.as_bytes()), br#"{"Name":"a"}"#);
        assert_eq!(without_env_values(b"no JSON"), b"{}");
    }
}
