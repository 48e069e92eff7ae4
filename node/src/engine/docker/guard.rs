//! The guard: a process of its own that ends containers whose owner's word has run out.
//!
//! For each container there is a file with the tick at which it must have ended; the node writes it, and writes it again
//! whenever the owner is heard. The guard, this program under a hidden name in a session of its own, without keys or
//! database, looks at the files and kills what is past its time. It also writes what containers print, so that a node that
//! starts again finds its runs as it left them. It outlives the node for as long as there is something to watch. Ticks run on
//! in suspend and are the same for every process of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bacnode_protocol::id::ExecutionId;
use bollard::Docker;

use super::super::RunError;
use super::Until;
use super::output::{Output, Outputs};

/// The hidden command.
pub const COMMAND: &str = "guard-containers";
/// How often the guard looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How much later than the node the guard acts: the node ends its containers itself, and more gently.
const AFTER: u64 = 1_000_000;
/// How long what a container printed last is waited for when it is gone.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// Ends of names in the folder: what is being written, and who watches.
const PART: &str = "part";
const LOCK: &str = "guard.lock";

/// The node's side.
#[derive(Debug)]
pub(super) struct Guard {
    program: PathBuf,
    dir: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Guard {
    pub(super) fn new(program: PathBuf, dir: PathBuf) -> Self {
        Self { program, dir, process: Mutex::new(None) }
    }

    /// Has a container watched that is about to be made.
    pub(super) fn watch(&self, execution: &ExecutionId, until: &Until) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        self.write(execution, until.load(Ordering::Relaxed))?;
        self.ensure()
    }

    /// Starts the process, unless it runs.
    fn ensure(&self) -> std::io::Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !runs {
            *process = Some(self.start()?);
        }
        Ok(())
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg(COMMAND).arg(&self.dir).arg(std::process::id().to_string()).env_clear();
        // All that it needs to find the daemon.
        for name in ["DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "HOME", "PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    pub(super) fn extend(&self, execution: &ExecutionId, until: u64) {
        if self.file(execution).exists()
            && let Err(error) = self.write(execution, until)
        {
            tracing::warn!(%error, "cannot tell the guard that a run goes on");
        }
    }

    /// Has what a container prints written into `result`, from before its start.
    pub(super) async fn attach(
        &self,
        execution: &ExecutionId,
        result: &Path,
        log_bytes_max: u64,
        again: bool,
    ) -> Result<Output, RunError> {
        Output::attach(&self.dir, execution, result, log_bytes_max, again).await
    }

    /// The containers that a guard of a former life of the node still watches, and when each must have ended.
    pub(super) async fn left(&self) -> BTreeMap<ExecutionId, u64> {
        if !Output::takes_orders(&self.dir).await {
            return BTreeMap::new();
        }
        watched(&self.dir).into_iter().map(|(_, execution, until)| (execution, until)).collect()
    }

    fn write(&self, execution: &ExecutionId, until: u64) -> std::io::Result<()> {
        let part = self.file(execution).with_extension(PART);
        std::fs::write(&part, until.to_string())?;
        std::fs::rename(&part, self.file(execution))
    }

    pub(super) fn forget(&self, execution: &ExecutionId) {
        let _ = std::fs::remove_file(self.file(execution));
    }

    /// Waits, for a moment, until all that a container that is gone has printed is written.
    pub(super) async fn all_written(&self, execution: &ExecutionId) {
        if self.file(execution).exists() {
            let _ = tokio::time::timeout(WRITTEN_WITHIN, Output::all(&self.dir, execution)).await;
        }
    }

    /// Has the guard end all containers but these that it watches.
    pub(super) fn end_others(&self, kept: &BTreeSet<ExecutionId>) {
        let others = watched(&self.dir).into_iter().filter(|(_, execution, _)| !kept.contains(execution));
        let mut left = false;
        for (_, execution, _) in others {
            left = true;
            self.extend(&execution, 0);
        }
        if left && let Err(error) = self.ensure() {
            tracing::warn!(%error, "cannot start the guard");
        }
    }

    /// Forgets all containers but these.
    pub(super) fn forget_others(&self, kept: &BTreeSet<ExecutionId>) {
        for (path, execution, _) in watched(&self.dir) {
            if !kept.contains(&execution) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn file(&self, execution: &ExecutionId) -> PathBuf {
        self.dir.join(execution.to_string())
    }
}

/// Each container that is watched: its file, its execution, its end.
fn watched(dir: &Path) -> Vec<(PathBuf, ExecutionId, u64)> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| {
        let execution = entry.file_name().to_str()?.parse().ok()?;
        let until = std::fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
        Some((entry.path(), execution, until))
    });
    files.collect()
}

/// The guard's own life. Ends the process.
pub fn main() -> ! {
    let dir = std::env::args_os().nth(2).map(PathBuf::from).unwrap_or_default();
    let node = std::env::args().nth(3).and_then(|pid| pid.parse().ok());
    // Not among those that a terminal or a service manager ends together with the node.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(watch(&dir, node)),
        Err(_) => 1,
    };
    std::process::exit(code);
}

/// Watches the folder of the node that is this process.
async fn watch(dir: &Path, node: Option<i32>) -> i32 {
    let Ok(lock) = std::fs::File::create(dir.join(LOCK)) else { return 1 };
    // One guard a folder; the next waits until the last has gone.
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).is_err() {
        return 1;
    }
    let Ok(docker) = Docker::connect_with_defaults() else { return 1 };
    let Ok(outputs) = Outputs::serve(dir, docker.clone()) else { return 1 };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let containers = watched(dir);
        // Without its node, and with nothing to watch, it has nothing to do.
        if containers.is_empty() && rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != node {
            return 0;
        }
        outputs.retain(|execution| dir.join(execution.to_string()).exists());
        let now = crate::clock::tick().0;
        for (file, execution, until) in containers {
            if until.saturating_add(AFTER) < now && super::remove_all(&docker, &execution).await.is_ok() {
                let _ = std::fs::remove_file(file);
            }
        }
    }
}
