//! Worker processes: started ahead, given out, replaced.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::market::FailureKind;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::{Reply, Request, artefacts, socket, worker};
use crate::engine::RunError;

/// Idle workers kept for owners that may come again, beside the fresh ones.
const USED_MAX: usize = 4;
/// The signal that ends a process that writes past its file size limit, on every system this runs on.
const SIGXFSZ: i32 = 25;

/// The variables that name other certificates than the system's.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The signal of the system's last resort.
const SIGKILL: i32 = 9;

/// One worker process.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    stream: Arc<UnixStream>,
}

/// How a worker ended.
#[derive(Debug)]
pub(super) enum Death {
    /// It wrote too large a file.
    FileSize,
    /// It ended itself at its deadline.
    Deadline,
    /// The system killed it, for want of memory most likely.
    Killed,
    /// Otherwise.
    Other(String),
}

impl Worker {
    fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(worker::COMMAND)
            .env_clear()
            // Whom components trust with their web requests is the operator's to say.
            .envs(CERTIFICATES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal's interrupt is for the daemon, which ends its workers in its own order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, stream: Arc::new(ours) })
    }

    /// Sends a request and waits for the reply, in a thread of its own.
    pub(super) async fn call(&mut self, request: &Request, files: &[Arc<std::fs::File>]) -> io::Result<Reply> {
        let (stream, request, files) = (Arc::clone(&self.stream), request.clone(), files.to_vec());
        let exchange = move || {
            let borrowed: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
            socket::send(&stream, &request, &borrowed)?;
            let received = socket::receive(&stream)?;
            received.map(|(reply, _)| reply).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        // A thread of its own: guests may run for hours, and the runtime's threads are for others' short work.
        let (answer, answered) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("guest".into()).stack_size(256 << 10);
        thread.spawn(move || _ = answer.send(exchange()))?;
        answered.await.map_err(io::Error::other)?
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How the worker ended, now that it does not answer.
    pub(super) async fn death(&mut self) -> Death {
        let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await else {
            return Death::Other("it does not answer".into());
        };
        match (status.signal(), status.code()) {
            (Some(SIGXFSZ), _) => Death::FileSize,
            (_, Some(worker::EXIT_DEADLINE)) => Death::Deadline,
            (Some(SIGKILL), _) => Death::Killed,
            (Some(signal), _) => Death::Other(format!("signal {signal}")),
            (None, code) => Death::Other(format!("exit code {}", code.unwrap_or(-1))),
        }
    }
}

/// The workers of this node.
#[derive(Debug)]
pub(super) struct Pool {
    program: PathBuf,
    warm: usize,
    idle: Mutex<Idle>,
    compiler: Mutex<Option<Worker>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Never ran anything.
    fresh: VecDeque<Worker>,
    /// Ran for this owner, and only for it.
    used: VecDeque<(NodeId, Worker)>,
}

impl Pool {
    pub(super) fn new(program: PathBuf, warm: usize) -> Self {
        Self { program, warm, idle: Mutex::default(), compiler: Mutex::default() }
    }

    fn start(&self) -> Result<Worker, RunError> {
        Worker::start(&self.program).map_err(|error| RunError::Node(format!("cannot start a worker: {error}")))
    }

    /// A worker for `owner`: one that served it before, or a fresh one.
    pub(super) async fn take(self: &Arc<Self>, owner: &NodeId) -> Result<Worker, RunError> {
        let mut idle = self.idle.lock().await;
        if let Some(index) = idle.used.iter().rposition(|(served, _)| served == owner)
            && let Some((_, mut worker)) = idle.used.remove(index)
            && worker.is_alive()
        {
            return Ok(worker);
        }
        // One that was killed while it was idle is no good.
        while idle.fresh.front_mut().is_some_and(|worker| !worker.is_alive()) {
            idle.fresh.pop_front();
        }
        let worker = idle.fresh.pop_front();
        drop(idle);
        // Its place is filled while the guest runs.
        let this = Arc::clone(self);
        tokio::spawn(async move { this.refill().await });
        worker.map_or_else(|| self.start(), Ok)
    }

    /// Takes a worker back that may serve its owner again.
    pub(super) async fn give_back(&self, worker: Worker, owner: &NodeId) {
        let mut idle = self.idle.lock().await;
        idle.used.push_back((*owner, worker));
        while idle.used.len() > USED_MAX {
            idle.used.pop_front();
        }
    }

    /// Starts fresh workers until as many as wanted are idle. One that serves some owner counts: the usual node has one.
    pub(super) async fn refill(&self) {
        let mut idle = self.idle.lock().await;
        while idle.fresh.len() + idle.used.len().min(self.warm.saturating_sub(1)) < self.warm {
            match self.start() {
                Ok(worker) => idle.fresh.push_back(worker),
                Err(error) => {
                    tracing::warn!(%error, "no warm worker");
                    return;
                }
            }
        }
    }

    pub(super) async fn shut_down(&self) {
        *self.idle.lock().await = Idle::default();
        *self.compiler.lock().await = None;
    }

    /// Compiles the module in `path`. The worker that does so never runs a guest, and ends after each module: compiling is
    /// rare, and it frees the memory.
    pub(super) async fn compile(&self, path: &Path, deterministic: bool) -> Result<Vec<u8>, RunError> {
        let failed = |error: io::Error| RunError::Node(format!("cannot compile the module: {error}"));
        let module = Arc::new(std::fs::File::open(path).map_err(failed)?);
        let artefact = Arc::new(artefacts::memory_file().map_err(failed)?);
        let mut compiler = self.compiler.lock().await;
        let mut worker = match compiler.take() {
            Some(worker) => worker,
            None => self.start()?,
        };
        let request = Request::Compile { deterministic };
        let files = [module, Arc::clone(&artefact)];
        let call = worker.call(&request, &files);
        // From when it is its turn: a module must not fail for the time that another one took.
        let reply = tokio::time::timeout(super::COMPILE_TIMEOUT, call).await;
        drop(worker);
        let reply = reply.map_err(|_| RunError::task(FailureKind::Program, super::too_slow()))?;
        match reply {
            Ok(Reply::Compiled(Ok(()))) => artefacts::read_all(&artefact).map_err(failed),
            Ok(Reply::Compiled(Err(cause))) => Err(RunError::task(FailureKind::Program, cause)),
            Ok(Reply::Ran(_) | Reply::Needs(_)) => Err(RunError::Node("a worker answered something else".into())),
            Err(error) => {
                let cause = format!("the module breaks the compiler ({error})");
                Err(RunError::task(FailureKind::Program, cause))
            }
        }
    }
}
