//! A run of a WebAssembly program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bacnode_protocol::compute::Run;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::market::{FailureKind, Phase, Usage};
use bacnode_protocol::wire::task::{Access, WasmTask};
use tokio_util::task::AbortOnDropHandle;

use super::super::egress::{self, Egress};
use super::super::inputs::{self, Mount, Ready};
use super::super::wasm::{Guest, GuestEnd, GuestOutcome as End};
use super::super::{Inner, RunError, Runner};
use super::{environment, output_limits, temporary};

pub(super) async fn run_module(
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
        timeout_ms: run.task.time_limit().as_millis(),
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

/// Turns the worker's report into the program's exit code, or the limit that it ran into.
fn finish(end: GuestEnd, run: &Run, runner: &Runner) -> Result<i32, RunError> {
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
