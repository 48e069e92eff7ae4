//! From [`JobSpec`] to a job that can run: "parse, don't validate".

use std::collections::BTreeSet;

use super::constraints::check_constraints;
use super::engine::check_engine;
use super::fields::{InvalidSpec, Problems};
use super::inputs::{ValidInput, absolute, check_inputs, check_path};
use super::ports::check_ports;
use super::resources::{parse_bytes, parse_cpu};
use super::s3::check_publisher;
use super::spec::{JobSpec, TaskSpec};
use crate::limits::{ARGS_MAX, DOMAINS_MAX, EXECUTION_TIMEOUT, OUTPUTS_MAX, QUEUE_TIMEOUT, SLOTS_MAX, TASK_BYTES_MAX};
use crate::time::Span;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::codec;
use crate::wire::group::MEMBERS;
use crate::wire::market::Lease;
use crate::wire::task::{Access, EnvVar, Input, JobKind, OutputPath, RESERVED_NAMES, Reach, Resources, Source, Task};

/// A job that can run once its inline inputs are content.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidJob {
    /// As submitted.
    pub spec: JobSpec,
    /// How many slots; of no meaning for a job that runs everywhere.
    pub slots: u32,
    /// Whether a new version waits for the end of the one before it.
    pub strict: bool,
    /// What was read past.
    pub warnings: Vec<String>,
    /// Its inputs, in order.
    pub inputs: Vec<ValidInput>,
    /// How long it may wait for a place.
    pub queue_timeout: Span,
    /// How long it may take in all.
    pub total_timeout: Option<Span>,
    /// Its lease.
    pub lease: Lease,
    /// Whether others keep it, if its user said so.
    pub durability: Option<Durability>,
    task: Task,
}

/// Whether a job ends with the node at which it was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Two others keep it: it goes on without its own node.
    Quorum,
    /// It is on that node's disk alone.
    Local,
}

impl ValidJob {
    /// Checks `spec`.
    ///
    /// # Errors
    /// With the path of every field that is wrong.
    pub fn new(mut spec: JobSpec) -> Result<Self, InvalidSpec> {
        let mut problems = Problems::default();
        let mut warnings = std::mem::take(&mut spec.warnings);
        let kind = check_job(&spec, &mut problems);
        let constraints = check_constraints(&spec, &mut problems);
        let Some(mut task_spec) = spec.tasks.first().cloned() else {
            problems.add("Tasks", "is required: what should run?");
            return problems.into_result(None).map(|_: Option<Self>| unreachable!("there is a problem"));
        };
        let path = "Tasks[0]";
        let inputs = check_inputs(path, &task_spec, &mut problems);
        let engine = check_engine(path, &mut task_spec, &inputs, &mut problems);
        check_targets(path, &task_spec, &mut problems);
        let network = check_network(path, &task_spec, &mut problems);
        let ports = check_ports(path, &task_spec, &network, &mut problems);
        let publisher = check_publisher(path, &task_spec, &mut problems);
        let resources = check_resources(path, &task_spec, &mut problems);
        let (mut timeout, queue_timeout, mut total_timeout) = check_timeouts(path, &task_spec, &mut problems);
        if kind.is_endless() {
            if task_spec.timeouts.execution_timeout > 0 || task_spec.timeouts.total_timeout > 0 {
                let kind = kind.name();
                warnings.push(format!("ExecutionTimeout and TotalTimeout do not apply to a {kind}, which has no end"));
            }
            (timeout, total_timeout) = (Span::ZERO, None);
        }
        let lease = check_lease(path, &task_spec, &mut problems);
        let durability = check_durability(path, &task_spec, &mut problems);
        let durability = check_replicas(path, &task_spec, durability, &mut problems);
        let env = check_env(path, &task_spec, &mut problems);
        let outputs = task_spec.result_paths.iter().map(|result| OutputPath {
            name: TextMax::truncated(&result.name),
            path: TextMax::truncated(&result.path),
        });
        let slots = u32::try_from(spec.count).unwrap_or(0);
        let task = Task {
            engine,
            inputs: ListMax::default(),
            outputs: ListMax::truncated(outputs),
            env,
            resources,
            timeout_ms: timeout.as_millis(),
            kind,
            version: 1,
            priority: i32::try_from(spec.priority).unwrap_or(0),
            constraints,
            slots,
            deterministic: task_spec.deterministic,
            // Two that run at one time would both run on, and on.
            exclusive: task_spec.exclusive || kind.is_endless(),
            network,
            ports,
            publisher,
        };
        let strict = task_spec.exclusive;
        problems.into_result(Self {
            spec,
            slots,
            strict,
            warnings,
            inputs,
            queue_timeout,
            total_timeout,
            lease,
            durability,
            task,
        })
    }

    /// What kind of job it is.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        self.task.kind
    }

    /// The task, now that each input lies where `sources` says, in the order of [`ValidJob::inputs`].
    ///
    /// # Errors
    /// If the whole does not fit an ask.
    pub fn task(&self, sources: Vec<Source>) -> Result<Task, InvalidSpec> {
        let inputs = sources.into_iter().zip(&self.inputs);
        let inputs = inputs.map(|(source, input)| Input { source, target: TextMax::truncated(&input.target) });
        let task = Task { inputs: ListMax::truncated(inputs), ..self.task.clone() };
        if !task.is_plain() {
            let message = "inputs and results of a container must lie apart from each other, and from /, /proc, /sys, /dev, \
                           /tmp and /etc";
            return Err(InvalidSpec::one("Tasks[0]", message));
        }
        let len = codec::encode(&task).len();
        if len > TASK_BYTES_MAX {
            let message = format!(
                "arguments, environment and paths make {len} bytes; at most {TASK_BYTES_MAX} travel \
                                   with an ask: move data into an input"
            );
            return Err(InvalidSpec::one("Tasks[0]", message));
        }
        Ok(task)
    }
}

fn check_job(spec: &JobSpec, problems: &mut Problems) -> JobKind {
    let names = JobKind::ALL.map(JobKind::name).join(", ");
    let kind = JobKind::ALL.into_iter().find(|kind| kind.name() == spec.kind);
    match spec.kind.as_str() {
        "" => problems.add("Type", format!("is required: one of {names}")),
        other if kind.is_none() => problems.add("Type", format!("`{other}` is not a job type ({names})")),
        _ => {}
    }
    let kind = kind.unwrap_or_default();
    let (name, most) = (kind.name(), i64::from(SLOTS_MAX));
    match kind {
        JobKind::Batch if !(1..=most).contains(&spec.count) => {
            problems.add("Count", format!("must be from 1 to {most}, not {}", spec.count));
        }
        // None: a service that rests.
        JobKind::Service if !(0..=most).contains(&spec.count) => {
            problems.add("Count", format!("must be from 0 to {most}, not {}", spec.count));
        }
        JobKind::Ops | JobKind::Daemon if !(0..=1).contains(&spec.count) => {
            problems.add("Count", format!("is not for {name} jobs, which run once on every node that matches"));
        }
        _ => {}
    }
    if i32::try_from(spec.priority).is_err() || spec.priority == i64::from(i32::MIN) {
        problems.add("Priority", format!("must be between {} and {}, not {}", -i32::MAX, i32::MAX, spec.priority));
    }
    for (path, text) in [("Name", &spec.name), ("Namespace", &spec.namespace)] {
        if text.len() > 255 || text.chars().any(char::is_control) {
            problems.add(path, "must be at most 255 bytes of plain text");
        }
    }
    kind
}

fn check_network(path: &str, task: &TaskSpec, problems: &mut Problems) -> Access {
    let wanted = match task.network.kind.to_lowercase().as_str() {
        // The least: whoever needs more says so.
        "" | "default" | "none" => Access::None,
        "http" => Access::Http(ListMax::truncated(domains(path, task, problems))),
        "bridge" => Access::Bridge,
        "host" | "full" => Access::Host,
        _ => {
            let wanted = &task.network.kind;
            problems.add(
                format!("{path}.Network.Type"),
                format!("`{wanted}` is not a network type (None, HTTP, Bridge, Host)"),
            );
            Access::None
        }
    };
    if wanted.reach() != Reach::Http && !task.network.domains.is_empty() {
        problems.add(format!("{path}.Network.Domains"), "go with the network type `HTTP`");
    }
    if task.engine.kind == "wasm" && !matches!(wanted, Access::None | Access::Http(_)) {
        problems.add(format!("{path}.Network.Type"), "wasm tasks have no network of their own; use `None` or `HTTP`");
    }
    if task.deterministic && wanted != Access::None {
        problems
            .add(format!("{path}.Network.Type"), "what comes over a network is not the same in every run; use `None`");
    }
    wanted
}

fn domains(path: &str, task: &TaskSpec, problems: &mut Problems) -> Vec<TextMax<255>> {
    let path = format!("{path}.Network.Domains");
    if task.network.domains.is_empty() {
        problems.add(&path, "is required with `HTTP`: which domains may it speak to?");
    }
    if task.network.domains.len() > DOMAINS_MAX {
        problems.add(&path, format!("has {} entries; at most {DOMAINS_MAX}", task.network.domains.len()));
    }
    for (i, domain) in task.network.domains.iter().enumerate() {
        let plain = domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if !plain || domain.trim_matches('.').is_empty() || domain.len() > 253 {
            problems.add(
                format!("{path}[{i}]"),
                format!("`{domain}` is not a domain (`example.org`, or `.example.org` for all below it)"),
            );
        }
    }
    task.network.domains.iter().map(|domain| TextMax::truncated(&domain.to_ascii_lowercase())).collect()
}

fn check_targets(path: &str, task: &TaskSpec, problems: &mut Problems) {
    let mut targets = BTreeSet::new();
    for (i, input) in task.input_sources.iter().enumerate() {
        if !input.target.is_empty() && !targets.insert(absolute(&input.target)) {
            problems.add(format!("{path}.InputSources[{i}].Target"), format!("`{}` is used twice", input.target));
        }
    }
    let mut aliases = BTreeSet::new();
    for (i, input) in task.input_sources.iter().enumerate() {
        if !input.alias.is_empty() && !aliases.insert(&input.alias) {
            problems.add(format!("{path}.InputSources[{i}].Alias"), format!("`{}` is used twice", input.alias));
        }
    }
    if task.result_paths.len() > OUTPUTS_MAX {
        let message = format!("has {} entries; at most {OUTPUTS_MAX} are kept", task.result_paths.len());
        problems.add(format!("{path}.ResultPaths"), message);
    }
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, result) in task.result_paths.iter().enumerate() {
        let at = format!("{path}.ResultPaths[{i}]");
        let reserved = RESERVED_NAMES.contains(&result.name.as_str());
        if !crate::content::unixfs::is_safe_name(&result.name) || reserved {
            problems.add(format!("{at}.Name"), format!("`{}` must be a plain file name of its own", result.name));
        } else if !names.insert(&result.name) {
            problems.add(format!("{at}.Name"), format!("`{}` is used twice", result.name));
        }
        check_path(&format!("{at}.Path"), &result.path, problems);
        if result.path == "/" || !paths.insert(&result.path) || targets.contains(&result.path) {
            problems.add(format!("{at}.Path"), format!("`{}` must be a folder of its own", result.path));
        }
    }
}

fn check_resources(path: &str, task: &TaskSpec, problems: &mut Problems) -> Resources {
    let path = format!("{path}.Resources");
    let spec = &task.resources;
    let mut amount = |name: &str, text: &str, default: u64, parse: fn(&str) -> Option<u64>, like: &str| {
        if text.is_empty() {
            return default;
        }
        parse(text).unwrap_or_else(|| {
            problems.add(format!("{path}.{name}"), format!("`{text}` is not an amount (write it like {like})"));
            0
        })
    };
    let resources = Resources {
        cpu_milli: amount("CPU", &spec.cpu, 500, parse_cpu, "`500m` or `2`"),
        memory: amount("Memory", &spec.memory, 512_000_000, parse_bytes, "`512Mb` or `1Gi`"),
        disk: amount("Disk", &spec.disk, 0, parse_bytes, "`1Gb`"),
        gpu: u32::try_from(amount("GPU", &spec.gpu, 0, |text| text.trim().parse().ok(), "`1`")).unwrap_or(u32::MAX),
    };
    if task.engine.kind == "wasm" && resources.gpu > 0 {
        problems.add(format!("{path}.GPU"), "wasm tasks cannot use a GPU");
    }
    if task.engine.kind == "wasm" && resources.memory > 4 << 30 {
        let message = format!("`{}` is more than the 4 GiB that a wasm module can address", spec.memory);
        problems.add(format!("{path}.Memory"), message);
    }
    resources
}

fn check_timeouts(path: &str, task: &TaskSpec, problems: &mut Problems) -> (Span, Span, Option<Span>) {
    let path = format!("{path}.Timeouts");
    let mut seconds = |name: &str, value: i64| {
        if !(0..=31_536_000).contains(&value) {
            problems.add(format!("{path}.{name}"), format!("must be from 0 seconds to a year, not {value}"));
        }
        u64::try_from(value).ok().filter(|&value| value > 0).map(Span::secs)
    };
    let execution = seconds("ExecutionTimeout", task.timeouts.execution_timeout);
    let queue = seconds("QueueTimeout", task.timeouts.queue_timeout);
    let total = seconds("TotalTimeout", task.timeouts.total_timeout);
    let sum = execution.map_or(0, |e| e.0) + queue.map_or(0, |q| q.0);
    if total.is_some_and(|total| sum > total.0) {
        problems.add(format!("{path}.TotalTimeout"), "is less than ExecutionTimeout and QueueTimeout together");
    }
    (execution.unwrap_or(EXECUTION_TIMEOUT), queue.unwrap_or(QUEUE_TIMEOUT), total)
}

fn check_durability(path: &str, task: &TaskSpec, problems: &mut Problems) -> Option<Durability> {
    match task.durability.as_deref()?.to_lowercase().as_str() {
        "quorum" => Some(Durability::Quorum),
        "local" => Some(Durability::Local),
        other => {
            problems.add(format!("{path}.Durability"), format!("must be quorum or local, not `{other}`"));
            None
        }
    }
}

/// Whoever wants a result to be held by others wants them to keep the job.
fn check_replicas(
    path: &str,
    task: &TaskSpec,
    durability: Option<Durability>,
    problems: &mut Problems,
) -> Option<Durability> {
    let Some(replicas) = task.replicas else { return durability };
    let at = format!("{path}.Replicas");
    if !usize::try_from(replicas).is_ok_and(|replicas| (1..=MEMBERS).contains(&replicas)) {
        problems.add(at, format!("must be 1 to {MEMBERS}, not {replicas}"));
    } else if replicas > 1 && durability == Some(Durability::Local) {
        problems.add(at, "with `Durability: local` nobody else holds its results");
    }
    durability.or((replicas > 1).then_some(Durability::Quorum))
}

/// Nodes that shall hold a result before its job is said to be done, if a spec says so.
pub(crate) fn replicas_in(spec: &[u8]) -> Option<u8> {
    let spec: serde_json::Value = serde_json::from_slice(spec).ok()?;
    let replicas = spec["Tasks"][0]["Replicas"].as_u64()?;
    u8::try_from(replicas).ok().filter(|replicas| (1..=MEMBERS).contains(&usize::from(*replicas)))
}

fn check_lease(path: &str, task: &TaskSpec, problems: &mut Problems) -> Lease {
    let mut lease = Lease::default();
    let mut millis = |name: &str, seconds: i64, range: std::ops::RangeInclusive<i64>| {
        if !range.contains(&seconds) {
            let message = format!("must be from {} to {} seconds, not {seconds}", range.start(), range.end());
            problems.add(format!("{path}.{name}"), message);
        }
        u32::try_from(seconds.saturating_mul(1_000)).unwrap_or(0)
    };
    if let Some(spec) = &task.lease {
        lease.heartbeat_ms = millis("Lease.Heartbeat", spec.heartbeat, 1..=600);
        lease.length_ms = millis("Lease.Length", spec.length, 2..=3600);
        lease.grace_ms = millis("Lease.Grace", spec.grace, 1..=600);
        if spec.length <= spec.heartbeat {
            problems.add(format!("{path}.Lease.Length"), "must be longer than the heartbeat");
        }
    }
    if let Some(seconds) = task.orphan_ttl {
        lease.orphan_ms = u32::try_from(seconds.saturating_mul(1_000)).unwrap_or(u32::MAX);
        if seconds < 0 {
            problems.add(format!("{path}.OrphanTTL"), "must not be negative");
        }
    }
    lease
}

fn check_env(path: &str, task: &TaskSpec, problems: &mut Problems) -> ListMax<EnvVar, ARGS_MAX> {
    let path = format!("{path}.Env");
    if task.env.len() > ARGS_MAX {
        problems.add(&path, format!("has {} entries; at most {ARGS_MAX} are passed", task.env.len()));
    }
    for (name, value) in &task.env {
        let at = format!("{path}.{name}");
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || name.len() > 255 {
            problems.add(&at, "a name has letters, digits and `_`, and does not start with a digit");
        }
        if name.starts_with("BACALHAU_") || name.starts_with("BACNODE_") {
            problems.add(&at, "names with this prefix are set by the network itself");
        }
        if value.len() > 8192 || value.contains('\0') {
            problems.add(&at, "must be at most 8192 bytes without NUL");
        }
        if value.strip_prefix("env:").is_some_and(|name| name.is_empty() || name.contains(char::is_whitespace)) {
            problems.add(&at, "`env:` is followed by the name of a variable of the compute node");
        }
    }
    let variable =
        |(name, value): (&String, &String)| EnvVar { name: TextMax::truncated(name), value: TextMax::truncated(value) };
    ListMax::truncated(task.env.iter().map(variable))
}
