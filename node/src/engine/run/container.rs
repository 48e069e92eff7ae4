//! A run of a container: from its start, or from where a former life of the node left it.

use std::path::Path;

use bacnode_protocol::compute::Run;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::bounded::ListMax;
use bacnode_protocol::wire::market::{FailureKind, Phase, Usage};
use bacnode_protocol::wire::task::{DockerTask, EngineTask};

use super::super::inputs::{Mount, Reads, Ready};
use super::super::note::Note;
use super::super::{Report, RunError, Runner, docker, result};
use super::{environment, output_limits};

pub(super) async fn run_container(
    runner: &Runner,
    run: &Run,
    docker: &DockerTask,
    folder: &Path,
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
    let opened = engine.open_ports(&execution, &run.task)?;
    if !opened.is_empty() {
        let ports = ListMax::truncated(opened.iter().cloned());
        let _ = reports.send(Report::Open(execution, ports)).await;
    }
    let note = Note::new(run, sources, reads, usage, &opened);
    let work = docker::Work {
        execution,
        task: &run.task,
        docker,
        image: &docker.image,
        digest: run.image,
        mounts: sources.iter().map(Ready::mount).chain(outputs).collect(),
        env: environment(runner, run)?.into_iter().chain(docker::port_variables(&opened)).collect(),
        ports: &opened,
        result: folder,
        log_bytes_max: runner.inner.limits.log_bytes,
        output_bytes_max: output_limits(runner, run).bytes,
        until,
        started: &|| _ = reports.try_send(Report::Phase(execution, Phase::Running)),
    };
    let end = engine.run(work, note).await?;
    container_ended(end, run, usage)
}

/// Goes on with a container that a former life of the node left.
pub(super) async fn resume(
    runner: &Runner,
    run: &Run,
    folder: &Path,
    until: &docker::Until,
    reads: &Reads,
    usage: &mut Usage,
) -> Result<i32, RunError> {
    let lost = || RunError::Node("the node went down while it ran this".into());
    let note = Note::read(folder).ok_or_else(lost)?;
    note.recall(reads, usage);
    let (Some(engine), EngineTask::Docker(docker)) = (&runner.inner.docker, &run.task.engine) else {
        return Err(lost());
    };
    // What it reads stays where it is.
    let (content, mounted) = (runner.inner.content.clone(), note.mounted().collect::<Vec<_>>());
    let mount = move || mounted.iter().map(|(private, root)| content.of_kind(*private).mount(root)).collect();
    let mounts: Result<Vec<_>, _> = tokio::task::spawn_blocking(mount).await.map_err(|_| lost())?;
    let _mounts = mounts?;
    let opened = note.ports();
    if !opened.is_empty() {
        let ports = ListMax::truncated(opened.iter().cloned());
        let _ = runner.inner.reports.send(Report::Open(run.execution, ports)).await;
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
        ports: &opened,
        result: folder,
        log_bytes_max: runner.inner.limits.log_bytes,
        output_bytes_max: limits.bytes,
        until,
        started: &|| (),
    };
    let written = [folder.to_owned()];
    let end = tokio::select! {
        end = engine.resume(work) => end?,
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
