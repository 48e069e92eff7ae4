//! What containers print, written to where their results are made.
//!
//! The guard does it, not the node: the daemon keeps none of what is printed, and none of it may be lost while a node starts
//! again. The node gives one order a container, as a line of JSON over a socket beside the guard's files, and hears, line by
//! line, how far that is; a later life of the node gives the same order and hears the rest.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bacnode_protocol::id::ExecutionId;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::market::FailureKind;
use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::super::RunError;
use super::{container, plain};

/// The socket's name in the guard's folder.
const SOCKET: &str = "guard.sock";
/// How long a guard that is just starting, or leaving to another, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
/// The longest order.
const ORDER_BYTES_MAX: u64 = 16 << 10;

/// What is to be written, and where.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    execution: String,
    /// The folder for `stdout` and `stderr`.
    result: PathBuf,
    log_bytes_max: u64,
    /// It was given before, and what was printed since is not to be lost.
    again: bool,
}

/// How far the writing of one container's output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Progress {
    Attaching,
    /// What it prints from now on is written.
    Attached,
    /// All of it has been.
    Printed,
    /// It is more than may be kept.
    Excess,
    Failed(String),
}

impl Progress {
    fn is_last(&self) -> bool {
        !matches!(self, Self::Attaching | Self::Attached)
    }
}

/// The node's end of one order.
#[derive(Debug)]
pub(super) struct Output {
    lines: tokio::io::Lines<BufReader<UnixStream>>,
    log_bytes_max: u64,
    last: Progress,
}

impl Output {
    /// Has the guard of `dir` write what a container prints, and waits until it does; or, `again`, hears of what it has
    /// written since a former life of the node.
    pub(super) async fn attach(
        dir: &Path,
        execution: &ExecutionId,
        result: &Path,
        log_bytes_max: u64,
        again: bool,
    ) -> Result<Self, RunError> {
        let order = Order { execution: execution.to_string(), result: result.to_owned(), log_bytes_max, again };
        let attached = tokio::time::timeout(PATIENCE, async {
            loop {
                // A guard that is leaving hangs up: the next one takes the order.
                if let Ok(output) = Self::order(dir, &order).await {
                    return output;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        let output =
            attached.await.map_err(|_| RunError::Node("the guard of its containers does not answer".into()))?;
        match output.last {
            Progress::Failed(cause) => Err(RunError::Node(cause)),
            _ => Ok(output),
        }
    }

    /// Waits until all that a container printed is written.
    pub(super) async fn all(dir: &Path, execution: &ExecutionId) -> Result<(), RunError> {
        let order = Order { execution: execution.to_string(), result: PathBuf::new(), log_bytes_max: 0, again: true };
        let ordered = Self::order(dir, &order).await;
        ordered.map_err(|error| RunError::Node(error.to_string()))?.printed().await
    }

    /// Whether the guard of `dir` is there.
    pub(super) async fn takes_orders(dir: &Path) -> bool {
        let Ok(place) = Place::new(dir) else { return false };
        UnixStream::connect(place.socket()).await.is_ok()
    }

    async fn order(dir: &Path, order: &Order) -> std::io::Result<Self> {
        let place = Place::new(dir)?;
        let mut stream = UnixStream::connect(place.socket()).await?;
        let line = serde_json::to_string(order)? + "\n";
        stream.write_all(line.as_bytes()).await?;
        let lines = BufReader::new(stream).lines();
        let mut output = Self { lines, log_bytes_max: order.log_bytes_max, last: Progress::Attaching };
        while output.last == Progress::Attaching {
            output.hear().await?;
        }
        Ok(output)
    }

    async fn hear(&mut self) -> std::io::Result<()> {
        let line = self.lines.next_line().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        self.last = serde_json::from_str(&line)?;
        Ok(())
    }

    /// Waits until all that it prints is written.
    ///
    /// # Errors
    /// If that is too much, or somebody failed.
    pub(super) async fn printed(&mut self) -> Result<(), RunError> {
        while !self.last.is_last() {
            let heard = self.hear().await;
            heard.map_err(|_| RunError::Node("the guard that keeps what it prints is gone".into()))?;
        }
        match &self.last {
            Progress::Excess => {
                let limit = format_bytes(self.log_bytes_max);
                let cause = format!("the program printed more than the {limit} that are kept");
                Err(RunError::task(FailureKind::Logs, cause))
            }
            Progress::Failed(cause) => Err(RunError::Node(cause.clone())),
            _ => Ok(()),
        }
    }
}

/// The guard's end: who is listened to, and how far that is.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    docker: Docker,
    followed: Arc<Mutex<HashMap<ExecutionId, watch::Receiver<Progress>>>>,
}

impl Outputs {
    /// Takes orders in `dir`, until the process ends.
    pub(super) fn serve(dir: &Path, docker: Docker) -> std::io::Result<Self> {
        let place = Place::new(dir)?;
        // What the last guard left.
        let _ = std::fs::remove_file(dir.join(SOCKET));
        let listener = UnixListener::bind(place.socket())?;
        let outputs = Self { docker, followed: Arc::default() };
        let this = outputs.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let this = this.clone();
                tokio::spawn(async move { this.answer(stream).await });
            }
        });
        Ok(outputs)
    }

    /// Forgets those that are not watched any more.
    pub(super) fn retain(&self, is_watched: impl Fn(&ExecutionId) -> bool) {
        self.followed().retain(|execution, _| is_watched(execution));
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, HashMap<ExecutionId, watch::Receiver<Progress>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        (&mut stream).take(ORDER_BYTES_MAX).read_line(&mut line).await?;
        let order: Order = serde_json::from_str(&line)?;
        let execution = order.execution.parse().map_err(std::io::Error::other)?;
        let mut progress = self.follow(execution, order);
        loop {
            let now = progress.borrow_and_update().clone();
            let line = serde_json::to_string(&now)? + "\n";
            stream.write_all(line.as_bytes()).await?;
            if now.is_last() || progress.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    fn follow(&self, execution: ExecutionId, order: Order) -> watch::Receiver<Progress> {
        let mut followed = self.followed();
        let entry = followed.entry(execution).or_insert_with(|| {
            let (tell, told) = watch::channel(Progress::Attaching);
            let docker = self.docker.clone();
            if order.again {
                tell.send_replace(Progress::Failed("what it printed while its node was down is lost".into()));
                return told;
            }
            tokio::spawn(async move {
                let end = follow(&docker, &execution, &order, &tell).await;
                tell.send_replace(end);
            });
            told
        });
        entry.clone()
    }
}

async fn follow(docker: &Docker, execution: &ExecutionId, order: &Order, tell: &watch::Sender<Progress>) -> Progress {
    let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
    let attached = docker.attach_container(&container::name(execution), Some(options)).await;
    let AttachContainerResults { output, input: _input } = match attached {
        Ok(attached) => attached,
        Err(error) => return Progress::Failed(format!("docker: {}", plain(&error))),
    };
    tell.send_replace(Progress::Attached);
    write(output, order).await.unwrap_or_else(Progress::Failed)
}

/// Writes what the program prints as it prints it.
async fn write(
    mut pieces: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    order: &Order,
) -> Result<Progress, String> {
    let unwritable = |error: std::io::Error| format!("cannot write what the program prints: {error}");
    let create = |stream: &str| std::fs::File::create(order.result.join(stream)).map_err(unwritable);
    let mut files = [(create("stdout")?, 0u64), (create("stderr")?, 0u64)];
    while let Some(piece) = pieces.next().await {
        let (index, bytes) = match piece.map_err(|error| format!("docker: {}", plain(&error)))? {
            LogOutput::StdErr { message } => (1, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                (0, message)
            }
        };
        let (file, written) = &mut files[index];
        let room = order.log_bytes_max - *written;
        let kept = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        file.write_all(kept).map_err(unwritable)?;
        *written += kept.len() as u64;
        if kept.len() < bytes.len() {
            return Ok(Progress::Excess);
        }
    }
    Ok(Progress::Printed)
}

/// The guard's folder by a path that is short enough for a socket's, wherever the folder lies.
struct Place {
    #[cfg(target_os = "linux")]
    folder: std::fs::File,
    #[cfg(not(target_os = "linux"))]
    folder: PathBuf,
}

impl Place {
    #[cfg(target_os = "linux")]
    fn new(dir: &Path) -> std::io::Result<Self> {
        Ok(Self { folder: std::fs::File::open(dir)? })
    }

    #[cfg(not(target_os = "linux"))]
    fn new(dir: &Path) -> std::io::Result<Self> {
        Ok(Self { folder: dir.to_owned() })
    }

    #[cfg(target_os = "linux")]
    fn socket(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}/{SOCKET}", self.folder.as_raw_fd()).into()
    }

    #[cfg(not(target_os = "linux"))]
    fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }
}
