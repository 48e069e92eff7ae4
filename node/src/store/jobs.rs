//! The machines' records, and what the API reads of them.

use bacnode_protocol::id::{ExecutionId, JobId};
use bacnode_protocol::record::{
    ExecutionRecord, HeldRecord, JobEvent, JobRecord, JobStateRecord, Record, Records, TargetRecord,
};
use bacnode_protocol::wire::codec::{self, Decode, Encode};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::{Column, Store, StoreError};

/// Stands before every record: how it is encoded.
const TAG: u8 = 1;
/// Bytes of a record, at most.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A part of a list, and where the next one starts.
#[derive(Debug, Clone, Default)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Skip so many for the next one; none on the last.
    pub next: Option<usize>,
}

fn encode<T: Encode>(value: &T) -> Vec<u8> {
    [vec![TAG], codec::encode(value)].concat()
}

fn decode<T: Decode<()> + Encode>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    let body = bytes.strip_prefix(&[TAG]).ok_or(StoreError::Damaged(what))?;
    codec::decode(body, RECORD_BYTES_MAX).map_err(|_| StoreError::Damaged(what))
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

    /// Jobs in order of submission that `wanted` takes: at most `limit` after skipping `skip`.
    ///
    /// # Errors
    /// If the disk fails or a record is damaged.
    pub fn jobs(
        &self,
        newest_first: bool,
        skip: usize,
        limit: usize,
        mut wanted: impl FnMut(&JobRecord, Option<&JobStateRecord>) -> bool,
    ) -> Result<Page<(JobRecord, Option<JobStateRecord>)>, StoreError> {
        let mode = if newest_first { IteratorMode::End } else { IteratorMode::Start };
        let mut page = Page { items: Vec::new(), next: None };
        let mut seen = 0;
        for item in self.db().iterator_cf(self.family(Column::JobsByTime), mode) {
            let (key, _) = item?;
            let id = key.get(8..).and_then(|bytes| <[u8; 20]>::try_from(bytes).ok());
            let id = JobId(id.ok_or(StoreError::Damaged("job index"))?);
            let Some((job, state)) = self.job(&id)? else { continue };
            if !wanted(&job, state.as_ref()) {
                continue;
            }
            seen += 1;
            if seen <= skip {
                continue;
            }
            if page.items.len() == limit {
                page.next = Some(skip + limit);
                break;
            }
            page.items.push((job, state));
        }
        Ok(page)
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
