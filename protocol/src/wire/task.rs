//! A task as it travels: what a compute node needs to know, and nothing that only its owner needs.

use super::bounded::{ListMax, TextMax};
use super::codec::{Decode, Encode};
use super::constraint::Constraint;
use super::s3::{Objects, Publisher};
use crate::content::Cid;
use crate::limits::{
    ARGS_MAX, CONSTRAINTS_MAX, DOMAINS_MAX, IMPORTS_MAX, INPUTS_MAX, OUTPUTS_MAX, PORT_MIN, PORTS_MAX, URL_BYTES_MAX,
};
use crate::time::Span;

/// Amounts of what jobs use and nodes have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Resources {
    /// Thousandths of a CPU core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Whole GPUs.
    pub gpu: u32,
}

impl Resources {
    /// Whether all of this fits into `room`.
    #[must_use]
    pub fn fits(&self, room: &Self) -> bool {
        self.cpu_milli <= room.cpu_milli && self.memory <= room.memory && self.disk <= room.disk && self.gpu <= room.gpu
    }

    /// This, or `least` where that is more.
    #[must_use]
    pub fn at_least(&self, least: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.max(least.cpu_milli),
            memory: self.memory.max(least.memory),
            disk: self.disk.max(least.disk),
            gpu: self.gpu.max(least.gpu),
        }
    }

    /// This and `other`.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
            gpu: self.gpu.saturating_add(other.gpu),
        }
    }

    /// What is left of this without `other`; zero where `other` has more.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory: self.memory.saturating_sub(other.memory),
            disk: self.disk.saturating_sub(other.disk),
            gpu: self.gpu.saturating_sub(other.gpu),
        }
    }
}

/// What runs tasks. Numbers are bits in an advert; append only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Engine {
    /// WebAssembly with WASI preview 1.
    Wasm,
    /// Containers.
    Docker,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Wasm, Self::Docker];

    /// The name in a job spec.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Docker => "docker",
        }
    }
}

/// A set of engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Engines(pub u8);

impl Engines {
    /// These engines.
    #[must_use]
    pub fn of(engines: &[Engine]) -> Self {
        Self(engines.iter().fold(0, |bits, &engine| bits | 1 << engine as u8))
    }

    /// Whether `engine` is among them.
    #[must_use]
    pub const fn has(self, engine: Engine) -> bool {
        self.0 >> engine as u8 & 1 == 1
    }

    /// The known ones among them.
    pub fn iter(self) -> impl Iterator<Item = Engine> {
        Engine::ALL.into_iter().filter(move |&engine| self.has(engine))
    }
}

/// Where an input comes from.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Source {
    /// Content, fetched from whoever has it.
    Content(Cid),
    /// A folder or file of the compute node, which its operator must have allowed.
    Local {
        /// Absolute path there.
        path: TextMax<1024>,
        /// Whether the task may write to it.
        writable: bool,
    },
    /// A file of the web, fetched by the compute node.
    Url {
        /// `http` or `https`.
        url: TextMax<URL_BYTES_MAX>,
        /// What its bytes must hash to.
        sha256: Option<[u8; 32]>,
    },
    /// Objects of a store, fetched by the compute node.
    S3(Objects),
}

/// Something the task reads.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Input {
    /// Where it comes from.
    pub source: Source,
    /// Absolute path at which the task sees it.
    pub target: TextMax<1024>,
}

/// A folder that becomes part of the result.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct OutputPath {
    /// Its name in the result.
    pub name: TextMax<255>,
    /// Absolute path at which the task writes to it.
    pub path: TextMax<1024>,
}

/// A WASI command: a module of preview 1 or a component of preview 2.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WasmTask {
    /// Path of the module among the inputs.
    pub module: TextMax<1024>,
    /// Exported function to call, usually `_start`.
    pub entrypoint: TextMax<255>,
    /// Arguments after the program's name.
    pub args: ListMax<TextMax<8192>, ARGS_MAX>,
    /// Paths, among the inputs, of modules that it imports under other names than their paths.
    pub imports: ListMax<TextMax<1024>, IMPORTS_MAX>,
}

/// A container.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct DockerTask {
    /// Its image, by name, name and tag, or name and digest.
    pub image: TextMax<512>,
    /// What runs in it; the image's own entry point where this is empty.
    pub entrypoint: ListMax<TextMax<8192>, ARGS_MAX>,
    /// Its arguments; the image's own where this is empty.
    pub args: ListMax<TextMax<8192>, ARGS_MAX>,
    /// Where it runs; where the image says if this is empty.
    pub workdir: TextMax<1024>,
    /// As whom; the node chooses somebody without rights if this is empty.
    pub user: TextMax<64>,
}

/// What a result folder has beside the task's own folders.
pub const RESERVED_NAMES: [&str; 4] = ["stdout", "stderr", "exitCode", "published.json"];

/// What an engine is to do. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum EngineTask {
    /// Run a WASI command.
    Wasm(WasmTask),
    /// Run a container.
    Docker(DockerTask),
}

/// Whom a task may speak to. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Access {
    /// Nobody.
    None,
    /// Web servers of these domains, through a proxy; a domain that begins with a dot stands for all below it.
    Http(ListMax<TextMax<255>, DOMAINS_MAX>),
    /// Whatever the machine's bridge reaches.
    Bridge,
    /// Whatever the machine reaches.
    Host,
}

impl Access {
    /// How far it reaches.
    #[must_use]
    pub const fn reach(&self) -> Reach {
        match self {
            Self::None => Reach::None,
            Self::Http(_) => Reach::Http,
            Self::Bridge => Reach::Bridge,
            Self::Host => Reach::Host,
        }
    }
}

/// How far a task's network reaches, from least to most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Reach {
    /// Nowhere.
    #[default]
    None,
    /// To named web servers.
    Http,
    /// To the bridge's network.
    Bridge,
    /// To all that the machine reaches.
    Host,
}

impl Reach {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Http, Self::Bridge, Self::Host];

    /// The name in specs and settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Http => "http",
            Self::Bridge => "bridge",
            Self::Host => "host",
        }
    }
}

impl EngineTask {
    /// The engine it needs.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self {
            Self::Wasm(_) => Engine::Wasm,
            Self::Docker(_) => Engine::Docker,
        }
    }

    /// Whether its paths and names are plain.
    fn is_plain(&self) -> bool {
        match self {
            Self::Wasm(wasm) => is_plain_path(&wasm.module) && wasm.imports.iter().all(|path| is_plain_path(path)),
            Self::Docker(docker) => {
                let dir = docker.workdir.is_empty() || is_plain_path(&docker.workdir);
                let whole = |texts: &[TextMax<8192>]| texts.iter().all(|text| !text.contains('\0'));
                dir && whole(&docker.entrypoint)
                    && whole(&docker.args)
                    && is_image_name(&docker.image)
                    && docker.user.bytes().all(|b| b.is_ascii_graphic())
            }
        }
    }
}

impl Port {
    /// Whether its name can be part of a variable's, and its port may be had by anybody.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let word = !self.name.is_empty() && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        word && (self.host == 0 || self.host >= PORT_MIN)
    }
}

fn is_plain_source(source: &Source) -> bool {
    !matches!(source, Source::S3(objects) if !objects.place.is_plain())
}

/// Absolute, and without steps back.
fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != ".." && part != ".")
}

/// What a container engine takes for an image: `name`, `registry:5000/name:tag`, `name@sha256:…`.
#[must_use]
pub fn is_image_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    // A step back in it would lead elsewhere in the daemon's API.
    let parts =
        name.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && !part.contains(".."));
    parts && name.len() <= 512 && name.bytes().all(plain)
}

/// One environment variable. An ask carries names with empty values.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct EnvVar {
    /// Upper-case name.
    pub name: TextMax<255>,
    /// Value; never logged, never in an ask. `env:NAME` stands for a variable of the compute node.
    pub value: TextMax<8192>,
}

impl EnvVar {
    /// The variable of the compute node that it stands for.
    #[must_use]
    pub fn of_node(&self) -> Option<&str> {
        self.value.strip_prefix("env:")
    }
}

/// A port at which a task answers.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Port {
    /// What the task calls it.
    pub name: TextMax<64>,
    /// The machine's port that leads to it; 0 for any that is free.
    pub host: u16,
    /// The task's port; 0 for the same as the machine's.
    pub target: u16,
    /// Whether only the machine itself may speak to it.
    pub local: bool,
}

/// A port of a machine that leads to a task.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct OpenPort {
    /// What the task calls it.
    pub name: TextMax<64>,
    /// The machine's port.
    pub host: u16,
    /// The task's.
    pub target: u16,
}

/// What kind of work a job is. Append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum JobKind {
    /// So many slots, each to its end.
    #[default]
    Batch,
    /// So many slots, each kept running.
    Service,
    /// Once, to its end, on every node that matches.
    Ops,
    /// Kept running on every node that matches, now and later.
    Daemon,
}

impl JobKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Batch, Self::Service, Self::Ops, Self::Daemon];

    /// The name in a job spec.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Service => "service",
            Self::Ops => "ops",
            Self::Daemon => "daemon",
        }
    }

    /// Whether its runs are to go on until they are told to stop.
    #[must_use]
    pub const fn is_endless(self) -> bool {
        matches!(self, Self::Service | Self::Daemon)
    }

    /// Whether each node that matches runs it.
    #[must_use]
    pub const fn is_everywhere(self) -> bool {
        matches!(self, Self::Ops | Self::Daemon)
    }
}

/// Everything a compute node needs to run one slot of a job.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Task {
    /// What to run.
    pub engine: EngineTask,
    /// What it reads.
    pub inputs: ListMax<Input, INPUTS_MAX>,
    /// What it leaves behind beside stdout and stderr.
    pub outputs: ListMax<OutputPath, OUTPUTS_MAX>,
    /// Its environment.
    pub env: ListMax<EnvVar, ARGS_MAX>,
    /// What it may use.
    pub resources: Resources,
    /// Milliseconds it may run; 0 for ever, which only an endless one may.
    pub timeout_ms: u64,
    /// What kind of job it is of.
    pub kind: JobKind,
    /// Which version of that job; 1 unless it is endless.
    pub version: u32,
    /// Its owner's awards with more of it go first.
    pub priority: i32,
    /// What the node's labels must say.
    pub constraints: ListMax<Constraint, CONSTRAINTS_MAX>,
    /// How many slots the job has; the task learns its own index and this count.
    pub slots: u32,
    /// Seeded chance, a fixed clock and canonical NaNs, so that equal inputs give equal results.
    pub deterministic: bool,
    /// At most one live lease a slot at a time; endless ones are always so.
    pub exclusive: bool,
    /// Whom it may speak to.
    pub network: Access,
    /// Where it answers.
    pub ports: ListMax<Port, PORTS_MAX>,
    /// Where its result goes.
    pub publisher: Publisher,
}

impl Task {
    /// The task as peers see it before an award: names of variables, no values.
    #[must_use]
    pub fn without_env_values(&self) -> Self {
        // The name of a node's own variable is no secret, and the node must know it to say no.
        let blank = |variable: &EnvVar| match variable.of_node() {
            Some(_) => variable.clone(),
            None => EnvVar { name: variable.name.clone(), value: TextMax::default() },
        };
        Self { env: ListMax::truncated(self.env.iter().map(blank)), ..self.clone() }
    }

    /// How long it may run, as far as that has a limit.
    #[must_use]
    pub fn time_limit(&self) -> Span {
        const CENTURY: Span = Span::secs(100 * 365 * 86_400);
        if self.kind.is_endless() { CENTURY } else { Span::millis(self.timeout_ms).min(CENTURY) }
    }

    /// Whether every path and name is plain, and what is said of its time fits its kind. A peer may send what no user's
    /// spec could say: a name that leaves the result folder would leave the sandbox.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let named = |output: &OutputPath| {
            let reserved = RESERVED_NAMES.contains(&&*output.name);
            crate::content::unixfs::is_safe_name(&output.name) && !reserved && is_plain_path(&output.path)
        };
        let env = |variable: &EnvVar| {
            let name = &variable.name;
            !name.is_empty() && !name.contains(['=', '\0']) && !variable.value.contains('\0')
        };
        (self.timeout_ms == 0) == self.kind.is_endless()
            && (self.exclusive || !self.kind.is_endless())
            && self.outputs.iter().all(named)
            && self.env.iter().all(env)
            && self.are_targets_apart()
            && self.inputs.iter().all(|input| is_plain_path(&input.target) && is_plain_source(&input.source))
            && self.ports.iter().all(Port::is_plain)
            && (self.ports.is_empty() || matches!(self.network, Access::Bridge | Access::Host))
            && !matches!(&self.publisher, Publisher::S3(place, _) if !place.is_plain())
            && self.engine.is_plain()
    }

    /// Whether no place of a container's lies within another, or where the system's own are. What is made for one mount
    /// within another would be made by the daemon, in folders that are not its own.
    fn are_targets_apart(&self) -> bool {
        if !matches!(self.engine, EngineTask::Docker(_)) {
            return true;
        }
        let places = self.inputs.iter().map(|input| &*input.target).chain(self.outputs.iter().map(|o| &*o.path));
        let mut places: Vec<&str> = places.map(|place| place.trim_end_matches('/')).collect();
        let own = ["", "/proc", "/sys", "/dev", "/tmp", "/etc"];
        let taken = places.iter().any(|place| {
            own.contains(place) || ["/proc/", "/sys/", "/dev/"].iter().any(|prefix| place.starts_with(prefix))
        });
        places.sort_unstable();
        let within = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let nested =
            places.iter().enumerate().any(|(i, outer)| places[i + 1..].iter().any(|inner| within(outer, inner)));
        !taken && !nested
    }

    /// The content it reads.
    pub fn content_inputs(&self) -> impl Iterator<Item = Cid> {
        self.inputs.iter().filter_map(|input| match input.source {
            Source::Content(cid) => Some(cid),
            Source::Local { .. } | Source::Url { .. } | Source::S3(_) => None,
        })
    }
}
