//! One run, from its inputs to its result.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bacnode_protocol::compute::{Ended, Run};
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::bounded::{ListMax, TextMax};
use bacnode_protocol::wire::market::{FailureKind, Outcome, Phase, Usage};
use bacnode_protocol::wire::s3::{Encoding, Place, Publisher};
use bacnode_protocol::wire::task::{Access, DockerTask, EngineTask, WasmTask};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::egress::{self, Egress};
use super::inputs::{self, Mount, Reads, Ready};
use super::note::Note;
use super::wasm::{Guest, GuestEnd};
use super::{Inner, RunError, Runner, docker, publish, result};
use crate::content::{Content, Limits};

/// Runs it to its end, whatever that is.
pub(super) async fn run(
    runner: Runner,
    run: Run,
    is_left: bool,
    stop: CancellationToken,
    until: docker::Until,
    result: PathBuf,
) -> Ended {
    let started = Instant::now();
    let (mut usage, reads) = (Usage::default(), Reads::default());
    let program = async {
        if is_left {
            resume(&runner, &run, &result, &until, &reads, &mut usage).await
        } else {
            execute(&runner, &run, &result, &until, &reads, &mut usage).await
        }
    };
    let ended = tokio::select! {
        ended = program => ended,
        () = stop.cancelled() => Err(RunError::Stopped),
    };
    if let (EngineTask::Docker(_), Some(docker)) = (&run.task.engine, &runner.inner.docker) {
        // A program that is called off may end by itself, unless its owner's word is over.
        let expired = until.load(Ordering::Relaxed) <= crate::clock::tick().0;
        docker.remove(&run.execution, matches!(ended, Err(RunError::Stopped)) && !expired).await;
    }
    usage.wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    runner.report_phase(run.execution, Phase::Publishing).await;
    let (private, local) = (reads.private.into_inner(), reads.local.into_inner());
    let read_private = private || local;
    // What its owner may not have yet is nobody else's either; and what this node's own user makes of private content is no
    // more for others than that.
    let own = run.owner == runner.inner.me;
    let withheld = read_private && runner.inner.policy.withholds_from(&runner.inner.me, &run.owner);
    let keeps = private && own || withheld;
    let content = runner.inner.content.of_kind(keeps).clone();
    let kept_in = content.clone();
    let limits = output_limits(&runner, &run);
    let reason = run.execution.to_string();
    let serves = runner.inner.publisher.as_ref().filter(|_| run.task.publisher == Publisher::Local && ended.is_ok());
    if let Some(publisher) = serves {
        let note = publisher.note(&run.execution).await;
        if let Err(error) = std::fs::write(result.join(publish::NOTE), note) {
            tracing::warn!(%error, "cannot note where a result is served");
        }
    }
    let published =
        tokio::task::spawn_blocking(move || result::publish(&content, &result, ended, usage, limits, &reason)).await;
    let mut ended = published.unwrap_or_else(|_| node_failed("storing the result broke down"));
    ended.read_private = read_private;
    if let (Some(publisher), Some(root)) = (serves.filter(|_| !keeps), ended.root)
        && let Err(error) = publisher.keep(&root, &run.execution)
    {
        let _ = kept_in.unpin_all(&run.execution.to_string());
        return node_failed(&format!("cannot serve its result: {error}"));
    }
    if let (Publisher::S3(place, encoding), Outcome::Completed { .. }) = (&run.task.publisher, &ended.outcome) {
        return send_away(&runner, &run, &kept_in, (place, *encoding), &stop, ended).await;
    }
    ended
}

/// Sends a result to a store, and leaves a note in its place.
async fn send_away(
    runner: &Runner,
    run: &Run,
    kept_in: &Content,
    to: (&Place, Encoding),
    stop: &CancellationToken,
    mut ended: Ended,
) -> Ended {
    let inner = &runner.inner;
    let sent = tokio::select! {
        sent = inner.stores.publish(&inner.web, kept_in, run, &inner.me, to, &mut ended) => sent,
        () = stop.cancelled() => Err(RunError::Stopped),
    };
    let outcome = match sent {
        Ok(()) => return ended,
        Err(RunError::Stopped) => Outcome::Cancelled,
        // What is here is not where it should be: another node may do better.
        Err(error) => Outcome::NodeFailed { cause: TextMax::truncated(&error.to_string()) },
    };
    let _ = kept_in.unpin_all(&run.execution.to_string());
    Ended { outcome, root: None, size: 0, blocks: Vec::new(), ..ended }
}

/// A run that ended by this node's doing, with nothing to show.
pub(super) fn node_failed(cause: &str) -> Ended {
    Ended::bare(Outcome::NodeFailed { cause: TextMax::truncated(cause) })
}

/// What a run may leave: what it asked for, where it did, and never more than the node allows.
fn output_limits(runner: &Runner, run: &Run) -> Limits {
    let limits = runner.inner.limits;
    let asked = Some(run.task.resources.disk).filter(|disk| *disk > 0);
    Limits {
        bytes: asked.map_or(limits.output_bytes, |asked| asked.min(limits.output_bytes)),
        entries: limits.output_entries,
    }
}

async fn execute(
    runner: &Runner,
    run: &Run,
    result: &Path,
    until: &docker::Until,
    reads: &Reads,
    usage: &mut Usage,
) -> Result<i32, RunError> {
    // The machine declines such tasks; nothing is opened on the strength of that alone.
    if !run.task.is_plain() {
        return Err(RunError::task(FailureKind::Program, "a path or name in the task is not plain"));
    }
    let unusable = |error: std::io::Error| RunError::Node(format!("cannot make the run's folder: {error}"));
    std::fs::create_dir_all(result).map_err(unusable)?;
    let work = result.with_extension("work");
    std::fs::create_dir_all(temporary(&work)).map_err(unusable)?;
    let _work = RemoveOnDrop(work.clone());
    let sources = inputs::fetch(runner, run, reads, usage).await?;
    if reads.private.load(Ordering::Relaxed) || reads.local.load(Ordering::Relaxed) {
        // Said by the machine, too, as far as it knows what is private.
        let policy = &runner.inner.policy;
        policy.keeps_in(&runner.inner.me, &run.owner, &run.task).map_err(|cause| RunError::Node(cause.into()))?;
    }
    if reads.private.load(Ordering::Relaxed) && run.task.publisher == Publisher::Local {
        let cause = "what is made of private content is not served by a link: `job get` fetches it";
        return Err(RunError::task(FailureKind::Program, cause));
    }
    let mut outputs = Vec::with_capacity(run.task.outputs.len());
    for output in &run.task.outputs {
        let host = result.join(&*output.name);
        std::fs::create_dir_all(&host).map_err(unusable)?;
        outputs.push(Mount { host, guest: output.path.to_string(), writable: true });
    }
    let (limits, written) = (output_limits(runner, run), [result.to_owned(), temporary(&work)]);
    let program = async {
        match &run.task.engine {
            EngineTask::Wasm(wasm) => run_module(runner, run, wasm, result, &sources, &work, outputs, usage).await,
            EngineTask::Docker(docker) => {
                run_container(runner, run, docker, result, &sources, outputs, until, reads, usage).await
            }
        }
    };
    tokio::select! {
        end = program => end,
        excess = result::watch(&written, limits) => Err(excess),
    }
}

/// Where a program's temporary files are.
fn temporary(work: &Path) -> PathBuf {
    work.join("tmp")
}

async fn run_module(
    runner: &Runner,
    run: &Run,
    wasm: &WasmTask,
    result: &Path,
    sources: &[Ready],
    work: &Path,
    outputs: Vec<Mount>,
    usage: &mut Usage,
) -> Result<i32, RunError> {
    let inner = &runner.inner;
    let module = inputs::module(sources, &wasm.module).await?;
    let artefact = inner.wasm.compile(&module, run.task.deterministic).await?;
    let mut mounts = inputs::mounts(sources, work)?;
    // Many programs cannot do without; containers have one in memory.
    if !mounts.iter().chain(&outputs).any(|mount| mount.guest.trim_end_matches('/') == "/tmp") {
        mounts.push(Mount { host: temporary(work), guest: "/tmp".into(), writable: true });
    }
    let way_out = WayOut::open(inner, &run.task.network)
        .map_err(|error| RunError::Node(format!("cannot make a way to the web for it: {error}")))?;
    let args: Vec<String> = std::iter::once(wasm.module.to_string())
        .chain(wasm.args.iter().map(std::string::ToString::to_string))
        .collect();
    let guest = Guest {
        args,
        env: environment(runner, run)?,
        mounts: mounts.into_iter().chain(outputs).map(Into::into).collect(),
        stdout: result.join("stdout").to_string_lossy().into_owned(),
        stderr: result.join("stderr").to_string_lossy().into_owned(),
        entrypoint: wasm.entrypoint.to_string(),
        log_bytes_max: inner.limits.log_bytes,
        file_bytes_max: output_limits(runner, run).bytes,
        memory_max: run.task.resources.memory,
        timeout_ms: run.task.timeout_ms,
        way_out: way_out.as_ref().map(|way_out| way_out.door.to_string_lossy().into_owned()),
        deterministic: run.task.deterministic,
        seed: u64::from_be_bytes(run.job.0[12..].try_into().unwrap_or_default()) ^ u64::from(run.slot),
    };
    runner.report_phase(run.execution, Phase::Running).await;
    let modules = inputs::Modules { inputs: sources, listed: wasm.imports.iter().map(|path| &**path).collect() };
    let end = inner.wasm.run(&run.owner, artefact, guest, &modules).await?;
    usage.cpu_ms = end.cpu_ms;
    usage.memory_peak = end.memory_peak;
    finish(end, run, runner)
}

/// The way of a module to the web servers that its task names, for as long as this is kept.
struct WayOut {
    door: PathBuf,
    _dir: tempfile::TempDir,
    _proxy: AbortOnDropHandle<()>,
}

impl WayOut {
    fn open(inner: &Inner, network: &Access) -> std::io::Result<Option<Self>> {
        let Access::Http(domains) = network else { return Ok(None) };
        // Not in the node's own folder: the path of a socket must be short.
        let dir = tempfile::Builder::new().prefix("bacnode-").tempdir()?;
        let door = dir.path().join("door");
        let listener = tokio::net::UnixListener::bind(&door)?;
        let egress = Egress::new(domains, inner.policy.web, Arc::clone(&inner.room));
        let proxy = tokio::spawn(egress::serve(egress::Door::Unix(listener), egress));
        Ok(Some(Self { door, _dir: dir, _proxy: AbortOnDropHandle::new(proxy) }))
    }
}

async fn run_container(
    runner: &Runner,
    run: &Run,
    docker: &DockerTask,
    result: &Path,
    sources: &[Ready],
    outputs: Vec<Mount>,
    until: &docker::Until,
    reads: &Reads,
    usage: &mut Usage,
) -> Result<i32, RunError> {
    let engine = runner.inner.docker.as_ref();
    let engine = engine.ok_or_else(|| RunError::Node("there is no docker engine here".into()))?;
    let (user, group) = docker::default_user();
    for output in &outputs {
        std::os::unix::fs::chown(&output.host, Some(user), Some(group))
            .map_err(|error| RunError::Node(format!("cannot give a result folder to the container's user: {error}")))?;
    }
    let reports = runner.inner.reports.clone();
    let execution = run.execution;
    let (opened, variables) = engine.open_ports(&run.task)?;
    if !opened.open.is_empty() {
        let ports = ListMax::truncated(opened.open.iter().cloned());
        let _ = reports.send(super::Report::Open(execution, ports)).await;
    }
    let note = Note::new(run, sources, reads, usage, &opened.open);
    let work = docker::Work {
        execution,
        task: &run.task,
        docker,
        image: &docker.image,
        digest: run.image,
        mounts: sources.iter().map(Ready::mount).chain(outputs).collect(),
        env: environment(runner, run)?.into_iter().chain(variables).collect(),
        ports: &opened.open,
        result,
        log_bytes_max: runner.inner.limits.log_bytes,
        output_bytes_max: output_limits(runner, run).bytes,
        until,
        started: &|| _ = reports.try_send(super::Report::Phase(execution, Phase::Running)),
    };
    let end = engine.run(work, note).await?;
    container_ended(end, run, usage)
}

/// Goes on with a container that a former life of the node left.
async fn resume(
    runner: &Runner,
    run: &Run,
    result: &Path,
    until: &docker::Until,
    reads: &Reads,
    usage: &mut Usage,
) -> Result<i32, RunError> {
    let lost = || RunError::Node("the node went down while it ran this".into());
    let note = Note::read(result).ok_or_else(lost)?;
    note.recall(reads, usage);
    let (Some(engine), EngineTask::Docker(docker)) = (&runner.inner.docker, &run.task.engine) else {
        return Err(lost());
    };
    // What it reads stays where it is.
    let mut mounts = Vec::new();
    for (private, root) in note.mounted() {
        mounts.push(runner.inner.content.of_kind(private).mount(&root)?);
    }
    let opened = engine.open_ports_again(note.ports());
    if !opened.open.is_empty() {
        let ports = ListMax::truncated(opened.open.iter().cloned());
        let _ = runner.inner.reports.send(super::Report::Open(run.execution, ports)).await;
    }
    let limits = output_limits(runner, run);
    let work = docker::Work {
        execution: run.execution,
        task: &run.task,
        docker,
        image: &docker.image,
        digest: run.image,
        mounts: Vec::new(),
        env: Vec::new(),
        ports: &opened.open,
        result,
        log_bytes_max: runner.inner.limits.log_bytes,
        output_bytes_max: limits.bytes,
        until,
        started: &|| (),
    };
    let written = [result.to_owned()];
    let end = tokio::select! {
        end = engine.resume(work, &note.gpus) => end?,
        excess = result::watch(&written, limits) => return Err(excess),
    };
    container_ended(end, run, usage)
}

/// The exit code of a container's program, or the limit that it ran into.
fn container_ended(end: docker::ContainerEnd, run: &Run, usage: &mut Usage) -> Result<i32, RunError> {
    usage.cpu_ms = end.cpu_ms;
    usage.memory_peak = end.memory_peak;
    if end.out_of_memory {
        let limit = format_bytes(run.task.resources.memory);
        return Err(RunError::task(FailureKind::Memory, format!("the program wanted more than its {limit} of memory")));
    }
    if end.out_of_processes && end.exit_code != 0 {
        let cause = format!("the program wanted more than {} processes", docker::PIDS_MAX);
        return Err(RunError::task(FailureKind::Processes, cause));
    }
    Ok(i32::try_from(end.exit_code).unwrap_or(i32::MAX))
}

/// Turns the worker's report into the program's exit code, or the limit that it ran into.
fn finish(end: GuestEnd, run: &Run, runner: &Runner) -> Result<i32, RunError> {
    use super::wasm::GuestOutcome as End;
    let task = |kind, cause: String| Err(RunError::Task { kind, cause });
    match end.outcome {
        End::Exited(code) => Ok(code),
        End::Trapped(cause) => task(FailureKind::Trap, format!("the program trapped: {cause}")),
        End::Memory => {
            let limit = format_bytes(run.task.resources.memory);
            task(FailureKind::Memory, format!("the program wanted more than its {limit} of memory"))
        }
        End::Time => {
            let seconds = run.task.timeout_ms as f64 / 1_000.0;
            task(FailureKind::Time, format!("the program ran longer than its {seconds} s"))
        }
        End::Logs => {
            let limit = format_bytes(runner.inner.limits.log_bytes);
            task(FailureKind::Logs, format!("the program printed more than the {limit} that are kept"))
        }
        End::Output => {
            let limit = format_bytes(output_limits(runner, run).bytes);
            task(FailureKind::Output, format!("the program wrote a file of more than {limit}"))
        }
        End::Unrunnable(cause) => task(FailureKind::Program, cause),
    }
}

/// The variables of the job and of the network, under both families of names.
fn environment(runner: &Runner, run: &Run) -> Result<Vec<(String, String)>, RunError> {
    let mut variables = Vec::with_capacity(run.task.env.len() + 10);
    for variable in &run.task.env {
        let value = match variable.of_node() {
            None => variable.value.to_string(),
            Some(name) if runner.inner.policy.passes_on(name) => std::env::var(name)
                .map_err(|_| RunError::Node(format!("the variable `{name}` is not set on this node")))?,
            Some(name) => return Err(RunError::Node(format!("the variable `{name}` is not passed on here"))),
        };
        variables.push((variable.name.to_string(), value));
    }
    let ours = [
        ("EXECUTION_ID", run.execution.to_string()),
        ("JOB_ID", run.job.to_string()),
        ("JOB_TYPE", "batch".to_owned()),
        ("PARTITION_INDEX", run.slot.to_string()),
        ("PARTITION_COUNT", run.task.slots.to_string()),
    ];
    for (name, value) in ours {
        variables.extend(["BACNODE_", "BACALHAU_"].map(|prefix| (format!("{prefix}{name}"), value.clone())));
    }
    Ok(variables)
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        crate::content::remove_tree(&self.0);
    }
}
