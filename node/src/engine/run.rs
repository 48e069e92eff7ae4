//! One run, from its inputs to its result.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bacnode_protocol::compute::{Ended, Run};
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::bounded::{BytesMax, TextMax};
use bacnode_protocol::wire::market::{FailureKind, Head, Outcome, Phase, Usage};
use bacnode_protocol::wire::task::EngineTask;
use tokio_util::sync::CancellationToken;

use super::inputs::{self, Mount};
use super::wasm::{Guest, GuestEnd};
use super::{RunError, Runner};
use crate::content::{Content, ContentError, Imported, Limits};

/// Free disk below which nothing that writes goes on: the node itself needs some.
const FREE_DISK_MIN: u64 = 128 << 20;
/// How often a running task's output is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// Runs it to its end, whatever that is.
pub(super) async fn run(runner: Runner, run: Run, stop: CancellationToken, result: PathBuf) -> Ended {
    let started = Instant::now();
    let mut usage = Usage::default();
    let ended = tokio::select! {
        ended = execute(&runner, &run, &result, &mut usage) => ended,
        () = stop.cancelled() => Err(RunError::Stopped),
    };
    usage.wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    runner.report_phase(run.execution, Phase::Publishing).await;
    let content = runner.inner.content.clone();
    let limits = Limits { bytes: runner.inner.limits.output_bytes, entries: runner.inner.limits.output_entries };
    let reason = run.execution.to_string();
    let published =
        tokio::task::spawn_blocking(move || publish(&content, &result, ended, usage, limits, &reason)).await;
    published.unwrap_or_else(|_| node_failed("storing the result broke down"))
}

/// A run that ended by this node's doing, with nothing to show.
pub(super) fn node_failed(cause: &str) -> Ended {
    Ended {
        outcome: Outcome::NodeFailed { cause: TextMax::truncated(cause) },
        root: None,
        size: 0,
        usage: Usage::default(),
        stdout: Head::default(),
        stderr: Head::default(),
        blocks: Vec::new(),
    }
}

async fn execute(runner: &Runner, run: &Run, result: &Path, usage: &mut Usage) -> Result<i32, RunError> {
    let EngineTask::Wasm(wasm) = &run.task.engine;
    let inner = &runner.inner;
    // The machine declines such tasks; nothing is opened on the strength of that alone.
    if !run.task.is_plain() {
        return Err(RunError::task(FailureKind::Program, "a path or name in the task is not plain"));
    }
    let unusable = |error: std::io::Error| RunError::Node(format!("cannot make the run's folder: {error}"));
    std::fs::create_dir_all(result).map_err(unusable)?;
    let work = result.with_extension("work");
    std::fs::create_dir_all(&work).map_err(unusable)?;
    let _work = RemoveOnDrop(work.clone());
    let sources = inputs::fetch(runner, run, usage).await?;
    let module = inputs::module(&inner.content, &sources, &wasm.module).await?;
    let artefact = inner.wasm.compile(&module, run.task.deterministic).await?;
    let mut mounts = inputs::mounts(&sources, &work)?;
    for output in &run.task.outputs {
        let host = result.join(&*output.name);
        std::fs::create_dir_all(&host).map_err(unusable)?;
        mounts.push(Mount { host, guest: output.path.to_string(), writable: true });
    }
    let args: Vec<String> = std::iter::once(wasm.module.to_string())
        .chain(wasm.args.iter().map(std::string::ToString::to_string))
        .collect();
    let guest = Guest {
        args,
        env: environment(run),
        mounts: mounts.into_iter().map(Into::into).collect(),
        stdout: result.join("stdout").to_string_lossy().into_owned(),
        stderr: result.join("stderr").to_string_lossy().into_owned(),
        entrypoint: wasm.entrypoint.to_string(),
        log_bytes_max: inner.limits.log_bytes,
        file_bytes_max: inner.limits.output_bytes,
        memory_max: run.task.resources.memory,
        timeout_ms: run.task.timeout_ms,
        deterministic: run.task.deterministic,
        seed: u64::from_be_bytes(run.job.0[12..].try_into().unwrap_or_default()) ^ u64::from(run.slot),
    };
    runner.report_phase(run.execution, Phase::Running).await;
    let end = tokio::select! {
        end = inner.wasm.run(&run.owner, artefact, guest) => end?,
        excess = watch_output(result, inner.limits.output_bytes, inner.limits.output_entries) => return Err(excess),
    };
    usage.cpu_ms = end.cpu_ms;
    usage.memory_peak = end.memory_peak;
    finish(end, run, runner)
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
            let limit = format_bytes(runner.inner.limits.output_bytes);
            task(FailureKind::Output, format!("the program wrote a file of more than {limit}"))
        }
        End::Unrunnable(cause) => task(FailureKind::Program, cause),
    }
}

/// The variables of the job and of the network, under both families of names.
fn environment(run: &Run) -> Vec<(String, String)> {
    let own = run.task.env.iter().map(|variable| (variable.name.to_string(), variable.value.to_string()));
    let ours = [
        ("EXECUTION_ID", run.execution.to_string()),
        ("JOB_ID", run.job.to_string()),
        ("JOB_TYPE", "batch".to_owned()),
        ("PARTITION_INDEX", run.slot.to_string()),
        ("PARTITION_COUNT", run.task.slots.to_string()),
    ];
    let ours = ours
        .into_iter()
        .flat_map(|(name, value)| ["BACNODE_", "BACALHAU_"].map(|prefix| (format!("{prefix}{name}"), value.clone())));
    own.chain(ours).collect()
}

/// Ends, with the reason, when the task has written more than it may.
async fn watch_output(result: &Path, bytes_max: u64, entries_max: u64) -> RunError {
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let path = result.to_owned();
        let measured = tokio::task::spawn_blocking(move || measure(&path, entries_max)).await;
        let (bytes, entries) = measured.unwrap_or((0, 0));
        if crate::config::free_disk(result).is_some_and(|free| free < FREE_DISK_MIN) {
            return RunError::Node("its disk became too full to go on".into());
        }
        if bytes > bytes_max {
            let cause = format!("the program wrote more than {} of files", format_bytes(bytes_max));
            return RunError::task(FailureKind::Output, cause);
        }
        if entries > entries_max {
            return RunError::task(FailureKind::Output, format!("the program made more than {entries_max} files"));
        }
    }
}

fn measure(path: &Path, entries_max: u64) -> (u64, u64) {
    let (mut bytes, mut entries, mut stack) = (0u64, 0u64, vec![path.to_owned()]);
    while let Some(dir) = stack.pop() {
        // A folder that cannot be looked into (its path may have become too long) cannot be answered for.
        let Ok(listed) = std::fs::read_dir(&dir) else {
            if dir.exists() || dir.as_os_str().len() > 4_000 {
                return (bytes, u64::MAX);
            }
            continue;
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > entries_max {
                return (bytes, entries);
            }
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => stack.push(entry.path()),
                Ok(meta) => bytes = bytes.saturating_add(meta.len()),
                Err(_) => {}
            }
        }
    }
    (bytes, entries)
}

/// Makes the result folder of what the run left.
fn publish(
    content: &Content,
    result: &Path,
    ended: Result<i32, RunError>,
    mut usage: Usage,
    limits: Limits,
    reason: &str,
) -> Ended {
    let (stdout, stderr) = (head(&result.join("stdout")), head(&result.join("stderr")));
    let failed = |outcome, usage| Ended {
        outcome,
        root: None,
        size: 0,
        usage,
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        blocks: Vec::new(),
    };
    let outcome = match ended {
        Ok(exit_code) => Outcome::Completed { exit_code },
        Err(RunError::Task { kind, cause }) => Outcome::Failed { kind, cause: TextMax::truncated(&cause) },
        Err(RunError::Node(cause)) => return failed(Outcome::NodeFailed { cause: TextMax::truncated(&cause) }, usage),
        Err(RunError::Stopped) => return failed(Outcome::Cancelled, usage),
    };
    let imported = match &outcome {
        Outcome::Completed { exit_code } => std::fs::write(result.join("exitCode"), exit_code.to_string())
            .map_err(|source| ContentError::Io { what: "cannot write the exit code".into(), source })
            .and_then(|()| content.import(result, limits, true, reason)),
        _ => logs_only(content, result, limits, reason),
    };
    match imported {
        Ok(Imported { root, size, blocks }) => {
            usage.bytes_out = size;
            Ended { outcome, root: Some(root), size, usage, stdout, stderr, blocks }
        }
        Err(ContentError::Refused(cause)) => {
            let cause = TextMax::truncated(&format!("the result cannot be kept: {cause}"));
            failed(Outcome::Failed { kind: FailureKind::Output, cause }, usage)
        }
        Err(error) => failed(Outcome::NodeFailed { cause: TextMax::truncated(&error.to_string()) }, usage),
    }
}

/// After a failure only what was printed is kept: half-written outputs would look like results.
fn logs_only(content: &Content, result: &Path, limits: Limits, reason: &str) -> Result<Imported, ContentError> {
    for entry in std::fs::read_dir(result).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name != "stdout" && name != "stderr" {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
    for name in ["stdout", "stderr"] {
        let path = result.join(name);
        if !path.exists() {
            let _ = std::fs::write(path, []);
        }
    }
    content.import(result, limits, true, reason)
}

fn head(path: &Path) -> Head {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(1025).read_to_end(&mut bytes);
    }
    let truncated = bytes.len() > 1024;
    bytes.truncate(1024);
    Head { bytes: BytesMax::new(bytes).unwrap_or_default(), truncated }
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
