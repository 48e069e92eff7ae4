//! One run, from its inputs to its result.

mod container;
mod module;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bacnode_protocol::compute::{Ended, Run};
use bacnode_protocol::wire::bounded::TextMax;
use bacnode_protocol::wire::market::{FailureKind, Outcome, Phase, Usage};
use bacnode_protocol::wire::s3::{Encoding, Place, Publisher};
use bacnode_protocol::wire::task::EngineTask;
use tokio_util::sync::CancellationToken;

use super::inputs::{self, Mount, Reads};
use super::note::Note;
use super::{RunError, Runner, docker, publish, result};
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
            container::resume(&runner, &run, &result, &until, &reads, &mut usage).await
        } else {
            execute(&runner, &run, &result, &until, &reads, &mut usage).await
        }
    };
    let ended = tokio::select! {
        ended = program => ended,
        () = stop.cancelled() => Err(RunError::Stopped),
    };
    // From here on its container is on its way out: a later life of the node must not take it for one that ended by itself.
    Note::remove(&result);
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
        Err(error) => Outcome::NodeFailed { began: true, cause: TextMax::truncated(&error.to_string()) },
    };
    let _ = kept_in.unpin_all(&run.execution.to_string());
    Ended { outcome, root: None, size: 0, blocks: Vec::new(), ..ended }
}

/// A run that ended by this node's doing, with nothing to show.
pub(super) fn node_failed(cause: &str) -> Ended {
    Ended::bare(Outcome::NodeFailed { began: true, cause: TextMax::truncated(cause) })
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
        return Err(RunError::task(FailureKind::Program, "something in the task is not as any spec could say it"));
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
            EngineTask::Wasm(wasm) => {
                module::run_module(runner, run, wasm, result, &sources, &work, outputs, usage).await
            }
            EngineTask::Docker(docker) => {
                container::run_container(runner, run, docker, result, &sources, outputs, until, reads, usage).await
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
        ("JOB_TYPE", run.task.kind.name().to_owned()),
        ("JOB_VERSION", run.task.version.to_string()),
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
