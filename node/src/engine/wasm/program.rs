//! Programs that a worker has loaded: modules of WASI preview 1 and components of preview 2, and one run of one of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use wasmtime::component::{self, Component};
use wasmtime::{Engine, InstancePre, Linker, Module, Precompiled, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings::sync::CommandPre;
use wasmtime_wasi::{I32Exit, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::add_only_http_to_linker_sync;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::context::{self, LogsFull};
use super::http::WayOut;
use super::imports::{self, Lacking};
use super::worker::{engine, first_line};
use super::{Guest, GuestEnd, GuestOutcome, Import};

/// Programs that stay loaded.
const PROGRAMS_MAX: usize = 16;
/// Instances, memories and tables of one run, each.
const INSTANCES_MAX: usize = 500;
/// What an entry of a table takes.
const TABLE_ENTRY_BYTES: usize = 8;
/// Bytes of the headers of one request or answer.
const FIELDS_BYTES_MAX: usize = 16 << 10;
/// The entry point that stands for a component's own: `run` of `wasi:cli/run`.
const START: &str = "_start";
/// The function by which a module that others import is made ready (WASI application ABI, reactors).
const INITIALIZE: &str = "_initialize";

/// What a guest's store holds.
pub(super) struct State {
    wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    way_out: WayOut,
    memory: MemoryLimit,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.way_out, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

/// A program that is loaded.
#[derive(Clone)]
enum Program {
    /// A module, and what it is linked to unless it imports other modules.
    Module(Module, Option<InstancePre<State>>),
    Component(component::InstancePre<State>),
}

/// Modules that others import, by the name under which they do; nothing where there is none of that name.
type Imports = BTreeMap<String, Option<Module>>;

/// One kind of engine and what it has loaded.
pub(super) struct Programs {
    pub(super) engine: Engine,
    modules: Linker<State>,
    components: component::Linker<State>,
    loaded: VecDeque<([u8; 32], Program)>,
}

impl Programs {
    pub(super) fn new(deterministic: bool) -> wasmtime::Result<Self> {
        let engine = engine(deterministic)?;
        let mut modules: Linker<State> = Linker::new(&engine);
        p1::add_to_linker_sync(&mut modules, |state| &mut state.wasi)?;
        modules.allow_shadowing(true);
        // The library's own turns codes above 125 into an error without the code.
        modules.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code).into())
        })?;
        let mut components = component::Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut components)?;
        add_only_http_to_linker_sync(&mut components)?;
        Ok(Self { engine, modules, components, loaded: VecDeque::new() })
    }

    /// Runs a program, or says which modules it imports that were not spoken of yet.
    pub(super) fn run(
        &mut self,
        artefact: [u8; 32],
        imported: &[Import],
        files: Vec<OwnedFd>,
        guest: &Guest,
        begin: impl FnOnce(&Engine, Instant),
    ) -> Result<GuestEnd, Vec<String>> {
        let mut files = files.into_iter();
        let loaded = self.load_all(artefact, imported, &mut files);
        let (program, imports) = match loaded {
            Ok(loaded) => loaded,
            Err(cause) => return Ok(GuestEnd::unrunnable(cause)),
        };
        let modules = imports.values().flatten().chain(match &program {
            Program::Module(module, _) => Some(module),
            Program::Component(_) => None,
        });
        let mut needed: Vec<String> = modules.flat_map(imports::of_others).map(str::to_owned).collect();
        needed.retain(|name| !imports.contains_key(name));
        needed.sort();
        needed.dedup();
        if !needed.is_empty() {
            return Err(needed);
        }
        let deadline = Instant::now() + Duration::from_millis(guest.timeout_ms);
        begin(&self.engine, deadline);
        Ok(self.execute(&program, &imports, guest, deadline))
    }

    fn load_all(
        &mut self,
        artefact: [u8; 32],
        imported: &[Import],
        files: &mut impl Iterator<Item = OwnedFd>,
    ) -> Result<(Program, Imports), String> {
        let program = self.program(artefact, files.next())?;
        let mut imports = Imports::new();
        for (name, artefact) in imported {
            let module = match artefact.map(|artefact| self.program(artefact, files.next())).transpose()? {
                Some(Program::Module(module, _)) => Some(module),
                Some(Program::Component(_)) => return Err(format!("`{name}` is a component; modules import modules")),
                None => None,
            };
            imports.insert(name.clone(), module);
        }
        Ok((program, imports))
    }

    fn program(&mut self, artefact: [u8; 32], file: Option<OwnedFd>) -> Result<Program, String> {
        if let Some((_, program)) = self.loaded.iter().find(|(known, _)| *known == artefact) {
            return Ok(program.clone());
        }
        let file = file.ok_or("a worker was handed no module")?;
        let program = match load(&self.engine, File::from(file))? {
            Loaded::Module(module) => {
                let alone = imports::of_others(&module).next().is_none();
                let linked = alone.then(|| imports::link(&self.modules, &module)).transpose()?;
                Program::Module(module, linked)
            }
            Loaded::Component(component) => {
                let linked = self.components.instantiate_pre(&component);
                let cannot = |error| format!("the component cannot be linked: {}", first_line(&error));
                Program::Component(linked.map_err(cannot)?)
            }
        };
        self.loaded.push_back((artefact, program.clone()));
        if self.loaded.len() > PROGRAMS_MAX {
            self.loaded.pop_front();
        }
        Ok(program)
    }

    fn execute(&self, program: &Program, imports: &Imports, guest: &Guest, deadline: Instant) -> GuestEnd {
        let state = match context::of(guest) {
            Ok(wasi) => State {
                wasi,
                http: web_context(),
                way_out: WayOut::new(guest.way_out.clone()),
                memory: MemoryLimit { max: guest.memory_max, used: 0, peak: 0 },
            },
            Err(cause) => return GuestEnd::unrunnable(cause),
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
        let ended = match program {
            Program::Module(module, linked) => self.call_module(&mut store, module, linked.as_ref(), imports, guest),
            Program::Component(linked) => call_component(&mut store, linked, guest),
        };
        let outcome = ended.map_or_else(|error| classify(&error), GuestOutcome::Exited);
        let cpu = thread_cpu().saturating_sub(before);
        GuestEnd {
            outcome,
            cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX),
            memory_peak: store.data().memory.peak,
        }
    }

    fn call_module(
        &self,
        store: &mut Store<State>,
        module: &Module,
        linked: Option<&InstancePre<State>>,
        imports: &Imports,
        guest: &Guest,
    ) -> wasmtime::Result<i32> {
        let instance = if let Some(linked) = linked {
            linked.instantiate(&mut *store)?
        } else {
            let mut linker = self.modules.clone();
            link_imports(store, &mut linker, module, imports, &mut Vec::new(), &mut BTreeSet::new())?;
            imports::link(&linker, module).map_err(Unlinkable)?.instantiate(&mut *store)?
        };
        let function = instance.get_typed_func::<(), ()>(&mut *store, &guest.entrypoint);
        function.map_err(|_| NoEntry(guest.entrypoint.clone()))?.call(store, ())?;
        Ok(0)
    }
}

fn web_context() -> WasiHttpCtx {
    let mut context = WasiHttpCtx::new();
    context.set_field_size_limit(FIELDS_BYTES_MAX);
    context
}

/// Makes an instance of each module that `module` imports, those that it imports itself first.
fn link_imports(
    store: &mut Store<State>,
    linker: &mut Linker<State>,
    module: &Module,
    imports: &Imports,
    above: &mut Vec<String>,
    made: &mut BTreeSet<String>,
) -> wasmtime::Result<()> {
    for name in imports::of_others(module) {
        let Some(Some(imported)) = imports.get(name).filter(|_| !made.contains(name)) else { continue };
        if above.iter().any(|above| above == name) {
            return Err(Unlinkable(format!("the module `{name}` imports itself, through {}", above.join(", "))).into());
        }
        above.push(name.to_owned());
        link_imports(store, linker, imported, imports, above, made)?;
        above.pop();
        let linked = imports::link(linker, imported).map_err(Unlinkable)?;
        let instance = linked.instantiate(&mut *store)?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE) {
            initialize.call(&mut *store, ())?;
        }
        linker.instance(&mut *store, name, instance)?;
        made.insert(name.to_owned());
    }
    Ok(())
}

fn call_component(
    store: &mut Store<State>,
    linked: &component::InstancePre<State>,
    guest: &Guest,
) -> wasmtime::Result<i32> {
    if guest.entrypoint == START {
        let command = CommandPre::new(linked.clone()).map_err(|_| NoEntry("wasi:cli/run".into()))?;
        let ended = command.instantiate(&mut *store)?.wasi_cli_run().call_run(store)?;
        return Ok(i32::from(ended.is_err()));
    }
    let instance = linked.instantiate(&mut *store)?;
    let function = instance.get_typed_func::<(), ()>(&mut *store, guest.entrypoint.as_str());
    function.map_err(|_| NoEntry(guest.entrypoint.clone()))?.call(store, ())?;
    Ok(0)
}

enum Loaded {
    Module(Module),
    Component(Component),
}

/// Loads an artefact that the daemon has vouched for.
#[expect(unsafe_code, reason = "an artefact is machine code; see below for why it can be trusted")]
fn load(engine: &Engine, file: File) -> Result<Loaded, String> {
    let path = path_of(&file);
    let unfit =
        |error: wasmtime::Error| format!("the compiled module does not fit this machine: {}", first_line(&error));
    let kind = Engine::detect_precompiled_file(&path).map_err(unfit)?;
    // SAFETY: the daemon checks its mark, made with a key that no worker has, over every artefact before it hands it over,
    // and a worker that makes artefacts never runs a guest. The file is sealed against later change.
    let loaded = unsafe {
        match kind {
            Some(Precompiled::Component) => Component::deserialize_file(engine, path).map(Loaded::Component),
            _ => Module::deserialize_open_file(engine, file).map(Loaded::Module),
        }
    };
    loaded.map_err(unfit)
}

/// A path that leads to an open file.
fn path_of(file: &File) -> String {
    format!("/dev/fd/{}", file.as_raw_fd())
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
    if let Some(Unlinkable(cause)) = error.downcast_ref::<Unlinkable>() {
        return GuestOutcome::Unrunnable(cause.clone());
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

/// What it imports does not fit together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unlinkable(String);

/// The guest asked for more memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the memory limit is reached")]
struct MemoryFull;

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

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.memory_growing(
            current.saturating_mul(TABLE_ENTRY_BYTES),
            desired.saturating_mul(TABLE_ENTRY_BYTES),
            maximum.map(|most| most.saturating_mul(TABLE_ENTRY_BYTES)),
        )
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}
