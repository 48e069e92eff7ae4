//! The machines' records, and what the API reads of them.

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId};
use bacnode_protocol::record::{
    ExecutionRecord, HeldRecord, JobEvent, JobRecord, JobStateRecord, Record, Records, TargetRecord,
};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::codec::{self, Decode, Encode};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::{Column, Store, StoreError};

/// Stands before every record: how it is encoded.
const TAG: u8 = 1;
/// Jobs looked at in one go to be forgotten.
const RETIRED_MAX: usize = 10_000;
/// Bytes of a record, at most.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A part of a list, and where the next one starts.
#[derive(Debug, Clone, Default)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The key at which the next one starts; none on the last.
    pub next: Option<Vec<u8>>,
}

pub(super) fn encode<T: Encode>(value: &T) -> Vec<u8> {
    [vec![TAG], codec::encode(value)].concat()
}

pub(super) fn decode<T: Decode<()> + Encode>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    let body = bytes.strip_prefix(&[TAG]).ok_or(StoreError::Damaged(what))?;
    codec::decode(body, RECORD_BYTES_MAX).map_err(|_| StoreError::Damaged(what))
}

/// The id of a job in a key.
fn id_at(key: &[u8], at: usize) -> Result<JobId, StoreError> {
    let id = key.get(at..).and_then(|bytes| <[u8; 20]>::try_from(bytes).ok());
    id.map(JobId).ok_or(StoreError::Damaged("job index"))
}

/// Where a job is found by its name; which has no NUL.
fn name_key(job: &JobRecord) -> Vec<u8> {
    [job.name.as_bytes(), &[0], &job.created.0.to_be_bytes(), &job.id.0].concat()
}

impl Store {
    /// Adds `record` to a step's batch.
    pub fn put_record(&self, batch: &mut WriteBatch, record: &Record) {
        match record {
            Record::Job(job) => {
                let bytes = encode(&**job);
                self.put_in(batch, Column::Jobs, &job.id.0, &bytes);
                let version = [&job.id.0[..], &job.task.version.to_be_bytes()].concat();
                self.put_in(batch, Column::Versions, &version, &bytes);
                let by_time = [&job.created.0.to_be_bytes()[..], &job.id.0].concat();
                self.put_in(batch, Column::JobsByTime, &by_time, &[]);
                self.put_in(batch, Column::Names, &name_key(job), job.namespace.as_bytes());
                self.put_in(batch, Column::OpenJobs, &job.id.0, &[]);
            }
            Record::JobState(state) => {
                self.put_in(batch, Column::JobState, &state.id.0, &encode(state));
                if state.state.is_terminal() {
                    self.delete_in(batch, Column::OpenJobs, &state.id.0);
                }
            }
            Record::Execution(execution) => {
                let key = [execution.job.0, execution.id.0].concat();
                self.put_in(batch, Column::Executions, &key, &encode(&**execution));
            }
            Record::DropExecution(job, execution) => {
                self.delete_in(batch, Column::Executions, &[job.0, execution.0].concat());
            }
            Record::Target(target) => {
                let key = [&target.job.0[..], &target.slot.to_be_bytes()].concat();
                self.put_in(batch, Column::Targets, &key, &encode(target));
            }
            Record::Event(job, sequence, event) => {
                let key = [&job.0[..], &sequence.to_be_bytes()].concat();
                self.put_in(batch, Column::Events, &key, &encode(event));
            }
            Record::DropEvent(job, sequence) => {
                self.delete_in(batch, Column::Events, &[&job.0[..], &sequence.to_be_bytes()].concat());
            }
            Record::Held(held) => self.put_in(batch, Column::Held, &held.execution.0, &encode(&**held)),
            Record::Forget(execution) => self.delete_in(batch, Column::Held, &execution.0),
            Record::Ward(_) | Record::DropWard(_) | Record::Group(_) | Record::Kept(..) | Record::DropGroup(_) => {
                self.put_group_record(batch, record);
            }
        }
    }

    /// Everything that the machines are rebuilt from.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn records(&self) -> Result<Records, StoreError> {
        let mut records = Records::default();
        for item in self.scan(Column::OpenJobs, &[]) {
            let id = JobId(<[u8; 20]>::try_from(&*item?.0).map_err(|_| StoreError::Damaged("open job"))?);
            let Some(job) = self.job(&id)? else { continue };
            records.jobs.push(job);
            records.executions.extend(self.executions(&id)?);
            records.targets.extend(self.targets(&id)?);
            records.events.push((id, self.events(&id, 0)?.last().map_or(0, |(sequence, _)| sequence + 1)));
        }
        for item in self.scan(Column::Held, &[]) {
            records.held.push(decode::<HeldRecord>(&item?.1, "held award")?);
        }
        self.group_records(&mut records)?;
        Ok(records)
    }

    /// A job and its state.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn job(&self, id: &JobId) -> Result<Option<(JobRecord, Option<JobStateRecord>)>, StoreError> {
        let Some(bytes) = self.get(Column::Jobs, &id.0)? else { return Ok(None) };
        let state = self.get(Column::JobState, &id.0)?.map(|bytes| decode(&bytes, "job state")).transpose()?;
        Ok(Some((decode(&bytes, "job")?, state)))
    }

    /// A job's versions that are kept, the oldest first.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn versions(&self, job: &JobId) -> Result<Vec<JobRecord>, StoreError> {
        self.scan(Column::Versions, &job.0).map(|item| decode(&item?.1, "version")).collect()
    }

    /// The nodes of a job that runs everywhere, by slot.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn targets(&self, job: &JobId) -> Result<Vec<TargetRecord>, StoreError> {
        self.scan(Column::Targets, &job.0).map(|item| decode(&item?.1, "target")).collect()
    }

    /// A job's attempts, the oldest first.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn executions(&self, job: &JobId) -> Result<Vec<ExecutionRecord>, StoreError> {
        let mut executions: Vec<ExecutionRecord> = self
            .scan(Column::Executions, &job.0)
            .map(|item| decode(&item?.1, "execution"))
            .collect::<Result<_, _>>()?;
        executions.sort_by_key(|execution| (execution.token, execution.slot));
        Ok(executions)
    }

    /// A job's story from line `from` on.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn events(&self, job: &JobId, from: u32) -> Result<Vec<(u32, JobEvent)>, StoreError> {
        let mut events = Vec::new();
        for item in self.scan(Column::Events, &job.0) {
            let (key, value) = item?;
            let sequence = key.get(20..).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let sequence = u32::from_be_bytes(sequence.ok_or(StoreError::Damaged("event"))?);
            if sequence >= from {
                events.push((sequence, decode(&value, "event")?));
            }
        }
        Ok(events)
    }

    /// Jobs in order of submission that `wanted` takes: at most `limit`, from `cursor` on.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn jobs(
        &self,
        newest_first: bool,
        cursor: Option<&[u8]>,
        limit: usize,
        mut wanted: impl FnMut(&JobRecord) -> bool,
    ) -> Result<Page<(JobRecord, Option<JobStateRecord>)>, StoreError> {
        let mode = match (cursor, newest_first) {
            (Some(cursor), true) => IteratorMode::From(cursor, Direction::Reverse),
            (Some(cursor), false) => IteratorMode::From(cursor, Direction::Forward),
            (None, true) => IteratorMode::End,
            (None, false) => IteratorMode::Start,
        };
        let mut page = Page { items: Vec::new(), next: None };
        for item in self.db().iterator_cf(self.family(Column::JobsByTime), mode) {
            let (key, _) = item?;
            let Some((job, state)) = self.job(&id_at(&key, 8)?)? else { continue };
            if !wanted(&job) {
                continue;
            }
            if page.items.len() == limit {
                page.next = Some(key.into_vec());
                break;
            }
            page.items.push((job, state));
        }
        Ok(page)
    }

    /// Every job with when it changed last, the one that has been as it is for longest first.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn jobs_by_change(&self) -> Result<Vec<(u64, JobId)>, StoreError> {
        let mut changes = Vec::new();
        for item in self.scan(Column::JobsByTime, &[]) {
            let (key, _) = item?;
            let id = id_at(&key, 8)?;
            let state: Option<JobStateRecord> =
                self.get(Column::JobState, &id.0)?.map(|bytes| decode(&bytes, "job state")).transpose()?;
            let created = key[..8].try_into().map_or(0, u64::from_be_bytes);
            changes.push((state.map_or(created, |state| state.modified.0), id));
        }
        changes.sort_unstable();
        Ok(changes)
    }

    /// The jobs of this name, the oldest first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn named(&self, namespace: &str, name: &str) -> Result<Vec<JobId>, StoreError> {
        let prefix = [name.as_bytes(), &[0]].concat();
        let mut found = Vec::new();
        for item in self.scan(Column::Names, &prefix) {
            let (key, value) = item?;
            if *value == *namespace.as_bytes() {
                found.push(id_at(&key, prefix.len() + 8)?);
            }
        }
        Ok(found)
    }

    /// The latest job of this name, in any namespace.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn latest_named(&self, name: &str) -> Result<Option<JobId>, StoreError> {
        let prefix = [name.as_bytes(), &[0]].concat();
        // Behind all that begin so.
        let end = [name.as_bytes(), &[1]].concat();
        let mode = IteratorMode::From(&end, Direction::Reverse);
        let last = self.db().iterator_cf(self.family(Column::Names), mode).next().transpose()?;
        let last = last.filter(|(key, _)| key.starts_with(&prefix));
        last.map(|(key, _)| id_at(&key, prefix.len() + 8)).transpose()
    }

    /// Forgets jobs that have ended: those that ended before `before`, and the oldest of more than `most`. At most so many
    /// at a time that nobody waits for it. Gives the results that were held for them, each with why.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn retire(&self, most: usize, before: UnixMillis) -> Result<Vec<(Cid, String)>, StoreError> {
        let count = self.scan(Column::JobsByTime, &[]).count();
        let (mut surplus, mut batch, mut held) = (count.saturating_sub(most), WriteBatch::default(), Vec::new());
        for item in self.scan(Column::JobsByTime, &[]).take(count.min(RETIRED_MAX)) {
            let (by_time, _) = item?;
            let id = id_at(&by_time, 8)?;
            let Some((job, Some(state))) = self.job(&id)? else { continue };
            if !state.state.is_terminal() || (surplus == 0 && state.modified >= before) {
                continue;
            }
            surplus = surplus.saturating_sub(1);
            for execution in self.executions(&id)? {
                held.extend(execution.root().map(|root| (root, format!("{id}/{}", execution.id))));
            }
            for column in [Column::Versions, Column::Targets, Column::Executions, Column::Events] {
                for item in self.scan(column, &id.0) {
                    self.delete_in(&mut batch, column, &item?.0);
                }
            }
            self.delete_in(&mut batch, Column::JobState, &id.0);
            self.delete_in(&mut batch, Column::Names, &name_key(&job));
            self.delete_in(&mut batch, Column::JobsByTime, &by_time);
            self.delete_in(&mut batch, Column::Jobs, &id.0);
        }
        if !batch.is_empty() {
            self.log().append(batch)?;
        }
        Ok(held)
    }

    /// Jobs whose id starts with `prefix`, at most two: enough to tell "one", "none" and "several" apart.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn jobs_with_prefix(&self, prefix: &str) -> Result<Vec<JobId>, StoreError> {
        let mut found = Vec::new();
        // Newest first, so that a name means its latest run.
        let mode = IteratorMode::From(&[0xff; 29], Direction::Reverse);
        for item in self.db().iterator_cf(self.family(Column::JobsByTime), mode) {
            let (key, _) = item?;
            let Some(id) = key.get(8..).and_then(|bytes| <[u8; 20]>::try_from(bytes).ok()).map(JobId) else { continue };
            if id.to_string().starts_with(prefix) {
                found.push(id);
                if found.len() == 2 {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The award held under this id.
    ///
    /// # Errors
    /// If the disk fails or the record is damaged.
    pub fn held(&self, execution: &ExecutionId) -> Result<Option<HeldRecord>, StoreError> {
        self.get(Column::Held, &execution.0)?.map(|bytes| decode(&bytes, "held award")).transpose()
    }
}
