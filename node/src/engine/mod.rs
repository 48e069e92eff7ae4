//! Engines: what runs a task that the compute machine wants started.
//!
//! A run goes through the same phases whatever the engine: its inputs are fetched and mounted, the engine runs it in a
//! folder of its own, and what it left becomes a result folder, pinned for its owner. An engine that the machine lacks is
//! not advertised. Nothing outlives its owner's word: workers end when their socket does, containers
//! by their guard.

pub mod docker;
pub(crate) mod egress;
mod inputs;
mod note;
pub mod probe;
pub mod publish;
mod result;
mod run;
mod s3;
pub mod wasm;
pub mod web;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bacnode_protocol::compute::{Considered, Ended, Facts, Policy, Refusal, Run};
use bacnode_protocol::id::{ExecutionId, NodeId};
use bacnode_protocol::limits::PORTS_MAX;
use bacnode_protocol::time::{Span, Tick};
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::market::{FailureKind, Phase};
use bacnode_protocol::wire::task::{EngineTask, OpenPort, Source};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::note::Note;
use self::probe::Probe;

use crate::config::{Config, LocalPath, TaskLimits};
use crate::content::{Content, ContentError};
use crate::network::Fetcher;

/// How often a run's time is looked at, at least.
const EXPIRY_LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// What an engine says while it runs something.
#[derive(Debug)]
pub enum Report {
    /// It is in another phase.
    Phase(ExecutionId, Phase),
    /// It answers at these ports.
    Open(ExecutionId, ListMax<OpenPort, PORTS_MAX>),
    /// It ended.
    Ended(ExecutionId, Box<Ended>),
}

/// Why a run did not come to the program's own end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The task's doing.
    #[error("{cause}")]
    Task {
        /// What kind of doing.
        kind: FailureKind,
        /// In words.
        cause: String,
    },
    /// This node's doing.
    #[error("{0}")]
    Node(String),
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
}

impl From<ContentError> for RunError {
    fn from(error: ContentError) -> Self {
        Self::Node(error.to_string())
    }
}

impl RunError {
    fn task(kind: FailureKind, cause: impl Into<String>) -> Self {
        Self::Task { kind, cause: cause.into() }
    }
}

/// Everything that runs on this node. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    inner: Arc<Inner>,
}

struct Inner {
    content: Content,
    fetcher: Arc<dyn Fetcher>,
    wasm: wasm::Engine,
    docker: Option<docker::Engine>,
    limits: TaskLimits,
    allow_local: Vec<LocalPath>,
    policy: Policy,
    probe: Option<Probe>,
    web: web::Fetcher,
    stores: s3::Stores,
    publisher: Option<publish::Publisher>,
    me: NodeId,
    dir: PathBuf,
    running: Mutex<HashMap<ExecutionId, Running>>,
    reports: tokio::sync::mpsc::Sender<Report>,
    /// For connections of all tasks' proxies together.
    room: Arc<Semaphore>,
}

/// A run that can be stopped and whose output can be read.
#[derive(Clone)]
struct Running {
    stop: CancellationToken,
    /// The tick at which its owner's word runs out.
    until: Arc<AtomicU64>,
    owner: NodeId,
    result: PathBuf,
    /// Whether it may have read what does not leave this node.
    may_read_private: bool,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Runner({} running)", self.lock().len())
    }
}

impl Runner {
    /// A runner that says what happens to `reports`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(
        content: Content,
        fetcher: Arc<dyn Fetcher>,
        wasm: wasm::Engine,
        docker: Option<docker::Engine>,
        publisher: Option<publish::Publisher>,
        config: &Config,
        me: NodeId,
        room: Arc<Semaphore>,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> std::io::Result<Self> {
        let dir = content.runs();
        std::fs::create_dir_all(&dir)?;
        let running = Mutex::new(HashMap::new());
        let (limits, allow_local, policy) = (config.limits, config.allow_local.clone(), config.policy.clone());
        let (web, stores) = (web::Fetcher::new(policy.web), s3::Stores::new(policy.clone()));
        let probe = config.probe.clone();
        let inner = Inner {
            content,
            fetcher,
            wasm,
            docker,
            limits,
            allow_local,
            policy,
            probe,
            web,
            stores,
            publisher,
            me,
            dir,
            running,
            reports,
            room,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ExecutionId, Running>> {
        self.inner.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at an ask.
    ///
    /// # Errors
    /// If it is to be declined.
    pub async fn consider(&self, considered: &Considered) -> Result<Facts, Refusal> {
        if let Some(probe) = &self.inner.probe {
            probe.ask(considered).await?;
        }
        match (&considered.task.engine, &self.inner.docker) {
            (EngineTask::Docker(task), Some(docker)) => docker.look_at(&task.image, &considered.task).await,
            (EngineTask::Docker(_), None) => Err(Refusal { reason: "has no docker engine".into(), later: false }),
            (EngineTask::Wasm(_), _) => Ok(Facts::default()),
        }
    }

    /// Runs of a former life of this node that may go on: their containers are there, and are watched.
    pub async fn left(&self) -> Vec<Run> {
        let Some(docker) = &self.inner.docker else { return Vec::new() };
        let left = docker.left().await;
        let left =
            left.inspect_err(|cause| tracing::warn!(%cause, "cannot see what a former life left")).unwrap_or_default();
        let run = |(execution, until)| Note::read(&self.result_of(&execution))?.run(execution, until);
        left.into_iter().filter_map(run).collect()
    }

    /// Removes what a former life of this node left of any other run than these.
    pub async fn sweep(&self, kept: &BTreeSet<ExecutionId>) {
        if let Some(docker) = &self.inner.docker {
            docker.sweep(kept).await;
        }
        for entry in std::fs::read_dir(&self.inner.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
            if of.is_none_or(|execution| !kept.contains(&execution)) {
                crate::content::remove_tree(&entry.path());
            }
        }
    }

    fn result_of(&self, execution: &ExecutionId) -> PathBuf {
        self.inner.dir.join(execution.to_string())
    }

    /// Starts `run`; its end is reported exactly once.
    pub fn start(&self, run: Run) {
        self.go(run, false);
    }

    /// Goes on with a run of a former life; its end is reported exactly once.
    pub fn resume(&self, run: Run) {
        self.go(run, true);
    }

    fn go(&self, run: Run, is_left: bool) {
        let execution = run.execution;
        let result = self.result_of(&execution);
        if run.until <= crate::clock::tick() {
            // The start had to wait for the disk, too long, or what goes on for the removal of what does not.
            let this = self.clone();
            tokio::spawn(async move {
                if let Some(docker) = this.inner.docker.as_ref().filter(|_| is_left) {
                    docker.remove(&execution, false).await;
                }
                clear(&result);
                let ended = Box::new(run::node_failed("its lease was over before it could start, or go on"));
                this.inner.reports.send(Report::Ended(execution, ended)).await
            });
            return;
        }
        if let Some(docker) = self.inner.docker.as_ref().filter(|_| is_left) {
            docker.reserve(&execution, &Note::read(&result).unwrap_or_default());
        }
        let until = Arc::new(AtomicU64::new(run.until.0));
        let stop = CancellationToken::new();
        let running = Running {
            stop: stop.clone(),
            until: Arc::clone(&until),
            owner: run.owner,
            result: result.clone(),
            may_read_private: may_read_private(&run),
        };
        tokio::spawn(expire(Arc::clone(&running.until), stop.clone()));
        self.lock().insert(execution, running);
        let this = self.clone();
        tokio::spawn(async move {
            // A panic in an engine is this node's fault and must not leave the slot taken.
            let task = tokio::spawn(run::run(this.clone(), run, is_left, stop.clone(), until, result.clone()));
            let ended = task.await;
            if let (Err(_), Some(docker)) = (&ended, &this.inner.docker) {
                docker.remove(&execution, false).await;
            }
            let ended = ended.unwrap_or_else(|_| run::node_failed("the engine broke down"));
            // Its clock need not be looked at any more.
            stop.cancel();
            this.lock().remove(&execution);
            clear(&result);
            let _ = this.inner.reports.send(Report::Ended(execution, Box::new(ended))).await;
        });
    }

    /// Lets a run go on until then.
    pub fn extend(&self, execution: &ExecutionId, until: Tick) {
        if let Some(running) = self.lock().get(execution) {
            let before = running.until.fetch_max(until.0, Ordering::Relaxed);
            if let Some(docker) = self.inner.docker.as_ref().filter(|_| before < until.0) {
                docker.extend(execution, until.0);
            }
        }
    }

    /// Another node decides on this run from now.
    pub fn give(&self, execution: &ExecutionId, owner: NodeId) {
        if let Some(running) = self.lock().get_mut(execution) {
            running.owner = owner;
        }
    }

    /// Stops a run.
    pub fn stop(&self, execution: &ExecutionId) {
        if let Some(running) = self.lock().get(execution) {
            running.stop.cancel();
        }
    }

    /// Stops everything.
    pub fn stop_all(&self) {
        for running in self.lock().values() {
            // There may be no time to see them end.
            Note::remove(&running.result);
            running.stop.cancel();
        }
    }

    /// Where `owner`'s run writes stdout and stderr, while it runs.
    #[must_use]
    pub fn logs_of(&self, execution: &ExecutionId, owner: &NodeId) -> Option<PathBuf> {
        let running = self.lock();
        let running = running.get(execution).filter(|running| running.owner == *owner)?;
        let stays = running.may_read_private && self.inner.policy.withholds_from(&self.inner.me, owner);
        (!stays).then(|| running.result.clone())
    }

    async fn report_phase(&self, execution: ExecutionId, phase: Phase) {
        let _ = self.inner.reports.send(Report::Phase(execution, phase)).await;
    }
}

/// Removes a run's folders.
fn clear(result: &std::path::Path) {
    crate::content::remove_tree(result);
    crate::content::remove_tree(&result.with_extension("work"));
    Note::remove(result);
}

/// Whether a run may turn out to read what does not leave this node.
fn may_read_private(run: &Run) -> bool {
    run.task.inputs.iter().any(|input| matches!(input.source, Source::Content(_) | Source::Local { .. }))
}

/// Stops a run when its owner's word has run out, even while the driver waits for the disk. The clock runs on in suspend,
/// timers do not: it is looked at often.
async fn expire(until: Arc<AtomicU64>, stop: CancellationToken) {
    loop {
        let left = Tick(until.load(Ordering::Relaxed)).since(crate::clock::tick());
        if left == Span::ZERO {
            return stop.cancel();
        }
        let pause = std::time::Duration::from(left).min(EXPIRY_LOOK);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
