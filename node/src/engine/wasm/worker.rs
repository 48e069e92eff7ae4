//! The worker process: one end of a socket pair as its stdin, and nothing else.
//!
//! The main thread takes requests and runs guests. While a guest runs, a watch thread ticks the engine's epoch, so that a
//! guest in an endless loop is interrupted at its deadline; ends the process when the guest is blocked in a call past it;
//! and ends the process when the daemon is gone, whatever the guest does.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use wasmtime::{Config, Engine};

use super::program::Programs;
use super::{Guest, GuestEnd, Import, Reply, Request, artefacts, socket};

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
/// What the guest's stack may take.
const STACK_BYTES: usize = 1 << 20;

/// Runs as a worker until the daemon goes away.
pub fn main() -> ! {
    let stream = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => exit(EXIT_ORPHAN),
    };
    limit_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let Ok(runtime) = runtime else { exit(EXIT_ORPHAN) };
    let _entered = runtime.enter();
    let mut worker = Worker { watch: Watch::start(&stream), plain: None, deterministic: None };
    loop {
        let Ok(Some((request, files))) = socket::receive(&stream) else { exit(EXIT_ORPHAN) };
        let reply = match request {
            Request::Compile { deterministic } => Reply::Compiled(compile(&files, deterministic)),
            Request::Run { artefact, imports, guest } => worker.run(artefact, &imports, &guest, files),
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

pub(super) fn engine(deterministic: bool) -> wasmtime::Result<Engine> {
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

/// What stands behind the magic number of a component: its version, and the layer that tells it from a module.
const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];

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
    let compiled = engine(deterministic).and_then(|engine| match bytes.get(4..8) {
        Some(COMPONENT) => engine.precompile_component(&bytes),
        _ => engine.precompile_module(&bytes),
    });
    let compiled = compiled.map_err(|error| format!("the module is not valid: {}", first_line(&error)))?;
    read(artefact).and_then(|mut file| file.write_all(&compiled)).map_err(|error| error.to_string())
}

pub(super) fn first_line(error: &wasmtime::Error) -> String {
    let root = error.root_cause().to_string();
    root.lines().next().unwrap_or("unknown").chars().take(300).collect()
}

struct Worker {
    watch: Arc<Watch>,
    plain: Option<Programs>,
    deterministic: Option<Programs>,
}

impl Worker {
    fn run(&mut self, artefact: [u8; 32], imports: &[Import], guest: &Guest, files: Vec<OwnedFd>) -> Reply {
        let slot = if guest.deterministic { &mut self.deterministic } else { &mut self.plain };
        let programs = match slot {
            Some(programs) => programs,
            None => match Programs::new(guest.deterministic) {
                Ok(programs) => slot.insert(programs),
                Err(error) => return Reply::Ran(GuestEnd::unrunnable(first_line(&error))),
            },
        };
        let begin = |engine: &Engine, deadline: Instant| self.watch.begin(engine, deadline + UNWIND);
        let end = programs.run(artefact, imports, files, guest, begin);
        self.watch.end();
        end.map_or_else(Reply::Needs, Reply::Ran)
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
