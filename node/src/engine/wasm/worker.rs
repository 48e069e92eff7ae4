//! The worker process: one end of a socket pair as its stdin, and nothing else.
//!
//! The main thread takes requests and runs guests. While a guest runs, a watch thread ticks the engine's epoch, so that a
//! guest in an endless loop is interrupted at its deadline; ends the process when the guest is blocked in a call past it;
//! and ends the process when the daemon is gone, whatever the guest does.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use wasmtime::{Config, Engine, InstancePre, Linker, Module, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, I32Exit, WasiCtxBuilder, WasiView as _, async_trait};

use super::imports::{self, Lacking};
use super::{Guest, GuestEnd, GuestOutcome, Reply, Request, artefacts, socket};

/// The hidden command under which the program is a worker.
pub const COMMAND: &str = "wasm-worker";
/// The exit code of a worker whose guest was blocked past its deadline.
pub const EXIT_DEADLINE: i32 = 71;
/// The exit code of a worker whose daemon is gone or talks nonsense.
const EXIT_ORPHAN: i32 = 70;
/// Between two ticks of the epoch: how late a guest may be interrupted.
const TICK: Duration = Duration::from_millis(10);
/// How long after its deadline a guest that was interrupted may take to unwind.
const UNWIND: Duration = Duration::from_secs(1);
/// Modules that stay loaded.
const MODULES_MAX: usize = 16;
/// What the guest's stack may take.
const STACK_BYTES: usize = 1 << 20;

/// Runs as a worker until the daemon goes away.
pub fn main() -> ! {
    let stream = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => exit(EXIT_ORPHAN),
    };
    limit_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let Ok(runtime) = runtime else { exit(EXIT_ORPHAN) };
    let _entered = runtime.enter();
    let mut worker = Worker { watch: Watch::start(&stream), plain: None, deterministic: None };
    loop {
        let Ok(Some((request, files))) = socket::receive(&stream) else { exit(EXIT_ORPHAN) };
        let reply = match request {
            Request::Compile { deterministic } => Reply::Compiled(compile(&files, deterministic)),
            Request::Run { artefact, guest } => Reply::Ran(worker.run(artefact, guest, files)),
        };
        if socket::send(&stream, &reply, &[]).is_err() {
            exit(EXIT_ORPHAN);
        }
    }
}

/// No core files, few descriptors.
fn limit_process() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for (resource, limit) in [(Resource::Core, 0), (Resource::Nofile, 1024)] {
        let _ = setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) });
    }
}

fn engine(deterministic: bool) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(deterministic)
        .relaxed_simd_deterministic(deterministic)
        .max_wasm_stack(STACK_BYTES)
        .memory_guard_size(32 << 20)
        .debug_symbols(false)
        // Of garbage collection only what exceptions need.
        .wasm_gc(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config.module_version(wasmtime::ModuleVersionStrategy::Custom("bacnode-48.0.8".into()))?;
    Engine::new(&config)
}

/// Bytes that compiling may take: a module can be made to need much more than it is long.
const COMPILE_BYTES_MAX: u64 = 4 << 30;

fn compile(files: &[OwnedFd], deterministic: bool) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // This worker ends after the module, so the limit holds for nothing else.
    let limit = Some(COMPILE_BYTES_MAX);
    let _ = setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit });
    let [module, artefact] = files else { return Err("a worker was handed the wrong files".into()) };
    let read = |file: &OwnedFd| file.try_clone().map(File::from);
    let bytes = read(module).and_then(|file| artefacts::read_module(&file)).map_err(|error| error.to_string())?;
    if !bytes.starts_with(b"\0asm") {
        return Err("the module is not WebAssembly (it does not begin with `\\0asm`)".into());
    }
    if bytes.get(4..8) != Some(&[1, 0, 0, 0]) {
        return Err("the module is a component or of another version; a WASI preview 1 module is needed".into());
    }
    let compiled = engine(deterministic).and_then(|engine| engine.precompile_module(&bytes));
    let compiled = compiled.map_err(|error| format!("the module is not valid: {}", first_line(&error)))?;
    read(artefact).and_then(|mut file| file.write_all(&compiled)).map_err(|error| error.to_string())
}

pub(super) fn first_line(error: &wasmtime::Error) -> String {
    let root = error.root_cause().to_string();
    root.lines().next().unwrap_or("unknown").chars().take(300).collect()
}

/// What a guest's store holds.
struct State {
    wasi: WasiP1Ctx,
    memory: MemoryLimit,
}

/// One kind of engine and what it has loaded.
struct Loaded {
    engine: Engine,
    linker: Linker<State>,
    modules: VecDeque<([u8; 32], InstancePre<State>)>,
}

struct Worker {
    watch: Arc<Watch>,
    plain: Option<Loaded>,
    deterministic: Option<Loaded>,
}

impl Worker {
    fn run(&mut self, artefact: [u8; 32], guest: Guest, files: Vec<OwnedFd>) -> GuestEnd {
        let unrunnable = |cause| GuestEnd { outcome: GuestOutcome::Unrunnable(cause), cpu_ms: 0, memory_peak: 0 };
        let slot = if guest.deterministic { &mut self.deterministic } else { &mut self.plain };
        let loaded = match slot {
            Some(loaded) => loaded,
            None => match Loaded::new(guest.deterministic) {
                Ok(loaded) => slot.insert(loaded),
                Err(error) => return unrunnable(first_line(&error)),
            },
        };
        let instance = match loaded.module(artefact, files) {
            Ok(instance) => instance,
            Err(cause) => return unrunnable(cause),
        };
        let deadline = Instant::now() + Duration::from_millis(guest.timeout_ms);
        self.watch.begin(&loaded.engine, deadline + UNWIND);
        let end = loaded.run(&instance, &guest, deadline);
        self.watch.end();
        end
    }
}

impl Loaded {
    fn new(deterministic: bool) -> wasmtime::Result<Self> {
        let engine = engine(deterministic)?;
        let mut linker: Linker<State> = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |state| &mut state.wasi)?;
        linker.allow_shadowing(true);
        // The library's own turns codes above 125 into an error without the code.
        linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })?;
        Ok(Self { engine, linker, modules: VecDeque::new() })
    }

    fn module(&mut self, artefact: [u8; 32], files: Vec<OwnedFd>) -> Result<InstancePre<State>, String> {
        if let Some((_, instance)) = self.modules.iter().find(|(known, _)| *known == artefact) {
            return Ok(instance.clone());
        }
        let file = files.into_iter().next().ok_or("a worker was handed no module")?;
        let module = load(&self.engine, File::from(file))?;
        let instance = imports::link(&self.linker, &module)?;
        self.modules.push_back((artefact, instance.clone()));
        if self.modules.len() > MODULES_MAX {
            self.modules.pop_front();
        }
        Ok(instance)
    }

    fn run(&self, instance: &InstancePre<State>, guest: &Guest, deadline: Instant) -> GuestEnd {
        let state = match context(guest) {
            Ok(wasi) => State { wasi, memory: MemoryLimit { max: guest.memory_max, used: 0, peak: 0 } },
            Err(cause) => {
                return GuestEnd { outcome: GuestOutcome::Unrunnable(cause), cpu_ms: 0, memory_peak: 0 };
            }
        };
        limit_files(guest.file_bytes_max);
        let before = thread_cpu();
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            let over = Instant::now() >= deadline;
            Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        let ended = instance.instantiate(&mut store).and_then(|instance| {
            let function = instance.get_typed_func::<(), ()>(&mut store, &guest.entrypoint);
            let function = function.map_err(|_| wasmtime::Error::new(NoEntry(guest.entrypoint.clone())))?;
            function.call(&mut store, ())
        });
        let outcome = ended.map_or_else(|error| classify(&error), |()| GuestOutcome::Exited(0));
        let cpu = thread_cpu().saturating_sub(before);
        GuestEnd {
            outcome,
            cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX),
            memory_peak: store.data().memory.peak,
        }
    }
}

/// Loads an artefact that the daemon has vouched for.
#[expect(unsafe_code, reason = "an artefact is machine code; see below for why it can be trusted")]
fn load(engine: &Engine, file: File) -> Result<Module, String> {
    // SAFETY: the daemon checks its mark, made with a key that no worker has, over every artefact before it hands it over,
    // and a worker that makes artefacts never runs a guest. The file is sealed against later change.
    unsafe { Module::deserialize_open_file(engine, file) }
        .map_err(|error| format!("the compiled module does not fit this machine: {}", first_line(&error)))
}

fn context(guest: &Guest) -> Result<WasiP1Ctx, String> {
    let mut builder = WasiCtxBuilder::new();
    builder.allow_blocking_current_thread(true);
    builder.args(&guest.args).envs(&guest.env);
    builder.stdout(Log::create(&guest.stdout, guest.log_bytes_max)?);
    builder.stderr(Log::create(&guest.stderr, guest.log_bytes_max)?);
    for mount in &guest.mounts {
        let permissions = if mount.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let opened = builder.preopened_dir(&mount.host, &mount.guest, permissions);
        opened.map_err(|error| format!("cannot open `{}` for the program: {error}", mount.guest))?;
    }
    if guest.deterministic {
        builder
            .wall_clock(FixedClock)
            .monotonic_clock(StepClock(AtomicU64::new(0)))
            .secure_random(SplitMix(guest.seed))
            .insecure_random(SplitMix(!guest.seed))
            .insecure_random_seed(u128::from(guest.seed));
    }
    let mut wasi = builder.build_p1();
    wasi.ctx().table.set_max_capacity(4096);
    Ok(wasi)
}

fn limit_files(bytes: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Fsize).maximum;
    let _ = setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum });
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn classify(error: &wasmtime::Error) -> GuestOutcome {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return GuestOutcome::Exited(exit.0);
    }
    if error.is::<LogsFull>() {
        return GuestOutcome::Logs;
    }
    if error.is::<MemoryFull>() {
        return GuestOutcome::Memory;
    }
    if let Some(lacking) = error.downcast_ref::<Lacking>() {
        return GuestOutcome::Unrunnable(lacking.to_string());
    }
    if let Some(NoEntry(name)) = error.downcast_ref::<NoEntry>() {
        return GuestOutcome::Unrunnable(format!("the module exports no function `{name}` without parameters"));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => GuestOutcome::Time,
        Some(trap) => GuestOutcome::Trapped(trap.to_string()),
        None => GuestOutcome::Trapped(first_line(error)),
    }
}

/// The module has no such function.
#[derive(Debug, thiserror::Error)]
#[error("no function `{0}`")]
struct NoEntry(String);

/// The guest asked for more memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the memory limit is reached")]
struct MemoryFull;

/// The guest printed more than it may.
#[derive(Debug, thiserror::Error)]
#[error("the log limit is reached")]
struct LogsFull;

/// Refuses memory beyond a limit and remembers the most that was used.
struct MemoryLimit {
    max: u64,
    used: u64,
    peak: u64,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        // The program's own memory, and the heap of its exceptions.
        let used = self.used.saturating_add((desired - current) as u64);
        if used > self.max {
            return Err(wasmtime::Error::new(MemoryFull));
        }
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 1_000_000)
    }
}

/// A file for stdout or stderr, with a limit.
#[derive(Clone)]
struct Log(Arc<LogInner>);

struct LogInner {
    file: File,
    left: AtomicU64,
}

impl Log {
    fn create(path: &str, max: u64) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("cannot write the program's output: {error}"))?;
        Ok(Self(Arc::new(LogInner { file, left: AtomicU64::new(max) })))
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Preview 1 uses the other one.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let left = self.0.left.load(Ordering::Relaxed);
        let fits = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        (&self.0.file).write_all(&bytes[..fits]).map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        self.0.left.store(left - fits as u64, Ordering::Relaxed);
        if fits < bytes.len() { Err(StreamError::Trap(wasmtime::Error::new(LogsFull))) } else { Ok(()) }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

/// Always the same moment: 2000-01-01.
struct FixedClock;

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(946_684_800)
    }
}

/// A clock that only its readers move, so that a guest that waits for it gets on.
struct StepClock(AtomicU64);

impl HostMonotonicClock for StepClock {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): chance that is the same in every run of a job's slot.
struct SplitMix(u64);

impl rand::TryRng for SplitMix {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Ok(z ^ (z >> 31))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

/// The watch thread's orders.
struct Watch {
    run: Mutex<Option<(wasmtime::EngineWeak, Instant)>>,
    changed: Condvar,
}

impl Watch {
    fn start(stream: &UnixStream) -> Arc<Self> {
        let watch = Arc::new(Self { run: Mutex::new(None), changed: Condvar::new() });
        let (theirs, stream) = (Arc::clone(&watch), stream.try_clone());
        let Ok(stream) = stream else { exit(EXIT_ORPHAN) };
        let started =
            std::thread::Builder::new().name("watch".into()).stack_size(64 << 10).spawn(move || theirs.watch(&stream));
        if started.is_err() {
            exit(EXIT_ORPHAN);
        }
        watch
    }

    fn begin(&self, engine: &Engine, until: Instant) {
        *self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((engine.weak(), until));
        self.changed.notify_one();
    }

    fn end(&self) {
        *self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    fn watch(&self, stream: &UnixStream) -> ! {
        loop {
            let mut run = self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            while run.is_none() {
                run = self.changed.wait(run).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            let Some((engine, until)) = run.clone() else { continue };
            drop(run);
            if Instant::now() >= until {
                exit(EXIT_DEADLINE);
            }
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
            let hung_up = PollFlags::HUP | PollFlags::ERR;
            let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())];
            let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
            if poll(&mut fds, Some(&tick)).is_ok_and(|ready| ready > 0) && fds[0].revents().intersects(hung_up) {
                exit(EXIT_ORPHAN);
            }
        }
    }
}
