//! What a run leaves behind: measured while it runs, made a result folder when it has ended.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bacnode_protocol::compute::Ended;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::bounded::{BytesMax, TextMax};
use bacnode_protocol::wire::market::{FailureKind, Head, Outcome, Usage};

use super::RunError;
use crate::content::{Content, ContentError, Imported, Limits};

/// Free disk below which nothing that writes goes on: the node itself needs some.
const FREE_DISK_MIN: u64 = 128 << 20;
/// How often a running task's output is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// Ends, with the reason, when the task has written more than it may.
pub(super) async fn watch(folders: &[PathBuf], limits: Limits) -> RunError {
    let Limits { bytes: bytes_max, entries: entries_max } = limits;
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let all = folders.to_vec();
        let measured = tokio::task::spawn_blocking(move || measure(all, entries_max)).await;
        let (bytes, entries) = measured.unwrap_or((0, 0));
        if folders.iter().find_map(|folder| crate::config::free_disk(folder)).is_some_and(|free| free < FREE_DISK_MIN) {
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

fn measure(mut stack: Vec<PathBuf>, entries_max: u64) -> (u64, u64) {
    let (mut bytes, mut entries) = (0u64, 0u64);
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
pub(super) fn publish(
    content: &Content,
    result: &Path,
    ended: Result<i32, RunError>,
    mut usage: Usage,
    limits: Limits,
    reason: &str,
) -> Ended {
    let (stdout, stderr) = (head(&result.join("stdout")), head(&result.join("stderr")));
    let heads = |ended: Ended| Ended { stdout: stdout.clone(), stderr: stderr.clone(), ..ended };
    let failed = |outcome, usage| heads(Ended { usage, ..Ended::bare(outcome) });
    let outcome = match ended {
        Ok(exit_code) => Outcome::Completed { exit_code },
        Err(RunError::Task { kind, cause }) => Outcome::Failed { kind, cause: TextMax::truncated(&cause) },
        Err(RunError::Node(cause)) => {
            return failed(Outcome::NodeFailed { began: true, cause: TextMax::truncated(&cause) }, usage);
        }
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
            heads(Ended { root: Some(root), size, usage, blocks, ..Ended::bare(outcome) })
        }
        Err(ContentError::Refused(cause)) => {
            let cause = TextMax::truncated(&format!("the result cannot be kept: {cause}"));
            failed(Outcome::Failed { kind: FailureKind::Output, cause }, usage)
        }
        Err(error) => failed(Outcome::NodeFailed { began: true, cause: TextMax::truncated(&error.to_string()) }, usage),
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
