//! From [`JobSpec`] to a job that can run: "parse, don't validate".

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{Fields, InvalidSpec, Problems};
use super::resources::{parse_bytes, parse_cpu};
use super::spec::{InputSource, JobSpec, TaskSpec};
use crate::content::Cid;
use crate::limits::{ARGS_MAX, EXECUTION_TIMEOUT, INPUTS_MAX, OUTPUTS_MAX, QUEUE_TIMEOUT, SLOTS_MAX, TASK_BYTES_MAX};
use crate::time::Span;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::codec;
use crate::wire::market::Lease;
use crate::wire::task::{EngineTask, EnvVar, Input, OutputPath, Resources, Source, Task, WasmTask};

/// Where an input comes from, before inline data has become content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidSource {
    /// Content of the network.
    Content(Cid),
    /// Data in the spec itself.
    Inline(Vec<u8>),
    /// A path on the compute node.
    Local {
        /// Absolute.
        path: String,
        /// Whether the task may write to it.
        writable: bool,
    },
}

/// An input whose fields are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidInput {
    /// Where from.
    pub source: ValidSource,
    /// Absolute path in the task.
    pub target: String,
}

/// A job that can run once its inline inputs are content.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidJob {
    /// As submitted.
    pub spec: JobSpec,
    /// How many slots.
    pub slots: u32,
    /// Its inputs, in order.
    pub inputs: Vec<ValidInput>,
    /// How long it may wait for a place.
    pub queue_timeout: Span,
    /// How long it may take in all.
    pub total_timeout: Option<Span>,
    /// Its lease.
    pub lease: Lease,
    task: Task,
}

impl ValidJob {
    /// Checks `spec`.
    ///
    /// # Errors
    /// With the path of every field that is wrong.
    pub fn new(spec: JobSpec) -> Result<Self, InvalidSpec> {
        let mut problems = Problems::default();
        check_job(&spec, &mut problems);
        let Some(task_spec) = spec.tasks.first().cloned() else {
            problems.add("Tasks", "is required: what should run?");
            return problems.into_result(None).map(|_: Option<Self>| unreachable!("there is a problem"));
        };
        let path = "Tasks[0]";
        let inputs = check_inputs(path, &task_spec, &mut problems);
        let engine = check_engine(path, &task_spec, &inputs, &mut problems);
        check_targets(path, &task_spec, &mut problems);
        check_surroundings(path, &task_spec, &mut problems);
        let resources = check_resources(path, &task_spec, &mut problems);
        let (timeout, queue_timeout, total_timeout) = check_timeouts(path, &task_spec, &mut problems);
        let lease = check_lease(path, &task_spec, &mut problems);
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
            slots,
            deterministic: task_spec.deterministic,
            exclusive: task_spec.exclusive,
        };
        problems.into_result(Self { spec, slots, inputs, queue_timeout, total_timeout, lease, task })
    }

    /// The task, now that each input lies where `sources` says, in the order of [`ValidJob::inputs`].
    ///
    /// # Errors
    /// If the whole does not fit an ask.
    pub fn task(&self, sources: Vec<Source>) -> Result<Task, InvalidSpec> {
        let inputs = sources.into_iter().zip(&self.inputs);
        let inputs = inputs.map(|(source, input)| Input { source, target: TextMax::truncated(&input.target) });
        let task = Task { inputs: ListMax::truncated(inputs), ..self.task.clone() };
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

fn check_job(spec: &JobSpec, problems: &mut Problems) {
    match spec.kind.as_str() {
        "batch" => {}
        "" => problems.add("Type", "is required: `batch`"),
        "ops" | "service" | "daemon" => {
            problems.add("Type", format!("`{}` jobs are not offered yet; `batch` is", spec.kind));
        }
        other => problems.add("Type", format!("`{other}` is not a job type (batch)")),
    }
    if !(1..=i64::from(SLOTS_MAX)).contains(&spec.count) {
        problems.add("Count", format!("must be from 1 to {SLOTS_MAX}, not {}", spec.count));
    }
    for (path, text) in [("Name", &spec.name), ("Namespace", &spec.namespace)] {
        if text.len() > 255 || text.chars().any(char::is_control) {
            problems.add(path, "must be at most 255 bytes of plain text");
        }
    }
    if !spec.constraints.is_empty() {
        problems.add("Constraints", "are not offered yet; remove them");
    }
    if spec.tasks.len() > 1 {
        problems.add("Tasks", format!("has {} entries; a job has one task", spec.tasks.len()));
    }
}

fn check_engine(path: &str, task: &TaskSpec, inputs: &[ValidInput], problems: &mut Problems) -> EngineTask {
    let path = format!("{path}.Engine");
    match task.engine.kind.as_str() {
        "wasm" => {}
        "" => problems.add(format!("{path}.Type"), "is required: `wasm`"),
        "docker" => problems.add(format!("{path}.Type"), "`docker` is not offered yet; `wasm` is"),
        other => problems.add(format!("{path}.Type"), format!("`{other}` is not an engine (wasm)")),
    }
    let params = Value::Object(task.engine.params.clone());
    let wasm = task.engine.kind == "wasm";
    let mut fields = Fields::of(&format!("{path}.Params"), &params, problems);
    let module = fields.text("EntryModule", problems).unwrap_or_default();
    let entrypoint = fields.text("Entrypoint", problems).filter(|e| !e.is_empty()).unwrap_or_else(|| "_start".into());
    let args = fields.texts("Parameters", problems);
    let imports = fields.list("ImportModules", problems);
    if wasm {
        if module.is_empty() {
            problems.add(fields.at("EntryModule"), "is required: the path of an input that is the module");
        } else if !inputs.iter().any(|input| covers(&input.target, &absolute(&module))) && !inputs.is_empty() {
            let targets: Vec<&str> = inputs.iter().map(|input| input.target.as_str()).collect();
            let message = format!("`{module}` is not among the inputs ({})", targets.join(", "));
            problems.add(fields.at("EntryModule"), message);
        } else if task.input_sources.is_empty() {
            let message = format!("`{module}` is not among the inputs: there are none (add it to InputSources)");
            problems.add(fields.at("EntryModule"), message);
        }
        if !imports.is_empty() {
            problems.add(fields.at("ImportModules"), "are not offered yet; link the modules into one");
        }
        check_args(&fields.at("Parameters"), &args, problems);
        fields.finish(problems);
    }
    EngineTask::Wasm(WasmTask {
        module: TextMax::truncated(&absolute(&module)),
        entrypoint: TextMax::truncated(&entrypoint),
        args: ListMax::truncated(args.iter().map(|arg| TextMax::truncated(arg))),
    })
}

fn check_args(path: &str, args: &[String], problems: &mut Problems) {
    if args.len() > ARGS_MAX {
        problems.add(path, format!("has {} entries; at most {ARGS_MAX} are passed", args.len()));
    }
    for (index, arg) in args.iter().enumerate() {
        if arg.len() > 8192 || arg.contains('\0') {
            problems.add(format!("{path}[{index}]"), "must be at most 8192 bytes without NUL");
        }
    }
}

/// `wasm.main` and `/wasm.main` are the same place: a task's paths start at its root.
fn absolute(path: &str) -> String {
    if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Whether `path` is `target` or lies in it.
fn covers(target: &str, path: &str) -> bool {
    let target = target.trim_end_matches('/');
    path.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_inputs(path: &str, task: &TaskSpec, problems: &mut Problems) -> Vec<ValidInput> {
    if task.input_sources.len() > INPUTS_MAX {
        let message = format!("has {} entries; at most {INPUTS_MAX} are read", task.input_sources.len());
        problems.add(format!("{path}.InputSources"), message);
    }
    let inputs = task.input_sources.iter().enumerate();
    inputs.filter_map(|(i, input)| check_input(&format!("{path}.InputSources[{i}]"), input, problems)).collect()
}

fn check_input(path: &str, input: &InputSource, problems: &mut Problems) -> Option<ValidInput> {
    if input.target.is_empty() {
        problems.add(format!("{path}.Target"), "is required: the path at which the task sees the input");
    }
    let target = absolute(&input.target);
    check_path(&format!("{path}.Target"), &target, problems);
    let params = Value::Object(input.source.params.clone());
    let mut fields = Fields::of(&format!("{path}.Source.Params"), &params, problems);
    let source = match input.source.kind.as_str() {
        "ipfs" | "content" => {
            let text = required(&mut fields, "CID", problems)?;
            match text.parse() {
                Ok(cid) => ValidSource::Content(cid),
                Err(error) => {
                    problems.add(fields.at("CID"), format!("`{}`: {error}", text.chars().take(80).collect::<String>()));
                    return None;
                }
            }
        }
        "inline" => {
            let url = required(&mut fields, "URL", problems)?;
            match data_url(&url) {
                Ok(bytes) => ValidSource::Inline(bytes),
                Err(message) => {
                    problems.add(fields.at("URL"), message);
                    return None;
                }
            }
        }
        "local" | "localdirectory" => {
            let path = required(&mut fields, "SourcePath", problems)?;
            let writable = fields.flag("ReadWrite", problems).unwrap_or(false);
            fields.take("CreateAs");
            if !path.starts_with('/') {
                problems.add(fields.at("SourcePath"), format!("`{path}` must be an absolute path on the compute node"));
            }
            ValidSource::Local { path, writable }
        }
        "" => {
            problems.add(format!("{path}.Source.Type"), "is required (ipfs, inline, local)");
            return None;
        }
        other @ ("urldownload" | "s3" | "s3presigned") => {
            problems.add(format!("{path}.Source.Type"), format!("`{other}` is not offered yet (ipfs, inline, local)"));
            return None;
        }
        other => {
            problems.add(format!("{path}.Source.Type"), format!("`{other}` is not a source (ipfs, inline, local)"));
            return None;
        }
    };
    fields.finish(problems);
    Some(ValidInput { source, target })
}

fn required(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> Option<String> {
    let text = fields.text(name, problems).filter(|text| !text.is_empty());
    if text.is_none() {
        problems.add(fields.at(name), "is required");
    }
    text
}

/// The bytes of an RFC 2397 `data:` URL.
fn data_url(url: &str) -> Result<Vec<u8>, String> {
    let rest = url.strip_prefix("data:").ok_or("must be a data: URL (RFC 2397)")?;
    let (head, body) = rest.split_once(',').ok_or("a data: URL has a comma before its data")?;
    if head.starts_with("application/gzip") || head.starts_with("application/x-tar") {
        return Err("packed folders are not offered yet; add the folder as content".into());
    }
    if head.ends_with(";base64") { unbase64(body).ok_or("is not base64".into()) } else { Ok(percent_decode(body)) }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut buffer, mut bits) = (0u32, 0);
    for character in text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    bytes
}

fn check_path(path: &str, value: &str, problems: &mut Problems) {
    let plain = value.split('/').all(|part| part != ".." && part != "." && part.len() <= 255);
    if !value.starts_with('/') || !plain || value.len() > 1024 || value.contains('\0') {
        problems.add(path, format!("`{value}` must be an absolute path without `..`, at most 1024 bytes long"));
    }
}

fn check_targets(path: &str, task: &TaskSpec, problems: &mut Problems) {
    let mut targets = BTreeSet::new();
    for (i, input) in task.input_sources.iter().enumerate() {
        if !input.target.is_empty() && !targets.insert(absolute(&input.target)) {
            problems.add(format!("{path}.InputSources[{i}].Target"), format!("`{}` is used twice", input.target));
        }
    }
    if task.result_paths.len() > OUTPUTS_MAX {
        let message = format!("has {} entries; at most {OUTPUTS_MAX} are kept", task.result_paths.len());
        problems.add(format!("{path}.ResultPaths"), message);
    }
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, result) in task.result_paths.iter().enumerate() {
        let at = format!("{path}.ResultPaths[{i}]");
        let reserved = ["stdout", "stderr", "exitCode"].contains(&result.name.as_str());
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

fn check_surroundings(path: &str, task: &TaskSpec, problems: &mut Problems) {
    let publisher = task.publisher.kind.as_str();
    if !["", "ipfs", "content", "noop"].contains(&publisher) {
        let message = match publisher {
            "local" | "s3" | "s3managed" => format!("`{publisher}` is not offered yet; `ipfs` is (and is the default)"),
            _ => format!("`{publisher}` is not a publisher (ipfs)"),
        };
        problems.add(format!("{path}.Publisher.Type"), message);
    }
    match task.network.kind.to_lowercase().as_str() {
        "" | "none" | "default" => {}
        "http" | "host" | "full" | "bridge" => {
            problems.add(format!("{path}.Network.Type"), "wasm tasks have no network; use `None`");
        }
        other => problems.add(format!("{path}.Network.Type"), format!("`{other}` is not a network type (None)")),
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
        let plain = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !plain || !name.starts_with(|c: char| c.is_ascii_uppercase()) || name.len() > 255 {
            problems.add(&at, "a name has capitals, digits and `_`, and starts with a capital");
        }
        if name.starts_with("BACALHAU_") || name.starts_with("BACNODE_") {
            problems.add(&at, "names with this prefix are set by the network itself");
        }
        if value.len() > 8192 || value.contains('\0') {
            problems.add(&at, "must be at most 8192 bytes without NUL");
        }
        if value.starts_with("env:") {
            problems.add(&at, "variables of the compute node are not offered yet");
        }
    }
    let variable =
        |(name, value): (&String, &String)| EnvVar { name: TextMax::truncated(name), value: TextMax::truncated(value) };
    ListMax::truncated(task.env.iter().map(variable))
}
