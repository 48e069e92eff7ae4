//! What is written beside a container's run, so that a later life of the node goes on with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bacnode_protocol::compute::Run;
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::ExecutionId;
use bacnode_protocol::limits::TASK_BYTES_MAX;
use bacnode_protocol::time::Tick;
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::market::Usage;
use bacnode_protocol::wire::task::OpenPort;
use serde::{Deserialize, Serialize};

use super::inputs::{Reads, Ready};

/// The note of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Note {
    owner: String,
    job: String,
    slot: u32,
    image: Option<[u8; 32]>,
    /// As it came over the wire, in hexadecimal digits.
    task: String,
    read_private: bool,
    read_local: bool,
    bytes_in: u64,
    bytes_held: u64,
    /// Content that is mounted in it: whether it is private, and its root.
    mounted: Vec<(bool, String)>,
    /// Its ports: name, the machine's, its own.
    ports: Vec<(String, u16, u16)>,
    /// GPUs that it was given.
    pub(super) gpus: Vec<String>,
}

impl Note {
    pub(super) fn new(run: &Run, sources: &[Ready], reads: &Reads, usage: &Usage, ports: &[OpenPort]) -> Self {
        Self {
            owner: run.owner.to_string(),
            job: run.job.to_string(),
            slot: run.slot,
            image: run.image,
            task: hex::encode(codec::encode(&run.task)),
            read_private: reads.private.load(Ordering::Relaxed),
            read_local: reads.local.load(Ordering::Relaxed),
            bytes_in: usage.bytes_in,
            bytes_held: usage.bytes_held,
            mounted: sources
                .iter()
                .filter_map(Ready::mounted)
                .map(|(private, root)| (private, root.to_string()))
                .collect(),
            ports: ports.iter().map(|port| (port.name.to_string(), port.host, port.target)).collect(),
            gpus: Vec::new(),
        }
    }

    /// Its file, beside the folder in which the run's result is made.
    fn file(result: &Path) -> PathBuf {
        result.with_extension("run")
    }

    pub(super) fn write(&self, result: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        // The values of the task's environment are in it.
        let file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(Self::file(result))?;
        Ok(serde_json::to_writer(file, self)?)
    }

    pub(super) fn read(result: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::file(result)).ok()?).ok()
    }

    pub(super) fn remove(result: &Path) {
        let _ = std::fs::remove_file(Self::file(result));
    }

    /// The run that it is of, which must have ended at `until`.
    pub(super) fn run(&self, execution: ExecutionId, until: u64) -> Option<Run> {
        let task = codec::decode(&hex::decode(&self.task).ok()?, TASK_BYTES_MAX).ok()?;
        let (owner, job) = (self.owner.parse().ok()?, self.job.parse().ok()?);
        Some(Run { execution, owner, job, slot: self.slot, task, image: self.image, until: Tick(until) })
    }

    /// What it had read and used before its program began.
    pub(super) fn recall(&self, reads: &Reads, usage: &mut Usage) {
        reads.private.store(self.read_private, Ordering::Relaxed);
        reads.local.store(self.read_local, Ordering::Relaxed);
        (usage.bytes_in, usage.bytes_held) = (self.bytes_in, self.bytes_held);
    }

    pub(super) fn mounted(&self) -> impl Iterator<Item = (bool, Cid)> {
        self.mounted.iter().filter_map(|(private, root)| Some((*private, root.parse().ok()?)))
    }

    pub(super) fn ports(&self) -> Vec<OpenPort> {
        let port = |(name, host, target): &(String, u16, u16)| OpenPort {
            name: bacnode_protocol::wire::bounded::TextMax::truncated(name),
            host: *host,
            target: *target,
        };
        self.ports.iter().map(port).collect()
    }
}
