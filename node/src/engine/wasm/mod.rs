//! WebAssembly (modules of WASI preview 1, components of preview 2) in warm worker processes.
//!
//! A worker is this program under another name: no keys, no database, no environment, no descriptors but one end of a
//! socket pair, and it ends when that does. It runs one guest at a time and serves one owner only; after a trap, or when
//! another owner comes, it is replaced. Modules are compiled in a worker that never runs a guest; the artefact is code that
//! will be trusted, so it is kept with this node's mark (an HMAC under a key that workers never see) and handed over in
//! sealed memory.

mod artefacts;
mod context;
mod http;
mod imports;
mod pool;
mod program;
mod socket;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::limits::IMPORTS_MAX;
use bacnode_protocol::wire::market::FailureKind;
use serde::{Deserialize, Serialize};

pub use self::artefacts::Artefact;
use self::artefacts::Artefacts;
use self::pool::Pool;
use super::RunError;

/// How long a module may take to compile.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);
/// How much longer than its time limit a worker is waited for before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// A module to compile: a file, and the CID of its bytes if that is known.
#[derive(Debug, Clone)]
pub struct ModuleSource {
    /// Where its bytes are.
    pub path: PathBuf,
    /// What they are.
    pub cid: Option<Cid>,
}

/// A folder that the guest sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestMount {
    /// On this machine.
    pub host: String,
    /// In the guest.
    pub guest: String,
    /// Whether the guest may write.
    pub writable: bool,
}

impl From<super::inputs::Mount> for GuestMount {
    fn from(mount: super::inputs::Mount) -> Self {
        Self { host: mount.host.to_string_lossy().into_owned(), guest: mount.guest, writable: mount.writable }
    }
}

/// What a worker is to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Guest {
    /// Its arguments, the first being its name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its folders.
    pub mounts: Vec<GuestMount>,
    /// The file for its stdout.
    pub stdout: String,
    /// The file for its stderr.
    pub stderr: String,
    /// The function to call.
    pub entrypoint: String,
    /// Bytes of stdout, and of stderr.
    pub log_bytes_max: u64,
    /// Bytes of one file.
    pub file_bytes_max: u64,
    /// Bytes of memory.
    pub memory_max: u64,
    /// Milliseconds.
    pub timeout_ms: u64,
    /// The socket of the proxy through which it reaches the web, if it may.
    pub way_out: Option<String>,
    /// Seeded chance and a fixed clock.
    pub deterministic: bool,
    /// For the chance.
    pub seed: u64,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestOutcome {
    /// By itself.
    Exited(i32),
    /// By a trap.
    Trapped(String),
    /// At the memory limit.
    Memory,
    /// At the time limit.
    Time,
    /// At the log limit.
    Logs,
    /// At the file size limit.
    Output,
    /// Before it began: it is no command that can run here.
    Unrunnable(String),
}

/// What a worker reports of a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestEnd {
    /// How it ended.
    pub outcome: GuestOutcome,
    /// Milliseconds of CPU.
    pub cpu_ms: u64,
    /// Most bytes of memory at one time.
    pub memory_peak: u64,
}

impl GuestEnd {
    fn unrunnable(cause: String) -> Self {
        Self { outcome: GuestOutcome::Unrunnable(cause), cpu_ms: 0, memory_peak: 0 }
    }
}

/// A module that others import: the name under which they do, and its artefact if there is such a module.
type Import = (String, Option<[u8; 32]>);

/// What a worker is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Request {
    /// Compile the module in the first descriptor into the second.
    Compile {
        /// For deterministic runs.
        deterministic: bool,
    },
    /// Run the artefact in the first descriptor.
    Run {
        /// Names the artefact, so that a worker that has it loaded need not load it again.
        artefact: [u8; 32],
        /// What is known of the modules that it imports. The artefacts are in the other descriptors, in this order.
        imports: Vec<Import>,
        /// What to run.
        guest: Guest,
    },
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Reply {
    /// The artefact is in the second descriptor, or the module cannot be compiled.
    Compiled(Result<(), String>),
    /// The guest ended.
    Ran(GuestEnd),
    /// It was not run: it imports modules of these names, of which nothing was said.
    Needs(Vec<String>),
}

/// Names of modules that a program may import from, most of which nobody has.
const NAMES_MAX: usize = 256;

/// A module that does not compile in time.
fn too_slow() -> String {
    format!("the module takes longer than {} s to compile", COMPILE_TIMEOUT.as_secs())
}

/// The modules that a program may import.
pub(super) trait Imports: Send + Sync {
    /// The one of that name, if there is one.
    ///
    /// # Errors
    /// If it cannot be seen whether there is.
    fn find(&self, name: &str) -> impl Future<Output = Result<Option<ModuleSource>, RunError>> + Send;
}

/// Bytes of a request or a reply, at most.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The engine of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pool: Arc<Pool>,
    artefacts: Arc<Artefacts>,
}

impl Engine {
    /// An engine whose workers are started with `program`, whose artefacts are kept below `cache`, marked with `key`.
    #[must_use]
    pub fn new(program: PathBuf, cache: PathBuf, key: [u8; 32], warm: usize) -> Self {
        Self { pool: Arc::new(Pool::new(program, warm)), artefacts: Arc::new(Artefacts::new(cache, key)) }
    }

    /// Starts the warm workers.
    pub async fn warm_up(&self) {
        self.pool.refill().await;
    }

    /// Ends all idle workers.
    pub async fn shut_down(&self) {
        self.pool.shut_down().await;
    }

    /// The compiled module, from memory, from disk, or compiled now.
    ///
    /// # Errors
    /// If it is no module that can run here, or this node fails.
    pub async fn compile(&self, module: &ModuleSource, deterministic: bool) -> Result<Artefact, RunError> {
        let key = self.artefacts.key(module, deterministic).await?;
        // Only one of many that want the same module compiles it.
        let gate = self.artefacts.gate(&key);
        let _turn = gate.lock().await;
        if let Some(artefact) = self.artefacts.get(&key).await {
            return Ok(artefact);
        }
        if let Some(cause) = self.artefacts.refusal(&key) {
            return Err(RunError::task(FailureKind::Program, cause));
        }
        let compiled = self.pool.compile(&module.path, deterministic).await;
        if let Err(RunError::Task { cause, .. }) = &compiled {
            self.artefacts.refuse(key, cause.clone());
        }
        self.artefacts.put(&key, compiled?).await
    }

    /// Runs `guest` for `owner`. When the future is dropped, the worker is killed.
    ///
    /// # Errors
    /// If no worker can be had, it breaks down, or a module that it imports does not compile.
    pub(super) async fn run(
        &self,
        owner: &NodeId,
        artefact: Artefact,
        guest: Guest,
        modules: &impl Imports,
    ) -> Result<GuestEnd, RunError> {
        let mut worker = self.pool.take(owner).await?;
        let limit = Duration::from_millis(guest.timeout_ms) + KILL_AFTER;
        let deterministic = guest.deterministic;
        let mut request = Request::Run { artefact: artefact.digest, imports: Vec::new(), guest };
        let mut files = vec![artefact.file()];
        let compiled_by = tokio::time::Instant::now() + COMPILE_TIMEOUT;
        loop {
            let reply = tokio::time::timeout(limit, worker.call(&request, &files)).await;
            let timed_out = GuestEnd { outcome: GuestOutcome::Time, cpu_ms: 0, memory_peak: 0 };
            return match reply {
                // Blocked in a call to the host; dropping the worker kills it.
                Err(_) => Ok(timed_out),
                Ok(Ok(Reply::Needs(names))) => {
                    let Request::Run { imports, .. } = &mut request else { continue };
                    for name in names {
                        // The artefact of the program itself is among the files.
                        let full = files.len() > IMPORTS_MAX && modules.find(&name).await?.is_some();
                        if full || imports.len() >= NAMES_MAX {
                            let cause = format!("the module imports more than {IMPORTS_MAX} others");
                            return Err(RunError::task(FailureKind::Program, cause));
                        }
                        let left = compiled_by.saturating_duration_since(tokio::time::Instant::now());
                        let import = tokio::time::timeout(left, self.import(&name, deterministic, modules)).await;
                        let import = import.map_err(|_| RunError::task(FailureKind::Program, too_slow()))??;
                        imports.push((name, import.as_ref().map(|artefact| artefact.digest)));
                        files.extend(import.as_ref().map(Artefact::file));
                    }
                    continue;
                }
                Ok(Ok(Reply::Ran(end))) => {
                    if matches!(end.outcome, GuestOutcome::Exited(_)) {
                        self.pool.give_back(worker, owner).await;
                    }
                    Ok(end)
                }
                Ok(Ok(Reply::Compiled(_))) => Err(RunError::Node("a worker answered something else".into())),
                Ok(Err(error)) => died(&mut worker, &error).await,
            };
        }
    }

    /// The artefact of the module that a program imports under a name.
    async fn import(
        &self,
        name: &str,
        deterministic: bool,
        modules: &impl Imports,
    ) -> Result<Option<Artefact>, RunError> {
        let Some(module) = modules.find(name).await? else { return Ok(None) };
        match self.compile(&module, deterministic).await {
            Ok(artefact) => Ok(Some(artefact)),
            Err(RunError::Task { kind, cause }) => Err(RunError::task(kind, format!("import `{name}`: {cause}"))),
            Err(error) => Err(error),
        }
    }
}

/// What the end of a worker says of its guest.
async fn died(worker: &mut pool::Worker, error: &std::io::Error) -> Result<GuestEnd, RunError> {
    let outcome = match worker.death().await {
        pool::Death::FileSize => GuestOutcome::Output,
        pool::Death::Deadline => GuestOutcome::Time,
        pool::Death::Killed => return Err(RunError::Node("its worker was killed by the system".into())),
        pool::Death::Other(how) => GuestOutcome::Trapped(format!("its worker ended ({how}; {error})")),
    };
    Ok(GuestEnd { outcome, cpu_ms: 0, memory_peak: 0 })
}
